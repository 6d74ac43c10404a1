"""Samples of the training: a few groups of a few steps out of the trajectories, and the controls to browse them.

The texts go to the script of the page as JSON, which puts them in as text and never as markup.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.report.escape import as_json, cut
from orchestrator.report.render import Section
from orchestrator.results.words import as_finite
from orchestrator.run.record import Record, RunRecord

SAMPLE_BYTES = 350_000
"""Budget of all browsable samples together."""

SAMPLE_SHAPES = (
    (12, 4, 8, 6000),
    (12, 4, 8, 3000),
    (12, 4, 8, 1500),
    (10, 3, 6, 1200),
    (8, 2, 4, 1000),
    (5, 2, 4, 900),
    (4, 2, 3, 500),
    (2, 1, 2, 200),
)
"""Steps of a stage, groups of a step, completions of a group, characters of a text: the first that fits is taken. Few
texts that can be followed are worth more than many that are cut short."""

TRAJECTORY_COLUMNS = (
    "group_id", "prompt", "answer", "completion", "source", "finish_reason",
    "reward", "status", "reward_parts", "advantage", "staleness", "token_ids",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What the page shows of the trajectories."""

    stages: list[Record]
    """The browsable steps of every stage with trajectories, as the script of the page gets them."""
    unreadable: list[str]
    """A line about every file that was to be shown and could not be read."""


def read_samples(run: RunRecord) -> Samples:
    """The samples of all stages, within the budget of bytes. Those of a damaged file are left out."""
    unreadable: list[str] = []
    read = [(stage.name, _sampled_steps(run.directory, stage.name, unreadable)) for stage in run.stages]
    stages = [(name, steps) for name, steps in read if steps]
    budget = SAMPLE_BYTES // max(1, len(stages))
    shown = [{"stage": name, "steps": kept} for name, steps in stages if (kept := _fit(steps, budget))]
    return Samples(stages=shown, unreadable=unreadable)


def _sampled_steps(run_dir: Path, stage: str, unreadable: list[str]) -> list[Record]:
    """Samples of a stage in the largest shape: its steps evenly spaced, the first and the last among them.

    Files are written aside and renamed when whole, so one that cannot be read is damage: it goes to `unreadable`.
    """
    files = sorted((run_dir / "trajectories" / stage).glob("step-*.parquet"), key=_step_of)
    steps = []
    for path in _space_out(files, SAMPLE_SHAPES[0][0]):
        try:
            steps.append({"step": _step_of(path), "groups": _groups(_read_table(path))})
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            unreadable.append(f"{path.relative_to(run_dir)} could not be read: {cut(reason, 200)}")
    return steps


def _read_table(path: Path) -> pa.Table:
    # Not `read_table`, which would make columns out of `key=value` parts of the path.
    with pq.ParquetFile(path) as file:
        return file.read(columns=[name for name in TRAJECTORY_COLUMNS if name in file.schema_arrow.names])


def _step_of(path: Path) -> int:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _space_out(items: list[Any], count: int) -> list[Any]:
    """At most `count` items, evenly spaced, both ends among them."""
    if len(items) <= count:
        return items
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def _groups(table: pa.Table) -> list[Record]:
    """The first groups of a step, just as they come: any choice could mislead."""
    lengths = None
    if "token_ids" in table.column_names:
        lengths = pc.list_value_length(table["token_ids"]).to_pylist()
        table = table.drop_columns(["token_ids"])
    ids = table["group_id"].to_pylist() if "group_id" in table.column_names else [""] * len(table)
    rows: dict[str, list[int]] = {}
    for index, group_id in enumerate(ids):
        rows.setdefault(str(group_id), []).append(index)
    groups = []
    for group_id, indices in list(rows.items())[: SAMPLE_SHAPES[0][1]]:
        shown = indices[: SAMPLE_SHAPES[0][2]]
        records = table.take(shown).to_pylist()
        completions = [_completion(r, lengths[i] if lengths else None) for r, i in zip(records, shown, strict=True)]
        groups.append(
            {
                "id": group_id,
                "source": str(records[0].get("source") or ""),
                "prompt": str(records[0].get("prompt") or ""),
                "answer": str(records[0].get("answer") or ""),
                "size": len(indices),
                "completions": completions,
            }
        )
    return groups


def _completion(row: Record, tokens: int | None) -> Record:
    """What the page shows of one completion. `right` is None where no `accuracy` was scored."""
    parts = row.get("reward_parts") or {}
    pairs = [(str(name), _round(value)) for name, value in (parts.items() if isinstance(parts, dict) else parts)]
    accuracy = next((value for name, value in pairs if name == "accuracy"), None)
    return {
        "text": str(row.get("completion") or ""),
        "reward": _round(row.get("reward")),
        "parts": [pair for pair in pairs if pair[1] is not None],
        "advantage": _round(row.get("advantage")),
        "right": None if accuracy is None or row.get("status") == "error" else accuracy >= 1,
        "status": str(row.get("status") or "ok"),
        "finish": str(row.get("finish_reason") or ""),
        "staleness": _round(row.get("staleness")),
        "tokens": tokens,
    }


def _round(value: object) -> float | None:
    """The number in four significant digits; None for what JSON cannot hold."""
    number = as_finite(value)
    return None if number is None else float(f"{number:.4g}")


def _fit(steps: list[Record], budget: int) -> list[Record]:
    """As much of the samples as fits into `budget` bytes."""
    for count, groups, completions, characters in SAMPLE_SHAPES:
        kept = [_reduce(step, groups, completions, characters) for step in _space_out(steps, count)]
        if len(as_json(kept).encode("utf-8", "replace")) <= budget:
            return kept
    return []


def _reduce(step: Record, groups: int, completions: int, characters: int) -> Record:
    kept = [
        {
            **group,
            "prompt": cut(group["prompt"], characters),
            "answer": cut(group["answer"], characters),
            "completions": [
                {**one, "text": cut(one["text"], characters)} for one in group["completions"][:completions]
            ],
        }
        for group in step["groups"][:groups]
    ]
    return {"step": step["step"], "groups": kept}


def samples_section(samples: Samples) -> Section | None:
    """The controls for training samples, which the script fills in, and what could not be read; None: there is neither."""
    if not samples.stages and not samples.unreadable:
        return None
    return Section(anchor="samples", title="Training samples", template="samples.html.j2", content=samples)
