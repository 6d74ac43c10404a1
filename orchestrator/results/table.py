"""The result of a run as one table: a row for every model that was evaluated, a column for every figure. Plain values.

The report, the terminal, `table.md` and `table.json` are this table in four forms (report/table.py, table_text.py).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.config.stage_kinds import kind_of
from orchestrator.results.columns import SHARES, Figure, Record, columns, further_columns
from orchestrator.results.lineage import Lineage, lineage_of
from orchestrator.results.words import as_finite
from orchestrator.run.record import RunRecord, StageRecord

Model = tuple[str, str]
"""A model: ("stage", name) for what a stage left, ("initial", key of the lineage) for what nothing has trained."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableRow:
    """One model and what its evaluations found."""

    title: str
    stage: str
    """Stage that evaluated the model."""
    kind: str
    """Kind of the stage in words; empty: the model is what the stage begins with."""
    origin: str
    """Where the model comes from and what it learned from, in words."""
    model: Model
    initial: str
    """Initial model that the model goes back to, a key of `Results.initial`."""
    taught_by: tuple[str, ...]
    """Stages of another initial model that wrote rows which the model learned from: it is their student."""
    begins_line: bool
    """The model is an initial model, or was trained right from one."""
    parameters: int
    """How many the model has; 0: not recorded."""
    records: Mapping[str, Record]
    """Set → evaluation record of the model on it."""
    before: "TableRow | None"
    """The row of the model that this one was trained from; None: that was not evaluated, or this row trains nothing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure of a row."""

    value: float | None
    complete: bool = True
    """The value covers all sets that the column is a mean of; values that do not are not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure, of one set or as a mean over the sets that have it."""

    key: str
    head: str
    figure: Figure
    cell: Callable[[TableRow], Cell]

    def change(self, row: TableRow) -> float | None:
        """The figure less that of the model that the row's was trained from; None where one of the two is not known."""
        if row.before is None:
            return None
        now, then = self.cell(row), self.cell(row.before)
        if now.value is None or then.value is None or not (now.complete and then.complete):
            return None
        return now.value - then.value

    def best(self, rows: Sequence[TableRow]) -> set[str]:
        """Titles of the rows with the best value, as it is shown; none where nothing is better or all are the same."""
        cells = {row.title: self.cell(row) for row in rows}
        shown = {title: self.figure.show(c.value) for title, c in cells.items() if c.value is not None and c.complete}
        if not self.figure.better or len(set(shown.values())) < 2:
            return set()
        top = self.figure.show(max(cells[title].value or 0.0 for title in shown))
        return {title for title, text in shown.items() if text == top}


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The table of a run."""

    name: str
    seed: object
    finished: bool
    sets: dict[str, int]
    """Evaluation sets in the order in which they first occur, and their problems (0: not recorded)."""
    initial: dict[str, str]
    """Initial models: key → what it is, in words."""
    rows: list[TableRow]
    """Models in the order of the stages that evaluated them."""
    leading: dict[str, str] = field(default_factory=dict)
    """Set → the figure that says how good a model is, a key of SHARES; sets that have none are left out."""

    @property
    def groups(self) -> list[tuple[str, list[TableRow]]]:
        """(initial model, rows): the models of one initial model together, such as a teacher's and a student's."""
        found: dict[str, list[TableRow]] = {}
        for row in self.rows:
            found.setdefault(row.initial, []).append(row)
        return list(found.items())

    @property
    def usual(self) -> str:
        """The leading figure of most sets; empty where no set has one."""
        keys = list(self.leading.values())
        return max(keys, key=keys.count, default="")

    def columns_of(self, name: str) -> list[Column]:
        """Every figure of one set that some model has."""
        records = self._records(name)
        figures = (*columns(records), *further_columns(records))
        return [_set_column(f, name, f.head) for f in figures if any(f.value(record) is not None for record in records)]

    @property
    def by_set(self) -> list[Column]:
        """The leading figure of every set; empty where there is one set, whose figures are all in `over_sets`."""
        if len(self.sets) < 2:
            return []
        return [
            _set_column(figure, name, name if key == self.usual else f"{name} {figure.head}")
            for name, key in self.leading.items()
            for figure in columns(self._records(name))
            if figure.key == key
        ]

    @property
    def over_sets(self) -> list[Column]:
        """The mean of every figure over the sets that have it."""
        everything = [record for name in self.sets for record in self._records(name)]
        shown = []
        for figure in columns(everything):
            names = [name for name in self.sets if any(figure.value(r) is not None for r in self._records(name))]
            if names:
                shown.append(_mean_column(figure, names))
        return shown

    def _records(self, name: str) -> list[Record]:
        return [row.records[name] for row in self.rows if name in row.records]


def results_of(run: RunRecord) -> Results:
    """The table of a run as far as it has come; without rows where nothing was evaluated."""
    lineage = lineage_of(run)
    records = [record for stage in run.stages for record in stage.evals]
    sets: dict[str, int] = {}
    for record in records:
        name = str(record.get("set", ""))
        sets[name] = max(sets.get(name, 0), int(as_finite(record.get("problems")) or 0))
    rows: list[TableRow] = []
    for stage in run.stages:
        rows += _rows(stage, lineage, list(sets), rows)
    used = {row.initial for row in rows}
    results = Results(
        name=str(run.recipe.get("name", run.directory.name)),
        seed=run.recipe.get("seed"),
        finished=run.finished,
        sets=sets,
        initial={key: words for key, words in lineage.initial.items() if key in used},
        rows=rows,
    )
    for name in sets:
        counts = {key: sum(as_finite(row.records.get(name, {}).get(key)) is not None for row in rows) for key in SHARES}
        if any(counts.values()):
            # Of the figures that most models have, the most telling.
            results.leading[name] = max(counts, key=lambda key: counts[key])
    return results


def _rows(stage: StageRecord, lineage: Lineage, sets: Sequence[str], earlier: Sequence[TableRow]) -> Iterator[TableRow]:
    """The model that a stage begins with, where nothing has evaluated that yet, and the one that it has made of it so far."""
    origin = lineage.origins[stage.name]
    start: Model = ("stage", origin.parent) if origin.parent else ("initial", origin.initial)
    known: dict[Model, TableRow] = {}
    for row in earlier:
        first = known.get(row.model, row)
        # What was evaluated again, by a stage of kind `eval`, is one model; what its own stage found comes first.
        known[row.model] = replace(first, records={**row.records, **first.records})
    before = {str(r.get("set", "")): r for r in stage.evals if r.get("label") == "before"}
    if before and start not in known:
        known[start] = TableRow(
            title=f"before {stage.name}",
            stage=stage.name,
            kind="",
            origin=f"the model of {origin.parent}" if origin.parent else "the initial model",
            model=start,
            initial=origin.initial,
            taught_by=(),
            begins_line=not origin.parent,
            parameters=stage.parameters,
            records=before,
            before=None,
        )
        yield known[start]
    records = {name: record for name in sets if (record := stage.last_eval(name))}
    if not records:
        return
    only_evaluates = kind_of(stage).only_evaluates
    steps = {record["step"] for record in records.values() if record.get("label") != "after"}
    yield TableRow(
        title=stage.name + (f", step {max(steps):,}" if steps else ""),
        stage=stage.name,
        kind=kind_of(stage).words,
        origin=lineage.in_words(stage.name),
        model=start if only_evaluates else ("stage", stage.name),
        initial=origin.initial,
        taught_by=lineage.teachers_of(stage.name),
        begins_line=not origin.parent,
        parameters=stage.parameters,
        records=records,
        before=None if only_evaluates else known.get(start),
    )


def _set_column(figure: Figure, name: str, head: str) -> Column:
    def cell(row: TableRow) -> Cell:
        return Cell(figure.value(row.records.get(name, {})))

    return Column(key=f"{name}/{figure.key}", head=head, figure=figure, cell=cell)


def _mean_column(figure: Figure, names: Sequence[str]) -> Column:
    """A figure over several sets: the macro average, in which every set counts the same, however many problems it has; a
    sum for a figure that adds up.
    """

    def cell(row: TableRow) -> Cell:
        values = [v for name in names if (v := figure.value(row.records.get(name, {}))) is not None]
        share = 1 if figure.adds_up else len(values)
        return Cell(math.fsum(values) / share if values else None, complete=len(values) == len(names))

    return Column(key=f"mean/{figure.key}", head=figure.head, figure=figure, cell=cell)


def as_json(results: Results) -> dict[str, Any]:
    """`table.json`: shares between 0 and 1, lengths in tokens; null where only other models have a figure."""
    tables = {name: results.columns_of(name) for name in results.sets}
    over_sets = results.over_sets
    return {
        "run": results.name,
        "seed": results.seed,
        "finished": results.finished,
        "sets": [
            {"name": name, "problems": count, "leading": results.leading.get(name)}
            for name, count in results.sets.items()
        ],
        "models": [
            {
                "name": row.title,
                "stage": row.stage,
                "kind": row.kind,
                "origin": row.origin,
                "initial_model": results.initial[row.initial],
                "parameters": row.parameters or None,
                "compared_with": row.before.title if row.before else None,
                "mean": {
                    column.figure.key: {
                        "value": column.cell(row).value,
                        "complete": column.cell(row).complete,
                        "change": column.change(row),
                    }
                    for column in over_sets
                },
                "sets": {
                    name: {column.figure.key: column.cell(row).value for column in tables[name]}
                    for name in results.sets
                    if name in row.records
                },
            }
            for row in results.rows
        ],
    }
