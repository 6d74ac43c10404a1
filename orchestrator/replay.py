"""Training again what a run has recorded, in other processes and without engines: an audit, a look for a defect, an experiment.

Nothing of the run is written. With nothing changed the weights of every step are those of the run, to the last bit where the
machine computes as the run's did; with a change (`learner.policy_loss=gspo`) the recorded batches train another loss.
"""

import asyncio
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from learner.learner import Learner
from learner.stats import TrainStats
from orchestrator.cluster.services import Services
from orchestrator.cluster.session import ray_session
from orchestrator.cluster.specs import learner_spec
from orchestrator.config.load import load_recipe
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.wiring import parent_of, root_of
from orchestrator.display import Display
from orchestrator.loop.restore import RecordedStep, recorded_steps
from orchestrator.run.folder import built_model, checkpoints, trajectory_files
from orchestrator.run.record import Record, step_records
from orchestrator.run.stubs import whole
from rollout.errors import InputError

SHOWN = ("learner/loss", "learner/grad_norm", "policy/entropy", "kl/ref", "policy/clip_fraction")
"""Figures that an experiment is compared with the run by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One step, trained again."""

    step: int
    stats: TrainStats
    before: Record
    """What the run recorded of it; empty: nothing."""

    @property
    def same(self) -> bool | None:
        """Whether the weights are those of the run; None: the run did not say."""
        return self.before["weights"] == self.stats.weights if "weights" in self.before else None


def replay(
    run_dir: Path,
    stage_name: str,
    first: int,
    last: int | None,
    changes: Sequence[str],
    say: Callable[[Replayed], None],
) -> list[Replayed]:
    """Train steps `first` to `last` of a stage again, from the weights that were before them.

    Args:
        stage_name: empty: the newest stage with recorded steps.
        last: None: the newest one.
        changes: `learner.KEY=VALUE`, laid over what the steps were trained with.
        say: hears of each step as it is done.

    Raises:
        InputError: there is nothing to train again, or a change is none of the learner's.
        ServiceError: the learner failed.
    """
    recipe = load_recipe(f"{run_dir}/", changes)
    stage = _stage(recipe, run_dir, stage_name)
    steps = _steps(run_dir, stage, first, last)
    base = _base(run_dir, stage, first)
    before = steps[0].record.step - 1
    skipped = [
        step for step in recorded_steps(trajectory_files(run_dir, stage.name), base[0]) if step.record.step <= before
    ]
    keys = {change.partition("=")[0].strip().removeprefix("learner.") for change in changes}
    with ray_session(recipe.cluster, f"rayzero-replay-{secrets.token_hex(4)}") as device:
        services = Services(device, recipe.cluster.start_timeout_s, Display(), wait_s=recipe.cluster.wait_s)
        work = _Replay(recipe, stage, run_dir, services, {key: getattr(stage.learner, key) for key in keys})
        return asyncio.run(work.run(base, skipped, steps, say))


class _Replay:
    """One replay: ranks as the steps had them, formed anew where they had others."""

    def __init__(
        self, recipe: Recipe, stage: Stage, run_dir: Path, services: Services, changes: Mapping[str, Any]
    ) -> None:
        self._recipe, self._stage, self._run_dir = recipe, stage, run_dir
        self._services, self._changes = services, changes
        self._section: Any = None
        self._plan: tuple[int, int] | None = None

    async def run(
        self,
        base: tuple[int, Path | None],
        skipped: Sequence[RecordedStep],
        steps: Sequence[RecordedStep],
        say: Callable[[Replayed], None],
    ) -> list[Replayed]:
        lines = step_records(self._run_dir, self._stage.name)
        done = []
        try:
            with tempfile.TemporaryDirectory(prefix="rayzero-replay-") as scratch:
                checkpoint = base[1]
                for number, step in enumerate((*skipped, *steps)):
                    learner, checkpoint = await self._ranks_of(step, checkpoint, Path(scratch, str(number)))
                    stats = await learner.train(partial(step.batch, self._section), "grpo")
                    if number < len(skipped):
                        continue
                    done.append(Replayed(step=step.record.step, stats=stats, before=lines.get(step.record.step, {})))
                    say(done[-1])
        finally:
            await self._services.close()
        return done

    async def _ranks_of(
        self, step: RecordedStep, checkpoint: Path | None, scratch: Path
    ) -> tuple[Learner, Path | None]:
        """Ranks as a step had them, with the weights so far."""
        section = step.section(self._stage.learner).model_copy(update=dict(self._changes))
        if section != self._section:
            if self._section is not None:
                checkpoint = scratch
                await (await self._services.learner()).save(scratch, {})
            stage = self._stage.model_copy(update={"learner": section})
            await self._services.begin_learner(stage)
            learner = await self._services.learner()
            model = _model(self._recipe, stage, self._run_dir)
            await learner.open(learner_spec(stage, model, model, self._recipe.seed, self._services.device))
            if checkpoint is not None:
                await learner.load(whole(checkpoint))
            self._section, self._plan = section, None
        learner = await self._services.learner()
        if step.record.plan != self._plan:
            self._plan = step.record.plan
            await learner.plan(*step.record.plan)
        return learner, checkpoint


