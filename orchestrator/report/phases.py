"""Where the time of a run went, by stage and phase."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.report.bars import Bar, Segment, bar
from orchestrator.report.render import Section
from orchestrator.results.words import decimal, duration, percent
from orchestrator.run.record import RunRecord, StageRecord

PHASES = {
    "start": "start-up",
    "generate": "generate",
    "score": "score",
    "train": "train",
    "publish": "publish",
    "save": "save",
    "evaluate": "evaluate",
    "idle": "idle",
    "other": "other",
}
"""Phase → its name, in the order of the bars; each is a class of the style sheet."""
WHOLE = "whole run"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBar:
    """A bar whose length is a time on a common scale."""

    title: str
    whole: bool
    """It stands for the whole run, on a scale of its own."""
    bar: Bar
    took: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTimes:
    """The times of a run, as they are shown."""

    keys: dict[str, str]
    """Phase → its name, of those that are long enough to be seen."""
    bars: tuple[PhaseBar, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """(stage, seconds of every phase in `keys` and of all phases together)."""
    older: bool
    """The run was recorded before start-up and evaluations were timed."""


def phases_of(stage: StageRecord) -> dict[str, float]:
    """Seconds of a stage by phase, so cut that they add up to the stage.

    Generation and scoring overlap each other and, off-policy, training: what goes on beside training counts as training,
    and what is scored beside generation as generation.
    """
    times = stage.times
    kept = {name: times.get(name, 0.0) for name in ("start", "train", "publish", "save", "evaluate", "idle")}
    alone = max(0.0, times.get("step", 0.0) - kept["train"] - kept["publish"] - kept["save"] - kept["idle"])
    score = min(alone, max(0.0, alone + times.get("overlap", 0.0) - times.get("generate", 0.0)))
    phases = {**kept, "generate": alone - score, "score": score}
    phases["other"] = max(0.0, stage.seconds - sum(phases.values()))
    return {name: phases[name] for name in PHASES}


def time_section(run: RunRecord) -> Section | None:
    """The times as bars and as a table; None where no stage has recorded any."""
    stages = {stage.name: phases_of(stage) for stage in run.stages if stage.begun}
    if not any(stage.times for stage in run.stages if stage.begun):
        return None
    total = {phase: sum(phases[phase] for phases in stages.values()) for phase in PHASES}
    # A sliver that nobody could see is no key and no column.
    keys = {phase: name for phase, name in PHASES.items() if total[phase] >= 0.002 * sum(total.values())}
    longest = max(map(_sum, stages.values()))
    bars = [_bar(name, phases, longest) for name, phases in stages.items()]
    rows = [_row(name, phases, keys) for name, phases in stages.items()]
    if len(stages) > 1:
        bars.insert(0, _bar(WHOLE, total, _sum(total), whole=True))
        rows.append(_row(WHOLE, total, keys))
    older = not any("start" in stage.times for stage in run.stages)
    times = PhaseTimes(keys=keys, bars=tuple(bars), rows=tuple(rows), older=older)
    return Section(anchor="time", title="Time", template="phases.html.j2", content=times)


def _bar(title: str, phases: Mapping[str, float], scale: float, *, whole: bool = False) -> PhaseBar:
    """The phases of a stage as a bar; `scale`: seconds that fill its width."""
    seconds = _sum(phases)
    segments = [
        Segment(f"t-{phase}", spent / scale, f"{PHASES[phase]} {duration(spent)} ({percent(spent / seconds, 0)})")
        for phase, spent in phases.items()
        if spent > 0
    ]
    return PhaseBar(title=title, whole=whole, bar=bar(segments), took=duration(seconds))


def _row(title: str, phases: Mapping[str, float], keys: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    return title, tuple(decimal(seconds) for seconds in (*(phases[phase] for phase in keys), _sum(phases)))


def _sum(phases: Mapping[str, float]) -> float:
    return sum(phases.values()) or 1e-9
