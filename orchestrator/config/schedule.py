"""Settings of a grpo stage that change at a step: which hold when, and what a stage may not write.

A change is a barrier. What is sampled for the step at which it holds is asked for only once that step's policy version is
published, however far `loop.max_staleness` would let the rollout run ahead (orchestrator/buffer.py). So everything in
flight has the settings of one segment, every group is sampled with those of the step that trains it, a batch never mixes
two temperatures, and the learner divides by the one that sampled.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator

from orchestrator.config.recipe import Stage
from orchestrator.config.sections.schedule import Change
from orchestrator.config.stage_kinds import kind_of
from rollout.errors import InputError, did_you_mean


class Schedule:
    """A stage by step. Segment 0 is the stage as it begins; every change begins another."""

    def __init__(self, stage: Stage) -> None:
        self.steps = tuple(change.from_step for change in stage.schedule)
        """[segments − 1] Batches that are trained before each change."""
        self._stages = [stage]
        for change in stage.schedule:
            self._stages.append(_apply(self._stages[-1], change))

    def segment(self, step: int) -> int:
        """The segment that batch number `step` (from 0) belongs to."""
        return bisect_right(self.steps, step)

    def at(self, step: int) -> Stage:
        """The stage as batch number `step` (from 0) has it; past the end, as the last one has it."""
        return self._stages[self.segment(step)]

    @property
    def last(self) -> Stage:
        """The stage as it ends."""
        return self._stages[-1]

    @property
    def weights(self) -> list[dict[str, float]]:
        """[segments] data source → its share."""
        return [{name: each.weight for name, each in stage.data.sources.items()} for stage in self._stages]

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest completion of all segments."""
        return max(stage.rollout.max_tokens for stage in self._stages)

    @property
    def changes(self) -> dict[int, str]:
        """Step → what changes at it: `rollout.max_tokens = 65536`."""
        return {
            step: ", ".join(_differences(before, after)) or "nothing new"
            for step, before, after in zip(self.steps, self._stages, self._stages[1:], strict=False)
        }


def check_schedule(stage: Stage) -> None:
    """Raises InputError with the first change that cannot be."""
    before = 0
    for change in stage.schedule:
        named = f"stage {stage.name!r}: schedule: from_step = {change.from_step}"
        if change.from_step <= before:
            raise InputError(f"{named} comes after one of {before}: list changes in the order of their steps")
        if change.from_step >= stage.loop.steps:
            raise InputError(f"{named} is past the end: the stage has loop.steps = {stage.loop.steps}")
        for name in change.data.sources:
            if name not in stage.data.sources:
                known = ", ".join(stage.data.sources)
                raise InputError(
                    f"{named}: data.sources.{name}: no such source"
                    f"{did_you_mean(name, stage.data.sources)}; there is: {known}"
                )
        before = change.from_step
    schedule = Schedule(stage)
    if stage.schedule and not kind_of(stage).is_rl:
        raise InputError(f"stage {stage.name!r}: schedule: settings change in stages of kind grpo, not in {stage.kind}")
    for step, weights in zip((0, *schedule.steps), schedule.weights, strict=True):
        if weights and not any(weights.values()):
            raise InputError(f"stage {stage.name!r}: from step {step} on the weights of all its data sources are 0")
    for name in stage.data.sources:
        if not any(weights[name] for weights in schedule.weights):
            raise InputError(
                f"stage {stage.name!r}: data.sources.{name}.weight = 0, and no step of its schedule gives it more"
            )


def _apply(stage: Stage, change: Change) -> Stage:
    rollout = {key: value for key, value in change.rollout.model_dump().items() if value}
    sources = stage.data.sources | {
        name: stage.data.sources[name].model_copy(update={"weight": each.weight})
        for name, each in change.data.sources.items()
    }
    return stage.model_copy(
        update={
            "rollout": stage.rollout.model_copy(update=rollout),
            "data": stage.data.model_copy(update={"sources": sources}),
        }
    )


def _differences(before: Stage, after: Stage) -> Iterator[str]:
    for key in ("max_tokens", "temperature"):
        old, new = (getattr(stage.rollout, key) for stage in (before, after))
        if old != new:
            yield f"rollout.{key} = {new:g}" if math.modf(new)[0] else f"rollout.{key} = {int(new)}"
    for name, section in after.data.sources.items():
        if section.weight != before.data.sources[name].weight:
            yield f"data.sources.{name}.weight = {section.weight:g}"
