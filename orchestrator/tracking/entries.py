"""What trackers get: lines of metrics.jsonl as figures by stage, and tables of samples.

metrics.jsonl is the truth, and its line numbers say how far a tracker has got. A step that a resume repeats is sent once: the
first time that it is read, or, of several that are read together, the last.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orchestrator.run.record import Record, as_number
from rollout.errors import visible

LINES_AT_ONCE = 500
"""Lines that are read before they are sent: what a tracker is behind stays on the disk."""
CELL = 10_000
"""Characters of a text in a table; what is longer is cut."""
SAMPLE_COLUMNS = ("prompt", "answer", "completion", "right", "reward", "status", "finish_reason", "num_tokens", "flags")
"""Columns of trajectories and of the samples of rejection sampling that a table shows, where they are there."""
RESULTS = "Results"
"""What stands in the place of a stage before the figures of the table of all models. No stage is called so: they have no capitals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows for people to read. All texts are inert: nothing in them is a sign that is not shown."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | bool | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one line of metrics.jsonl is for a tracker."""

    line: int
    """Number of the line, from 0 on."""
    time: float
    """Unix seconds at which it was recorded."""
    stage: str
    step: int
    """Batches that the stage had done: the axis of its figures."""
    figures: Mapping[str, float]
    """Figure by name, as in metrics.jsonl, without the stage's."""
    table: Table | None = None


class MetricsTail:
    """The lines of a run's metrics.jsonl from the beginning on, while they are being written."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "metrics.jsonl"
        self._offset = 0
        self.line = 0
        """Number of the next line."""

    def read(self, at_most: int = LINES_AT_ONCE) -> list[tuple[int, Record]]:
        """(number, record) of the next lines; none when there are no more now. A line without its end is not there yet."""
        found: list[tuple[int, Record]] = []
        if not self._path.is_file():
            return found
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for _ in range(at_most):
                text = file.readline()
                if not text.endswith(b"\n"):
                    break
                found.append((self.line, _record(text)))
                self._offset += len(text)
                self.line += 1
        return found


class Selection:
    """Lines become entries, each step and each evaluation of a set once, whatever a resume repeats."""

    def __init__(self, run_dir: Path, *, samples: int, samples_every: int) -> None:
        self._run_dir, self._samples, self._every = run_dir, samples, samples_every
        self._steps: dict[str, int] = {}
        self._others: set[tuple[Any, ...]] = set()

    def pass_over(self, lines: Sequence[tuple[int, Record]]) -> None:
        """Take lines for sent."""
        for _, record in lines:
            self._note(record)

    def entries(self, lines: Sequence[tuple[int, Record]]) -> list[Entry]:
        """What a tracker gets of lines that follow those of before."""
        last = {_key(record): number for number, record in lines}
        fresh = [
            (number, record) for number, record in lines if last[_key(record)] == number and not self._is_sent(record)
        ]
        found = [entry for number, record in fresh if (entry := self._entry(number, record))]
        self.pass_over(lines)
        return found

    def _is_sent(self, record: Record) -> bool:
        if record.get("kind") == "step":
            return _step(record) <= self._steps.get(str(record.get("stage")), -1)
        return _key(record) in self._others

    def _note(self, record: Record) -> None:
        if record.get("kind") == "step":
            stage = str(record.get("stage"))
            self._steps[stage] = max(self._steps.get(stage, -1), _step(record))
        else:
            self._others.add(_key(record))

    def _entry(self, line: int, record: Record) -> Entry | None:
        kind, stage, step = record.get("kind"), str(record.get("stage", "")), _step(record)
        body = {name: value for name, value in record.items() if name not in ("kind", "stage", "time", "step", "label")}
        table = None
        if kind == "step":
            figures = _figures("", body)
            if self._samples and step % self._every == 0:
                file = self._run_dir / "trajectories" / stage / f"step-{step:06d}.parquet"
                table = parquet_table("samples", file, self._samples)
        elif kind == "eval":
            name = f"eval/{record.get('set')}"
            figures = _figures(f"{name}/", {key: value for key, value in body.items() if key != "samples"})
            table = rows_table(f"{name}/samples", _dicts(body.get("samples"))[: self._samples])
        elif kind == "reject":
            figures = _figures("reject/", body)
            files = sorted((self._run_dir / stage / "samples").glob("part-*.parquet"))
            table = parquet_table("samples", files[0], self._samples) if files and self._samples else None
        else:
            return None
        time = as_number(record.get("time")) or 0.0
        return Entry(line=line, time=time, stage=stage, step=step, figures=figures, table=table)


def results_entry(results: Mapping[str, Any], line: int, time: float) -> Entry | None:
    """The table of all models (`table.json`) as an entry behind the last line; None as long as no model has figures."""
    figures: dict[str, float] = {}
    rows: list[Sequence[str | float | bool | None]] = []
    for model in _dicts(results.get("models")):
        for name, values in model.get("sets", {}).items():
            own = _figures(f"{model['name']}/{name}/", values)
            figures |= own
            rows += [[_cell(model["name"]), _cell(name), key.rpartition("/")[2], value] for key, value in own.items()]
    if not figures:
        return None
    table = Table(name="table", columns=("model", "set", "figure", "value"), rows=rows)
    return Entry(line=line, time=time, stage=RESULTS, step=0, figures=figures, table=table)


def parquet_table(name: str, file: Path, rows: int) -> Table | None:
    """The first rows of a file of samples; None where the file is not there (any more)."""
    if not file.is_file():
        return None
    content = pq.ParquetFile(file)
    columns = [column for column in SAMPLE_COLUMNS if column in content.schema_arrow.names]
    batches = content.iter_batches(batch_size=rows, columns=columns)
    return rows_table(name, [row for batch in islice(batches, 1) for row in batch.to_pylist()])


def rows_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """A table of rows that may have different columns; None without rows."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not columns:
        return None
    return Table(name=name, columns=columns, rows=[[_cell(row.get(column)) for column in columns] for row in rows])


def _cell(value: Any) -> str | float | bool | None:
    """A value as a table has it: a text that a model or a file gave is inert."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return visible(text if len(text) <= CELL else f"{text[:CELL]}…")


def _figures(prefix: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a record, those in its tables by names with a `/`."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _figures(f"{prefix}{name}/", value)
        elif (number := as_number(value)) is not None:
            found[f"{prefix}{name}"] = number
    return found


def _key(record: Record) -> tuple[Any, ...]:
    """What a later line with the same key says anew."""
    return tuple(str(record.get(name)) for name in ("kind", "stage", "set", "step", "label"))


def _step(record: Record) -> int:
    return int(as_number(record.get("step")) or 0)


def _record(text: bytes) -> Record:
    """The record of a line; an empty one where it is none: the commands that read the run say so."""
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def by_stage(entry: Entry) -> Iterator[tuple[str, float]]:
    """(name with the stage's before it, value) of the figures of an entry."""
    for name, value in entry.figures.items():
        yield f"{entry.stage}/{name}", value
