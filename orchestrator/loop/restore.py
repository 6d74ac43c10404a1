"""A stage of reinforcement learning from its files: the newest checkpoint, and the steps since, trained again from what is on the
disk. The batch of a step is what its file says, so the weights are those that were lost.

    checkpoint s  ─▶  step files s+1 … n  ─▶  weights of version n, account of every prompt, groups that wait
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from learner.batch import TrainingBatch, make_batch, sequences_of
from learner.stats import TrainStats
from orchestrator.buffer import Buffer
from orchestrator.cluster.specs import learner_threads, optimizer_steps, resolve_dtype
from orchestrator.config.recipe import Stage
from orchestrator.config.sections.learner import LearnerSection
from orchestrator.loop.context import StageContext
from orchestrator.loop.metrics import step_metrics
from orchestrator.loop.prompt_source import PromptSource
from orchestrator.run.checkpoints import set_aside
from orchestrator.run.record import step_records
from orchestrator.run.steps import DamagedFile, StepRecord, installed, read_record, read_rows, write_step
from orchestrator.run.trajectories import groups_of
from orchestrator.run.waiting import WaitingLog, waiting_groups
from rewards.types import ScoredGroup
from rollout.errors import InputError

PLACES = ("cpus", "gpus", "resources", "timeout_s")
"""Keys of the learner's section that say where it computes, and not what."""


