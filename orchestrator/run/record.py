"""What a run has recorded so far: recipe.toml and metrics.jsonl, read into stages. Plain values, nothing drawn."""

import json
import math
import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config.load import STORED
from rollout.errors import InputError

Record = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class StageRecord:
    """One stage of the recipe and what it has recorded so far."""

    name: str
    kind: str
    planned_steps: int
    """Steps of the stage; 0: the recipe does not say, and the stage (of epochs) has not counted yet."""
    model_from: str = ""
    """Stage whose model this one starts from, as the recipe has it."""
    parameters: int = 0
    """Parameters of the model; 0: not recorded."""
    times: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds by phase, as orchestrator/clock.py measures them, of all starts; steps that a resume repeated are in it twice."""
    yields: Record = field(default_factory=dict)
    """What became of the samples of rejection sampling; empty: not known (yet)."""
    steps: list[Record] = field(default_factory=list)
    evals: list[Record] = field(default_factory=list)
    """Evaluations on problems to answer."""
    pair_evals: list[Record] = field(default_factory=list)
    """Evaluations on preference pairs."""
    starts: list[float] = field(default_factory=list)
    """Starts of the stage in Unix seconds; more than one after a resume."""
    ended: bool = False
    seconds: float = 0.0
    """Time in the stage, without the gaps between a stop and its resume."""

    @property
    def last_step(self) -> int:
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def begun(self) -> bool:
        return bool(self.starts or self.steps or self.evals)

    def last_eval(self, name: str) -> Record | None:
        """The newest evaluation of a set by what the stage made of its model."""
        later = [record for record in self.evals if record.get("set") == name and record.get("label") != "before"]
        done = [record for record in later if record.get("label") == "after"]
        return next(reversed(done or later), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run and what it has recorded so far."""

    directory: Path
    recipe: Record
    recipe_text: str
    stages: list[StageRecord]
    first_time: float
    """Unix seconds of the first record; 0 when there is none."""
    last_time: float

    @property
    def finished(self) -> bool:
        return all(stage.ended for stage in self.stages)


def read_run(run_dir: Path) -> RunRecord:
    """Everything that the run in a directory has recorded so far; it may still be going on.

    Raises:
        InputError: the directory holds no run, or its recipe or metrics cannot be read.
    """
    path = run_dir / STORED
    if not path.is_file():
        raise InputError(f"{run_dir}: holds no run (no {STORED} in it); give the directory that a run writes to")
    try:
        text = path.read_text(encoding="utf-8")
        recipe = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}; restore it from the recipe of the run") from None
    records = read_metrics(run_dir)
    times = [time for record in records if (time := as_number(record.get("time"))) is not None]
    return RunRecord(
        directory=run_dir,
        recipe=recipe,
        recipe_text=text,
        stages=_stages(recipe, records),
        first_time=min(times, default=0.0),
        last_time=max(times, default=0.0),
    )


def read_metrics(run_dir: Path) -> list[Record]:
    """The records of `metrics.jsonl` in order; none where the file does not exist yet.

    The last line may be torn (the run is writing it, or died while it did) and is then left out.

    Raises:
        InputError: any other line is not a JSON object.
    """
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), start=1) if line.strip()]
    records: list[Record] = []
    for number, line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif number != lines[-1][0]:
            raise InputError(f"{path}, line {number}: not a JSON object: {line[:60]!r}; remove the line to go on")
    return records


def step_records(run_dir: Path, stage: str) -> dict[int, Record]:
    """Step → its newest record, of one stage."""
    return {
        record["step"]: record
        for record in read_metrics(run_dir)
        if record.get("stage") == stage and record.get("kind") == "step"
    }


def has_evaluated(run_dir: Path, stage: str, step: int) -> bool:
    """Whether the figures of a stage at `step` are recorded."""
    return any(
        record.get("stage") == stage and record.get("kind") == "eval" and record.get("step") == step
        for record in read_metrics(run_dir)
    )


def _stages(recipe: Record, records: list[Record]) -> list[StageRecord]:
    """Stages of the recipe in order, then any that only the metrics know."""
    stages: dict[str, StageRecord] = {}
    for entry in recipe.get("stages", []):
        name = str(entry.get("name", ""))
        planned = int(as_number(entry.get("loop", {}).get("steps")) or 0)
        kind, origin = str(entry.get("kind", "")), str(entry.get("model_from", ""))
        stages[name] = StageRecord(name=name, kind=kind, planned_steps=planned, model_from=origin)
    before: float | None = None
    for record in records:
        name = str(record.get("stage", ""))
        stage = stages.setdefault(name, StageRecord(name=name, kind="grpo", planned_steps=0))
        _add(stage, record)
        time = as_number(record.get("time"))
        if time is None:
            continue
        # The gap before a start is not time spent in the stage: the run was down, or another stage ran.
        if before is not None and record.get("event") != "start":
            stage.seconds += max(0.0, time - before)
        before = time
    return list(stages.values())


def _add(stage: StageRecord, record: Record) -> None:
    kind = record.get("kind")
    for key, value in record.items():
        if key.startswith("time/") and (seconds := as_number(value)) is not None and math.isfinite(seconds):
            stage.times[key.removeprefix("time/").removesuffix("_s")] += seconds
    if kind == "stage":
        time = as_number(record.get("time"))
        if record.get("event") == "start":
            stage.starts.append(time or 0.0)
        if record.get("event") == "plan":
            stage.planned_steps = int(as_number(record.get("steps")) or 0)
        if record.get("event") == "model":
            stage.parameters = int(as_number(record.get("parameters")) or 0)
        stage.ended = record.get("event") == "end"
    elif kind == "reject":
        stage.yields = record
    elif kind in ("step", "eval") and as_number(record.get("step")) is not None:
        step = record["step"]
        if kind == "eval":
            same = (record.get("set"), step, record.get("label"))
            evals = stage.pair_evals if "pairs" in record else stage.evals
            evals[:] = [e for e in evals if (e.get("set"), e["step"], e.get("label")) != same] + [record]
            return
        if stage.steps and step <= stage.steps[-1]["step"]:
            # A resume went back to a checkpoint: what came after it happened in a past that is no longer this run's.
            stage.steps = [earlier for earlier in stage.steps if earlier["step"] < step]
            for evals in (stage.evals, stage.pair_evals):
                evals[:] = [e for e in evals if e["step"] < step or e.get("label") == "before"]
        stage.steps.append(record)


def as_number(value: object) -> float | None:
    """The value as a float, NaN included; None where it is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
