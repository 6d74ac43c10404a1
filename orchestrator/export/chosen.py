"""Which model of a run is meant: RUN, RUN/STAGE, RUN/STAGE@STEP or RUN/STAGE@best."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.stage_kinds import kind_of
from orchestrator.export.best import best_series
from orchestrator.run.folder import CHECKPOINT, checkpoints, find_run, stored_recipe
from orchestrator.run.record import RunRecord, StageRecord, read_run
from rollout.errors import InputError, did_you_mean

BEST = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A model that a stage left or had on its way."""

    run: RunRecord
    recipe: Recipe
    stage: Stage
    step: int
    """Steps behind it."""
    checkpoint: Path | None
    """Checkpoint that holds it; None: the export with which the stage ended."""
    why: str
    """Which one it is and why, in words."""

    @property
    def export(self) -> Path:
        """Folder of the export with which the stage ends."""
        return self.run.directory / self.stage.name / "export"

    @property
    def record(self) -> StageRecord:
        """What the stage has recorded."""
        return next(record for record in self.run.stages if record.name == self.stage.name)


def choose(model: str, by: str = "") -> Chosen:
    """Find the model that is meant.

    Args:
        by: figure that says which step is best (`best_series`).

    Raises:
        InputError: there is no such run, stage or figure, or no model of that step was kept.
    """
    path, which = _split(model)
    if by and which != BEST:
        raise InputError(f"--by {by} says what is best; it goes with RUN/STAGE@{BEST}")
    run_dir, name = _run_of(path)
    recipe = stored_recipe(run_dir)
    assert recipe is not None, "a run has a recipe"
    if not which and path.parent.name == "checkpoints" and CHECKPOINT.fullmatch(path.name):
        which = str(int(path.name.removeprefix("step-")))
    run = read_run(run_dir)
    stage = _stage(run, recipe, name)
    record = next(record for record in run.stages if record.name == stage.name)
    kept = kept_models(run_dir, record)
    if not kept:
        raise InputError(
            f"{run_dir}/{stage.name}: has no checkpoint yet, and is not finished; go on with `rayzero train {run_dir}`"
        )
    step, why = _step(f"{run_dir}/{stage.name}", which, by, record, kept)
    return Chosen(run=run, recipe=recipe, stage=stage, step=step, checkpoint=kept[step], why=why)


def kept_models(run_dir: Path, stage: StageRecord) -> dict[int, Path | None]:
    """Step → checkpoint of every model of a stage that is there; None: the stage's export."""
    found: dict[int, Path | None] = dict(checkpoints(run_dir, stage.name))
    if (run_dir / stage.name / "export" / "config.json").is_file():
        found[stage.last_step] = None
    return dict(sorted(found.items()))


def _split(model: str) -> tuple[Path, str]:
    """(path, what stands behind its `@`)."""
    path, at, which = model.rpartition("@")
    # A folder may have an @ in its name.
    return (Path(path), which) if at and not Path(model).is_dir() and "/" not in which else (Path(model), "")


def _run_of(path: Path) -> tuple[Path, str]:
    """(folder of the run, name of the stage in it or empty); a stage that has not begun has no folder yet."""
    run = find_run(path)
    if run is None and (run := find_run(path.parent)) is not None:
        return run, path.name
    if run is None:
        raise InputError(f"{path}: is no run, and in none; give RUN or RUN/STAGE, such as runs/arithmetic/reasoning")
    return run, next(iter(path.resolve().relative_to(run.resolve()).parts), "")


def _stage(run: RunRecord, recipe: Recipe, name: str) -> Stage:
    """The stage of that name; of no name, or that of the link to the newest export: the newest that has left a model.

    Raises:
        InputError: it trains nothing, or there is none.
    """
    training = {stage.name: stage for stage in recipe.stages if kind_of(stage).trains}
    if name in training:
        return training[name]
    listed = ", ".join(training) or "none"
    if other := next((stage for stage in recipe.stages if stage.name == name), None):
        raise InputError(
            f"{run.directory}/{name}: a stage of kind {other.kind} trains no model; stages that do: {listed}"
        )
    if name:
        raise InputError(
            f"{run.directory}: has no stage {name!r}{did_you_mean(name, training)}; stages that train a model: {listed}"
        )
    exported = [
        stage for stage in training.values() if (run.directory / stage.name / "export" / "config.json").is_file()
    ]
    begun = [stage for stage in training.values() if checkpoints(run.directory, stage.name)]
    if not exported and not begun:
        raise InputError(f"{run.directory}: no model yet; go on with `rayzero train {run.directory}`")
    policies = [stage for stage in exported if kind_of(stage).leaves == "policy"]
    return (policies or exported or begun)[-1]


def _step(named: str, which: str, by: str, record: StageRecord, kept: Mapping[int, Path | None]) -> tuple[int, str]:
    """(step of the model, why that one)."""
    listed = ", ".join(f"{step:,} (the export)" if path is None else f"{step:,}" for step, path in kept.items())
    if not which:
        final = next((step for step, path in kept.items() if path is None), None)
        if final is not None:
            return final, f"the stage's export, step {final:,}"
        step = max(kept)
        return step, f"the newest checkpoint, step {step:,}; the stage is not finished"
    if which == BEST:
        series = best_series(record, by)
        step = series.best(kept)
        extreme = "lowest" if series.lower else "highest"
        of = f"{len(series.values)} evaluations" if len(series.values) > 1 else "the only evaluation"
        why = (
            f"step {step:,}, {series.words} {series.show(step)} on {series.set}: the {extreme} of {of} "
            "(of equal ones the earliest that was kept)"
        )
        if step not in kept:
            raise InputError(
                f"{named}@{BEST} is {why}, but no checkpoint of that step was kept; there is: {listed}\n"
                "name one of them, or keep more next time: loop.checkpoint_every as loop.eval_every, and loop.keep_checkpoints"
            )
        return step, why
    if not which.isdecimal() or int(which) < 1:
        raise InputError(f"{named}@{which}: give a step, such as @{max(kept)}, or @{BEST}; there is: {listed}")
    if int(which) not in kept:
        raise InputError(f"{named}@{which}: no checkpoint of step {int(which):,} was kept; there is: {listed}")
    return int(which), f"step {int(which):,}"