def describe_step(one: Replayed, changed: bool) -> str:
    """A line about a step. `changed`: it was trained with other settings, so its figures are compared and not its weights."""
    if not changed:
        word = {True: "the same weights", False: "OTHER WEIGHTS", None: "weights of which the run did not say a digest"}
        was = "" if one.same is not False else f" (the run's: {one.before['weights']})"
        return f"step {one.step}: {one.stats.weights}, {word[one.same]}{was}"
    figures = {"learner/loss": one.stats.loss, "learner/grad_norm": one.stats.grad_norm}
    names = {"policy/entropy": "entropy", "kl/ref": "kl"}
    figures |= {name: one.stats.means[key] for name, key in names.items() if key in one.stats.means}
    parts = [f"{name} {value:.6g}{_was(one.before.get(name))}" for name, value in figures.items()]
    return f"step {one.step}: " + ", ".join(parts)


def _was(value: Any) -> str:
    return f" (was {value:.6g})" if isinstance(value, int | float) else ""


def _stage(recipe: Recipe, run_dir: Path, name: str) -> Stage:
    recorded = [stage for stage in recipe.stages if trajectory_files(run_dir, stage.name)]
    if name:
        recorded = [stage for stage in recorded if stage.name == name]
    if not recorded:
        which = f"stage {name!r}" if name else "any stage"
        raise InputError(f"{run_dir}: holds no recorded steps of {which}; steps of grpo stages are recorded")
    return recorded[-1]


def _steps(run_dir: Path, stage: Stage, first: int, last: int | None) -> list[RecordedStep]:
    files = trajectory_files(run_dir, stage.name)
    steps = [step for step in recorded_steps(files, first - 1) if last is None or step.record.step <= last]
    if not steps:
        raise InputError(
            f"{run_dir}: step {first} of {stage.name} is not recorded; there is {min(files)} to {max(files)}: give --from"
        )
    if last is not None and steps[-1].record.step < last:
        raise InputError(f"{run_dir}: step {steps[-1].record.step + 1} of {stage.name} is not recorded; give --until")
    return steps


def _base(run_dir: Path, stage: Stage, first: int) -> tuple[int, Path | None]:
    """(step, checkpoint) to begin from: the newest before `first` from which on all steps are there."""
    files = trajectory_files(run_dir, stage.name)
    found: Iterator[tuple[int, Path | None]] = (
        (step, path) for step, path in sorted(checkpoints(run_dir, stage.name).items(), reverse=True) if step < first
    )
    for step, path in (*found, (0, None)):
        if all(number in files for number in range(step + 1, first)):
            return step, path
    raise InputError(
        f"{run_dir}: neither a checkpoint before step {first} of {stage.name} nor all steps up to it are there; "
        "give a later --from"
    )


def _model(recipe: Recipe, stage: Stage, run_dir: Path) -> str:
    """Folder or hub id of the model that a stage started from."""
    named = next(each for each in recipe.stages if each.name == stage.name)
    if parent := parent_of(recipe.stages, named):
        return str(whole(run_dir / parent.name / "export"))
    return stage.model.path or str(whole(built_model(recipe, root_of(recipe.stages, named), run_dir)))
