"""What is in a run's folder: is there a run, which recipe, which stages are finished, which model is the newest."""

import re
import tomllib
from pathlib import Path

from orchestrator.config.load import STORED, parse_stored
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.wiring import parent_of, root_of
from rollout.errors import InputError

DONE = "done"
"""File that marks a stage as finished."""
CHECKPOINT = re.compile(r"step-\d{6,}")
"""Name of the folder of a checkpoint."""


def find_run(path: Path) -> Path | None:
    """The run that a folder belongs to: itself, or one above it; None for any other folder."""
    if not path.is_dir():
        return None
    folder = path.resolve()
    for above in (folder, *folder.parents):
        if (above / STORED).is_file():
            return next((shown for shown in (path, *path.parents) if shown.resolve() == above), above)
    return None


def model_to_evaluate(model: str) -> tuple[Path | None, str]:
    """(run that the model is of or None, folder or hub id of it) for what a user names.

    Raises:
        InputError: it names a checkpoint, or a run of which no stage is finished.
    """
    run = find_run(Path(model))
    if run is not None:
        return run, latest_export(run, Path(model))
    named, at, _ = model.rpartition("@")
    if at and find_run(Path(named)):
        raise InputError(f"{model}: is a checkpoint; make a model of it first: `rayzero export {model} DIR`")
    return None, model


def stored_recipe(folder: Path) -> Recipe | None:
    """The recipe of the run in that folder; None when it holds no run. Raises InputError when it is unreadable."""
    path = folder / STORED
    if not path.is_file():
        return None
    try:
        return parse_stored(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a recipe of this version: {error}") from None


def is_finished(run_dir: Path, stage: str) -> bool:
    """Whether a stage has ended, of any kind: some leave a model, some rows, some only figures."""
    return (run_dir / stage / DONE).is_file() or (run_dir / stage / "export").is_dir()


def checkpoints(run_dir: Path, stage: str) -> dict[int, Path]:
    """Step → complete checkpoint of a stage, the oldest first."""
    folders = [path for path in (run_dir / stage / "checkpoints").glob("step-*") if path.is_dir()]
    found = {int(path.name.removeprefix("step-")): path for path in folders if CHECKPOINT.fullmatch(path.name)}
    return dict(sorted(found.items()))


def trajectory_files(run_dir: Path, stage: str) -> dict[int, Path]:
    """Step → file of what it trained on, in the order of the steps."""
    files = (run_dir / "trajectories" / stage).glob("step-*.parquet")
    return dict(
        sorted((int(path.stem.removeprefix("step-")), path) for path in files if CHECKPOINT.fullmatch(path.stem))
    )


def built_model(recipe: Recipe, root: Stage, run_dir: Path) -> Path:
    """Folder of the small model that a stage begins with, which the run has made of its `model.build`."""
    first = next(stage for stage in recipe.stages if stage.model.build == root.model.build)
    return run_dir / ("base" if first is recipe.stages[0] else f"base-{first.name}")


def start_model(recipe: Recipe, stage: Stage, run_dir: Path) -> str:
    """Folder or hub id of the model that a stage starts from."""
    if parent := parent_of(recipe.stages, stage):
        return str(run_dir / parent.name / "export")
    return stage.model.path or str(built_model(recipe, root_of(recipe.stages, stage), run_dir))


def latest_export(run: Path, path: Path) -> str:
    """The model to evaluate for a folder in a run: itself, its stage's export, or the newest export of the run.

    Raises:
        InputError: no stage is finished.
    """
    if (path / "config.json").is_file():
        return str(path)
    recipe = stored_recipe(run)
    names = [stage.name for stage in recipe.stages if kind_of(stage).generates] if recipe else []
    inside = path.resolve().relative_to(run.resolve()).parts
    wanted = [name for name in names if name in inside[:1]] or names
    for name in reversed(wanted):
        if (run / name / "export" / "config.json").is_file():
            return str(run / name / "export")
    raise InputError(
        f"{run}: no model yet: of {', '.join(wanted)} no stage is finished; continue with `rayzero train {run}`"
    )
