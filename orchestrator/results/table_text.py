"""The table of a run as text: narrow for a terminal, as Markdown to quote, and as Markdown of several runs (seeds)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.results.columns import SHARES
from orchestrator.results.table import Column, Results, TableRow
from orchestrator.results.words import UNKNOWN
from rollout.errors import InputError

NOTHING = "nothing was evaluated yet"
PARTLY = "* over fewer sets than the others of its column"


@dataclass(frozen=True, slots=True)
class Part:
    """A table that fits the width; the first column says which model."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    left_out: tuple[str, ...] = ()
    """Heads of columns that there was no room for."""


def parts(results: Results, width: int) -> Iterator[Part]:
    """The table, in one part where it fits; else accuracies by set, in as many parts as it takes, and as many means as fit."""
    sets, means = results.by_set, results.over_sets
    if not means:
        return
    names = [_name(row, results) for row in results.rows]
    room = width - max(map(len, ["model", *names])) - FRAME
    by_set = [(_head(column), [_text(column, row) for row in results.rows]) for column in sets]
    over_sets = [(_head(column), [_text(column, row) for row in results.rows]) for column in means]
    if any(means[0].change(row) is not None for row in results.rows):
        over_sets.insert(1, ("change", [_change(means[0], row) for row in results.rows]))
    title = _title_over_sets(results)
    together = [*by_set, *((f"mean {head}" if sets and head != "change" else head, cells) for head, cells in over_sets)]
    first, *others = _fitting(together, room)
    if not others:
        yield _part(f"{_title_by_set(results)}, and means" if sets else title, names, first)
        return
    for group in _fitting(by_set, room):
        yield _part(_title_by_set(results), names, group)
    first, *others = _fitting(over_sets, room)
    yield _part(title, names, first, [head for group in others for head, _ in group])


def _part(title: str, names: list[str], group: list[tuple[str, list[str]]], left_out: Sequence[str] = ()) -> Part:
    rows = [[name, *(cells[i] for _, cells in group)] for i, name in enumerate(names)]
    return Part(title, ["model", *(head for head, _ in group)], rows, tuple(left_out))


FRAME = 4
"""Signs that the frame takes beside the first column."""
CELL_FRAME = 3
"""Signs that the frame takes beside every other column."""


def _fitting(filled: Sequence[tuple[str, list[str]]], room: int) -> Iterator[list[tuple[str, list[str]]]]:
    """The columns in groups of at most that width; one that is wider stands alone."""
    group: list[tuple[str, list[str]]] = []
    taken = 0
    for head, cells in filled:
        size = max(map(len, [head, *cells])) + CELL_FRAME
        if group and taken + size > room:
            yield group
            group, taken = [], 0
        group.append((head, cells))
        taken += size
    if group:
        yield group


def markdown(results: Results) -> str:
    """One table: the model, where it comes from, and every column; the best of a column is bold."""
    if not results.rows:
        return f"{NOTHING}\n"
    columns = [*results.by_set, *results.over_sets]
    best = {column.key: column.best(results.rows) for column in columns}
    lines = []
    for row in results.rows:
        cells = []
        for column in columns:
            text = _text(column, row)
            change = column.change(row) if column.figure.key in SHARES else None
            text = f"**{text}**" if row.title in best[column.key] else text
            cells.append(f"{text} ({column.figure.change(change)})" if change is not None else text)
        lines.append([_name(row, results), f"{row.kind} {row.origin}".strip(), *cells])
    heads = ["model", "how it was made", *_markdown_heads(results)]
    return _markdown(
        heads, lines, ["In brackets: the change against the model that it was trained from.", *notes(results)]
    )


