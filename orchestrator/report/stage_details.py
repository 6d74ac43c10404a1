"""Every chart of every stage, and what a line says of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.config.stage_kinds import kind_of
from orchestrator.report.charts import DrawingGroup
from orchestrator.report.curves import curves_of
from orchestrator.report.pairs import PairRow, held_out_pairs
from orchestrator.report.render import Section
from orchestrator.results.words import duration
from orchestrator.run.record import StageRecord, as_number

OPEN_STAGES = 1
"""In a run of more, the charts of each stage are folded away at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDetails:
    name: str
    facts: tuple[str, ...]
    opened: bool
    curves: tuple[DrawingGroup, ...]
    pairs: tuple[PairRow, ...]


def stages_section(stages: Sequence[StageRecord], limit: int) -> Section | None:
    """Every chart of every stage, each series of at most `limit` points; None before the first stage has begun."""
    if not stages:
        return None
    details = tuple(
        StageDetails(
            name=stage.name,
            facts=tuple(_facts(stage, limit)),
            opened=len(stages) <= OPEN_STAGES,
            curves=curves_of(stage, limit),
            pairs=held_out_pairs(stage),
        )
        for stage in stages
    )
    return Section(anchor="stages", title="Stages", template="stages.html.j2", content=details)


def _facts(stage: StageRecord, limit: int) -> list[str]:
    facts = [kind_of(stage).words]
    if stage.steps:
        facts.append(
            f"{stage.last_step:,}" + (f" of {stage.planned_steps:,}" if stage.planned_steps else "") + " steps"
        )
    facts.append(duration(stage.seconds))
    if len(stage.starts) > 1:
        facts.append(f"resumed {len(stage.starts) - 1}×")
    if stage.steps and "count/taken" in stage.steps[-1]:
        facts.append(_counts(stage))
    if not stage.ended:
        facts.append("not finished")
    size = math.ceil(len(stage.steps) / limit)
    if size > 1:
        facts.append(f"each point stands for {size} steps")
    return facts


def _counts(stage: StageRecord) -> str:
    """Where the prompts of a stage have gone; they must add up."""
    last = stage.steps[-1]
    taken, trained, dropped, waiting = (
        int(as_number(last.get(f"count/{name}")) or 0) for name in ("taken", "trained", "dropped", "in_flight")
    )
    text = f"{taken:,} prompts taken: {trained:,} trained, {dropped:,} dropped, {waiting:,} in flight"
    return text if taken == trained + dropped + waiting else f"{text} (these should add up and do not)"
