"""The table of all models: the overview, and every figure of each set folded away."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.report.render import Section
from orchestrator.results.columns import SHARES
from orchestrator.results.table import Column, Results, TableRow
from orchestrator.results.words import parameter_words


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnGroup:
    """Columns under one title."""

    title: str
    unit: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHead:
    text: str
    unit: str
    first: bool
    """The column is the first of its group, and set off from the group before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCell:
    text: str
    best: bool
    first: bool
    change: str
    """Difference to the model that the row's was trained from; empty: not known."""
    direction: str
    """`up`: the change is for the better, `down`: for the worse; empty: neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    model: TableRow
    begins_anew: bool
    """Here training starts anew from the initial model."""
    cells: tuple[TableCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    label: str
    groups: tuple[ColumnGroup, ...]
    heads: tuple[TableHead, ...]
    bodies: tuple[tuple[str, tuple[ModelRow, ...]], ...]
    """(title, rows) for every initial model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTables:
    overview: ModelTable
    notes: str
    sets: tuple[tuple[str, str, ModelTable], ...]
    """(set, its problems, every figure of it), of the sets that have more figures than the overview tells."""


def results_section(results: Results) -> Section | None:
    """The tables of all models; None where nothing was evaluated."""
    if not results.rows:
        return None
    by_set, means = results.by_set, results.over_sets
    only = next(iter(results.sets))
    over = ("mean over sets", "") if by_set else (only, _problems(results, only))
    shown = [_group(f"{SHARES.get(results.usual, '')} by set", "", by_set), _group(*over, means)]
    sets = tuple(
        (
            name,
            _problems(results, name),
            _table(results, [_group("", "", results.columns_of(name))], f"Figures of {name}"),
        )
        for name in results.sets
        if by_set or len(results.columns_of(name)) > len(means)
    )
    tables = ModelTables(overview=_table(results, shown, "All models"), notes=_notes(results), sets=sets)
    return Section(anchor="results", title="Results", template="results.html.j2", content=tables)


def _group(title: str, unit: str, columns: Sequence[Column]) -> ColumnGroup:
    return ColumnGroup(title=title, unit=unit, columns=tuple(columns))


def _problems(results: Results, name: str) -> str:
    problems = results.sets[name]
    return f"{problems:,} problems" if problems else ""


def _table(results: Results, groups: Sequence[ColumnGroup], label: str) -> ModelTable:
    groups = [group for group in groups if group.columns]
    columns = [column for group in groups for column in group.columns]
    firsts = {group.columns[0].key for group in groups[1:]}
    best = {column.key: column.best(results.rows) for column in columns}
    bodies = []
    for key, models in results.groups:
        rows = [
            ModelRow(
                model=row,
                begins_anew=bool(place) and row.begins_line,
                cells=tuple(
                    _cell(column, row, row.title in best[column.key], column.key in firsts) for column in columns
                ),
            )
            for place, row in enumerate(models)
        ]
        bodies.append((_body_title(results, key, models), tuple(rows)))
    heads = [TableHead(text=column.head, unit=column.figure.unit, first=column.key in firsts) for column in columns]
    return ModelTable(label=label, groups=tuple(groups), heads=tuple(heads), bodies=tuple(bodies))


def _cell(column: Column, row: TableRow, best: bool, first: bool) -> TableCell:
    cell, change = column.cell(row), column.change(row)
    text = column.figure.bare(cell.value) + ("*" if cell.value is not None and not cell.complete else "")
    words = "" if change is None else column.figure.change(change)
    direction = {"+": "up", "−": "down"}.get(words[:1], "") if column.figure.better else ""
    return TableCell(text=text, best=best, first=first, change=words, direction=direction)


def _body_title(results: Results, key: str, rows: Sequence[TableRow]) -> str:
    teachers = list(dict.fromkeys(name for row in rows for name in row.taught_by))
    size = next((row.parameters for row in rows if row.parameters), 0)
    words = [f"Students of {', '.join(teachers)}" if teachers else "", results.initial[key], parameter_words(size)]
    return " · ".join(filter(None, words))


def _notes(results: Results) -> str:
    columns = [*results.by_set, *results.over_sets]
    keys = {column.figure.key for column in results.over_sets}
    notes = []
    if any(column.best(results.rows) for column in columns):
        notes.append("Bold: the best of its column.")
    if any(row.before for row in results.rows):
        notes.append("Small: the change against the model that it was trained from.")
    if any(row.begins_line for _, rows in results.groups for row in rows[1:]):
        notes.append("A heavier rule: here training starts anew from the initial model.")
    said = {
        "greedy": "Greedy: one answer without chance.",
        "pass@1": "Pass@1: mean over k sampled answers.",
        "cons@k": "Cons@k: the majority of the k.",
        "win_rate": "Win rate: prompts whose answer is preferred to the one that it is compared with, ties for one half.",
        "unscored": "Unscored: completions that nothing could score; they are in no other figure.",
    }
    notes += [text for key, text in said.items() if key in keys]
    cells = [column.cell(row) for column in columns for row in results.rows]
    if any(cell.value is not None and not cell.complete for cell in cells):
        notes.append("* Mean over fewer sets than the others of its column, and not compared with them.")
    fewest = min(filter(None, results.sets.values()), default=0)
    if fewest:
        # 95 % interval of a share near one half, the widest case.
        points = 1.96 * 50 / math.sqrt(fewest)
        notes.append(f"With {fewest:,} problems, differences below {points:.0f} points may be chance.")
    return " ".join(notes)