def markdown_of_runs(tables: Sequence[Results]) -> str:
    """Several runs of one recipe, such as with three seeds, as one table: the mean, and in brackets lowest and highest.

    Raises:
        InputError: they are not runs of one recipe, or one of them has models that another lacks.
    """
    first = tables[0]
    for other in tables[1:]:
        if other.name != first.name:
            raise InputError(f"runs of two recipes, {first.name!r} and {other.name!r}; give runs of one")
        if [row.title for row in other.rows] != [row.title for row in first.rows]:
            missing = {row.title for row in first.rows} ^ {row.title for row in other.rows}
            raise InputError(
                f"seed {other.seed} has other models than seed {first.seed}: {', '.join(sorted(missing))}; "
                "finish the runs first"
            )
    # Columns that any of the runs has: one that all completions of a seed stay within has no `truncated` of its own.
    together = replace(
        first,
        rows=[row for table in tables for row in table.rows],
        sets={name: count for table in tables for name, count in table.sets.items()},
        leading={name: key for table in reversed(tables) for name, key in table.leading.items()},
    )
    lines = []
    for index, row in enumerate(first.rows):
        cells = [
            _spread(column, [column.cell(table.rows[index]).value for table in tables])
            for column in (*together.by_set, *together.over_sets)
        ]
        lines.append([_name(row, first), f"{row.kind} {row.origin}".strip(), *cells])
    seeds = ", ".join(str(table.seed) for table in tables)
    note = f"Mean of {len(tables)} runs (seeds {seeds}); in brackets the lowest and the highest."
    return _markdown(["model", "how it was made", *_markdown_heads(together)], lines, [note, *marks(first)])


def _spread(column: Column, values: Sequence[float | None]) -> str:
    """Mean, lowest and highest; a dash where a run has no value, for the mean would not be that of all runs."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return UNKNOWN
    show = column.figure.bare
    low, high = show(min(known)), show(max(known))
    return show(sum(known) / len(known)) + (f" ({low}–{high})" if low != high else "")


MARKS = ("", "†", "‡", "§", "¶", "‖")
"""Signs beside the names of models, one for each initial model: none for the first, others such as for students."""


def marks(results: Results) -> list[str]:
    """What the signs beside the names of models mean."""
    return [
        f"{MARKS[min(i, len(MARKS) - 1)]} trained from {words}" for i, words in enumerate(results.initial.values()) if i
    ]


def notes(results: Results) -> list[str]:
    """What the signs beside figures and beside the names of models mean."""
    cells = [column.cell(row) for column in (*results.by_set, *results.over_sets) for row in results.rows]
    partly = any(cell.value is not None and not cell.complete for cell in cells)
    return [*([PARTLY] if partly else []), *marks(results)]


def _name(row: TableRow, results: Results) -> str:
    """The model, marked where it goes back to another initial model than the first."""
    place = list(results.initial).index(row.initial)
    return f"{row.title} {MARKS[min(place, len(MARKS) - 1)]}".strip()


def _text(column: Column, row: TableRow) -> str:
    cell = column.cell(row)
    return column.figure.bare(cell.value) + ("" if cell.complete or cell.value is None else "*")


def _change(column: Column, row: TableRow) -> str:
    change = column.change(row)
    return "" if change is None else column.figure.change(change)


def _head(column: Column) -> str:
    return f"{column.head} %" if column.figure.unit == "%" else column.head


def _title_by_set(results: Results) -> str:
    return f"{SHARES.get(results.usual, '')} by set"


def _title_over_sets(results: Results) -> str:
    return "mean over sets" if len(results.sets) > 1 else next(iter(results.sets), "")


def _markdown_heads(results: Results) -> list[str]:
    by_set = [_head(column) for column in results.by_set]
    means = [_head(column) for column in results.over_sets]
    return by_set + ([f"mean {head}" for head in means] if by_set else means)


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], below: Sequence[str]) -> str:
    """A Markdown table, and lines below it."""
    rule = ["---", "---", *("---:" for _ in heads[2:])]
    lines = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in (heads, rule, *rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    notes_below = "  \n".join(line.replace("*", "\\*") for line in below)
    return f"{table}\n\n{notes_below}\n"
