"""What is in a run's folder: is there a run, which recipe, which stages are finished, which model is the newest."""

import tomllib
from pathlib import Path

from orchestrator.config.load import STORED, parse_stored
from orchestrator.config.recipe import Recipe
from orchestrator.config.stage_kinds import kind_of
from rollout.errors import InputError

DONE = "done"
"""File that marks a stage as finished."""


def find_run(path: Path) -> Path | None:
    """The run that a folder belongs to: itself, or one above it; None for any other folder."""
    if not path.is_dir():
        return None
    folder = path.resolve()
    for above in (folder, *folder.parents):
        if (above / STORED).is_file():
            return next((shown for shown in (path, *path.parents) if shown.resolve() == above), above)
    return None


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