def computed_with(stage: Stage, device: Any) -> dict[str, Any]:
    """What of the learner's section decides the last bit of a step, with what it leaves open filled in."""
    return {
        **{key: value for key, value in stage.learner.model_dump(mode="json").items() if key not in PLACES},
        "threads": learner_threads(stage),
        "device": device,
        "dtype": resolve_dtype(stage, device),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedStep:
    """A step that can be trained again."""

    path: Path
    record: StepRecord

    @property
    def groups_and_advantages(self) -> tuple[list[ScoredGroup], list[np.ndarray]]:
        """The groups of the batch, and [G'] the advantages of each. Raises DamagedFile as `read_rows` does."""
        rows = read_rows(self.path)
        groups = groups_of(rows)
        ends = np.cumsum([len(group.completions) for group in groups])[:-1]
        return groups, np.split(np.array(rows["advantage"].to_pylist(), np.float64), ends)

    def batch(self, section: LearnerSection) -> TrainingBatch:
        """The batch, as it was cut; where the learner's section has a loss that needs them, with completions that the step skipped.

        Raises DamagedFile as `read_rows` does.
        """
        groups, advantages = self.groups_and_advantages
        filtered = self.record.learner["overlong_filtering"]
        rows = [
            row
            for group, own in zip(groups, advantages, strict=True)
            for row in sequences_of(group, own, overlong_filtering=filtered)
        ]
        skips = self.record.cut.get("only_signal", False) and not section.trains_all
        return make_batch(rows, **{**self.record.cut, "only_signal": skips})

    def section(self, now: LearnerSection) -> LearnerSection:
        """A learner's section that computes as the step's did, in the places of `now`."""
        known = {key: value for key, value in self.record.learner.items() if key in LearnerSection.model_fields}
        return LearnerSection(**known, **now.model_dump(include=set(PLACES)))


def recorded_steps(files: Mapping[int, Path], after: int) -> Iterator[RecordedStep]:
    """The steps after number `after` in order, up to the first that is missing or was written without a record.

    Raises:
        DamagedFile: one cannot be read.
    """
    step = after + 1
    while step in files and (record := read_record(files[step])) is not None:
        read_rows(files[step])
        yield RecordedStep(path=files[step], record=record)
        step += 1


async def write_record(
    context: StageContext,
    step: int,
    buffer: Buffer,
    log: WaitingLog,
    advantages: Sequence[np.ndarray],
    cut: Mapping[str, Any],
    state: Mapping[str, Any],
) -> RecordedStep:
    """Write the file of `step`, whose batch `buffer` has just given; from here on the step is decided."""
    record = StepRecord(
        step=step,
        numbers=buffer.batch,
        dropped=buffer.drops(),
        state=state,
        cut=cut,
        learner=computed_with(context.stage, context.services.device),
        plan=optimizer_steps(context.stage, context.stage.loop.steps),
        packages=installed(),
    )
    path = context.store.trajectory_file(context.stage.name, step)
    rows = [log.rows(number) for number in buffer.batch]
    await context.written(partial(write_step, path, record, rows, advantages, trained_at=step - 1))
    log.written(step, [*record.numbers, *(number for number, _ in record.dropped)])
    return RecordedStep(path=path, record=record)


async def restore(context: StageContext, buffer: Buffer, prompts: PromptSource, log: WaitingLog) -> int:
    """Bring a stage to where its files end; the step that it goes on from, 0 for one that has not begun.

    Raises:
        InputError: as `StageContext.resume` does.
        ServiceError: the learner could not train the steps again.
    """
    state = await context.resume()
    checkpoint = state["step"] if state else 0
    steps = readable_steps(context, checkpoint)
    if steps:
        await train_again(context, steps)
        state = {"step": steps[-1].record.step, **steps[-1].record.state}
    start = state["step"] if state else 0
    found = log.restore(start)
    account: dict[str, Any] = state["buffer"] if state else buffer.state()
    open_numbers = set(account["owed"])
    settled = [n for n in (*found.groups, *found.dropped) if n < account["admitted"] and n not in open_numbers]
    for number in settled:
        found.groups.pop(number, None)
        found.dropped.pop(number, None)
    log.forget(settled)
    waiting = waiting_groups(found)
    buffer.restore(account, start, waiting, found.dropped)
    if state or waiting or found.dropped:
        known = state["prompts"] if state else prompts.state()
        segments = max(known.get("segments", []), found.segments, key=len)
        prompts.restore({**known, "segments": segments}, buffer.state(), buffer.waiting_numbers)
    if waiting:
        context.display.line(f"{context.stage.name}: {len(waiting)} groups that were sampled before wait to be trained")
    return start


def readable_steps(context: StageContext, checkpoint: int) -> list[RecordedStep]:
    """The steps after a checkpoint that can be trained again. From one that is damaged on they are left aside, and said to be."""
    files = context.store.trajectory_files(context.stage.name)
    steps: list[RecordedStep] = []
    try:
        for step in recorded_steps(files, checkpoint):
            steps.append(step)
    except DamagedFile as problem:
        lost = checkpoint + len(steps) + 1
        for number, path in files.items():
            if number >= lost:
                set_aside(path)
        last = max(files)
        also = f", and with it steps {lost + 1} to {last}" if last > lost else ""
        context.display.warn(f"{problem}; step {lost} is lost{also}: left aside, their prompts are asked again")
    return steps


async def train_again(context: StageContext, steps: Sequence[RecordedStep]) -> None:
    """Train recorded steps on top of the weights that the learner has, and record those that a crash left unrecorded."""
    first, last = steps[0].record.step, steps[-1].record.step
    name = context.stage.name
    span = f"step {first}" if first == last else f"steps {first} to {last}"
    context.display.line(f"{name}: trains {span} again from {'its file' if first == last else 'their files'}")
    lines = step_records(context.store.folder, name)
    own = context.stage.learner
    plan = optimizer_steps(context.stage, context.stage.loop.steps)
    before: RecordedStep | None = None
    for step in steps:
        record = step.record
        if not _computes(context, record):
            await _as_recorded(context, step.section(own), before)
        learner = await context.services.learner()
        if record.plan != plan:
            plan = record.plan
            await learner.plan(*plan)
        stats = await context.train(partial(step.batch, context.stage.learner), "grpo")
        line = lines.get(record.step)
        if line is None:
            _record(context, step, stats)
        elif (
            _computes(context, record)
            and installed() == record.packages
            and line.get("weights", stats.weights) != stats.weights
        ):
            context.display.warn(
                f"{name}: step {record.step} trained again gives other weights ({stats.weights}) than it gave before "
                f"({line['weights']})"
            )
        before = step
    final = optimizer_steps(context.stage, context.stage.loop.steps)
    if plan != final:
        await (await context.services.learner()).plan(*final)
    if context.stage.learner != own:
        await _as_recorded(context, own, before)


async def _as_recorded(context: StageContext, section: LearnerSection, before: RecordedStep | None) -> None:
    """Ranks as a step had them, where there is room; else the step is trained with those that are there, and that is said."""
    if before is not None:
        await context.checkpoint(before.record.step, before.record.state)
    changed = _differences(computed_with(context.stage, ""), computed_with(with_learner(context.stage, section), ""))
    try:
        if changed:
            await context.adopt(section)
            context.display.line(f"{context.stage.name}: {changed}")
    except InputError as problem:
        context.display.warn(
            f"{context.stage.name}: {problem}; steps are trained again with other ranks, the same up to rounding"
        )


def _computes(context: StageContext, record: StepRecord) -> bool:
    """Whether steps are computed here as this one was, to the last bit."""
    return computed_with(context.stage, context.services.device) == record.learner


def _record(context: StageContext, step: RecordedStep, stats: TrainStats) -> None:
    """The line of a step that a crash left unrecorded."""
    groups, _ = step.groups_and_advantages
    number, loop = step.record.step, context.stage.loop
    account = Buffer(loop.groups_per_step, loop.max_staleness, dynamic_sampling=False)
    account.restore(step.record.state["buffer"], number - 1)
    times = context.clocks.step()
    values = step_metrics(
        groups, step.batch(context.stage.learner), stats, number - 1, None, None, account, number - 1, times
    )
    context.record_step(number, values, weights=stats.weights)


def with_learner(stage: Stage, section: LearnerSection) -> Stage:
    """The stage with another section of the learner's."""
    return stage.model_copy(update={"learner": section})


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    return ", ".join(f"learner.{key} = {before[key]} → {after[key]}" for key in after if before[key] != after[key])
