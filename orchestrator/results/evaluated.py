"""What `rayzero compare` is given: the newest evaluation of a run, of one of its stages, at a step, or of a file of `rayzero eval`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.results.columns import Record
from orchestrator.run.folder import find_run
from orchestrator.run.record import RunRecord, StageRecord, read_run
from rollout.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One model and what its evaluation found."""

    named: str
    """As the user named it."""
    stage: str
    """Stage that evaluated the model; empty: a file of `rayzero eval`."""
    step: int | None
    """Step of the stage that was asked for; None: the newest evaluation."""
    recipe: Mapping[str, Any]
    """Empty: of a file."""
    records: Mapping[str, Record]
    """Set → evaluation record of the model on it."""
    history: tuple[Record, ...] = ()
    """All evaluations of the stage up to this one, in order."""

    @property
    def seed(self) -> object:
        return self.recipe.get("seed")


def read_evaluated(named: str) -> Evaluated:
    """The evaluation that RUN, RUN/STAGE, RUN/STAGE@STEP or a JSON file of `rayzero eval` stands for.

    Raises:
        InputError: there is none.
    """
    if Path(named).is_file():
        return _of_file(named)
    path, at, step = named.rpartition("@")
    if not at or find_run(Path(named)):
        path, step = named, ""
    run_dir = find_run(Path(path)) or find_run(Path(path).parent)
    if run_dir is None:
        raise InputError(
            f"{named}: no run, and no file of `rayzero eval`; give RUN, RUN/STAGE, RUN/STAGE@STEP or a file"
        )
    run = read_run(run_dir)
    stage = _stage(run, named, Path(path).resolve().relative_to(run_dir.resolve()).parts)
    if not step:
        sets = dict.fromkeys(str(record.get("set", "")) for record in stage.evals)
        records = {name: record for name in sets if (record := stage.last_eval(name))}
        # A stage that has only begun: the model that it starts from.
        records = records or {str(record.get("set", "")): record for record in stage.evals}
        return _evaluated(run, stage, named, None, records)
    steps = sorted({int(record["step"]) for record in stage.evals})
    if not step.isdecimal() or int(step) not in steps:
        listed = ", ".join(map(str, steps))
        raise InputError(f"{named}: no evaluation at step {step!r}; stage {stage.name} was evaluated at {listed}")
    records = {str(record.get("set", "")): record for record in stage.evals if record["step"] == int(step)}
    return _evaluated(run, stage, named, int(step), records)


def _evaluated(
    run: RunRecord, stage: StageRecord, named: str, step: int | None, records: Mapping[str, Record]
) -> Evaluated:
    last = max(int(record["step"]) for record in records.values())
    history = tuple(record for record in stage.evals if record["step"] <= last)
    return Evaluated(named=named, stage=stage.name, step=step, recipe=run.recipe, records=records, history=history)


def _stage(run: RunRecord, named: str, inside: tuple[str, ...]) -> StageRecord:
    """The stage that is named, or the newest that evaluated something."""
    stages = [stage for stage in run.stages if stage.evals]
    if inside:
        found = [stage for stage in run.stages if stage.name == inside[0]]
        if not found:
            raise InputError(f"{named}: no stage {inside[0]!r}; the run has: {', '.join(s.name for s in run.stages)}")
        stages = [stage for stage in found if stage.evals]
    if not stages:
        raise InputError(f"{named}: nothing was evaluated yet; `rayzero eval` with --out FILE makes a file to compare")
    return stages[-1]


def _of_file(named: str) -> Evaluated:
    try:
        content = json.loads(Path(named).read_text(encoding="utf-8"))
        results = content["results"]
        records = {str(record["set"]): record for record in results}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{named}: no file of `rayzero eval`; give one that its --out wrote, or the folder of a run"
        ) from None
    return Evaluated(named=named, stage="", step=None, recipe={}, records=records)
