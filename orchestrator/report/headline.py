"""The accuracy of the first and of the last model of a run, for large type."""

from dataclasses import dataclass

from orchestrator.results.columns import SHARES
from orchestrator.results.table import Column, Results, TableRow
from orchestrator.results.words import percent

MOST_SETS = 3
"""With more sets the headline tells their mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadlineFigure:
    first: str
    """Figure of the first model; empty: only one was evaluated."""
    last: str
    words: str
    """What was measured, and of which models."""


def headline(results: Results) -> tuple[HeadlineFigure, ...]:
    """A figure for every set, or one for their mean, from the models of the first line; empty where none was evaluated."""
    if not results.rows:
        return ()
    rows = results.groups[0][1]
    figures = [_figure(column, name, rows) for column, name in _columns(results)]
    return tuple(figure for figure in figures if figure)


def _columns(results: Results) -> list[tuple[Column, str]]:
    """(column, what it is of)."""
    if len(results.leading) > MOST_SETS:
        return [(column, "mean over sets") for column in results.over_sets[:1]]
    return [
        (column, name)
        for name, key in results.leading.items()
        for column in results.columns_of(name)
        if column.figure.key == key
    ]


def _figure(column: Column, name: str, rows: list[TableRow]) -> HeadlineFigure | None:
    known = [(row.title, value) for row in rows if (value := column.cell(row).value) is not None]
    if not known or column.figure.key not in SHARES:
        return None
    (first, began), (last, ended) = known[0], known[-1]
    several = len(known) > 1
    models = f"{first} → {last}" if several else last
    return HeadlineFigure(
        first=percent(began) if several else "",
        last=percent(ended),
        words=f"{name}, {SHARES[column.figure.key]}: {models}",
    )
