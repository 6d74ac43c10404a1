"""Reading a recipe: one TOML file, typed sections, every key documented where it is declared.

A recipe has defaults (`[model]`, `[rollout]`, `[learner]`, …) and `[[stages]]`, each of which may repeat any of these
sections over the defaults. `load_recipe` returns a `Recipe` whose stages are resolved: what a stage needs is in the
stage. An unknown key is an error that names the nearest known one.

Nothing in this folder imports torch, vllm, ray, deepspeed or transformers when a recipe is read, so a mistake is answered
in well under a second.
"""

import copy
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.config.consistency import check_consistency
from orchestrator.config.explain import check_default_keys, explain
from orchestrator.config.missing import check_required
from orchestrator.config.overrides import apply_overrides
from orchestrator.config.recipe import STAGE_SECTIONS, Recipe, Settings
from orchestrator.config.resolve import resolve_stages
from rollout.data.template_settings import SHIPPED
from rollout.errors import InputError, did_you_mean

RECIPES = Path(__file__).parents[1] / "recipes"
"""Folder of the recipes that ship."""
STORED = "recipe.toml"
"""File of a run that holds its resolved recipe."""


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `key=value` overrides (overrides.py), validate.

    Args:
        name: of a shipped recipe, or the path of a TOML file or of the folder of a run.

    Raises:
        InputError: unknown recipe, unreadable TOML, unknown key, wrong type, or settings that contradict each other.
    """
    path = _find(name)
    return (
        parse_stored(_read_toml(path / STORED), overrides)
        if path.is_dir()
        else parse_recipe(_beside(_read_toml(path), path.parent), overrides)
    )


def parse_recipe(raw: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Lay overrides over a recipe, resolve its stages over its defaults and validate it. Raises InputError."""
    raw = apply_overrides(raw, overrides, STAGE_SECTIONS)
    defaults = {section: raw.pop(section) for section in STAGE_SECTIONS if section in raw}
    stages = raw.get("stages")
    if isinstance(stages, list) and all(isinstance(stage, dict) for stage in stages):
        check_default_keys(defaults, Settings)
        raw["stages"] = resolve_stages(defaults, stages)
        check_required(stages, raw["stages"])
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise InputError(explain(error, raw, Recipe, STAGE_SECTIONS)) from None
    check_consistency(recipe)
    return recipe


def parse_stored(raw: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that a run has kept. Reward functions of ours that have moved since it began have their new names in it.

    Raises:
        InputError: it is no recipe of this version.
    """
    # Only here: brings numpy.
    from rewards.functions import current_name

    raw = copy.deepcopy(dict(raw))
    stages = raw.get("stages")
    for stage in stages if isinstance(stages, list) else []:
        for rubric in _tables(_table(_table(stage, "rewards"), "rubrics")):
            for function in _tables(rubric):
                if isinstance(name := function.get("name"), str):
                    function["name"] = current_name(name)
    return parse_recipe(raw, overrides)


def shipped_recipes() -> dict[str, str]:
    """Name → one-line description of every recipe in the package."""
    return {path.stem: str(_read_toml(path).get("description", "")) for path in sorted(RECIPES.glob("*.toml"))}


def to_toml(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain TOML data: what `recipe.toml` in the run directory holds."""
    data: dict[str, Any] = json.loads(recipe.model_dump_json())
    return data


def run_folder(name: str) -> Path | None:
    """The folder of a run, where that is what a user named; the name of a shipped recipe is never a folder."""
    folder = Path(name)
    shipped = "/" not in name and (RECIPES / f"{name}.toml").is_file()
    return folder if name and not shipped and (folder / STORED).is_file() else None


def _table(value: Any, key: str) -> dict[str, Any]:
    """A table inside of what may be none; an empty one where there is none. What is wrong is said by validation."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _tables(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in value.values() if isinstance(each, dict)]


def _find(name: str) -> Path:
    if folder := run_folder(name):
        return folder
    path = Path(name)
    if "/" in name and path.is_dir():
        raise InputError(f"{name} is a folder without a run (no {STORED}); name a recipe or a TOML file")
    if path.suffix == ".toml" or "/" in name:
        if not path.is_file():
            raise InputError(f"no recipe file at {name}")
        return path
    shipped = RECIPES / f"{name}.toml"
    if not shipped.is_file():
        known = sorted(path.stem for path in RECIPES.glob("*.toml"))
        raise InputError(f"unknown recipe {name!r}{did_you_mean(name, known)}; shipped: {', '.join(known)}")
    return shipped


def _beside(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recipe with the files of its templates and examples found beside it, where they are there."""
    stages = raw.get("stages")
    for table in [raw, *(stages if isinstance(stages, list) else ())]:
        data = _table(table, "data")
        for holder, key in ((data, "template"), (data, "few_shot"), (_table(data, "few_shot"), "path")):
            value = holder.get(key)
            if not isinstance(value, str) or not value or value in SHIPPED or not (folder / value).exists():
                continue
            # As from here, so that a run is the same however its recipe was named.
            path = Path(os.path.abspath(folder / value))
            holder[key] = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return raw


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
