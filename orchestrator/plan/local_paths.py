"""Files and folders that a recipe names: where they stand in it, and the recipe with others in their place.

Keys are marked where they are declared (`Names` in orchestrator/config/sections/base.py, `names` of a field of a model that
scores), so that a new one is found here without a word. What a recipe hands on to code of the user's, arguments of a function
and environment variables, is a path where it reads like one and is there.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator.config.load import parse_recipe, to_toml
from orchestrator.config.recipe import Recipe
from orchestrator.config.sections.base import Names
from orchestrator.config.sections.rewards import FunctionSection
from orchestrator.config.trained_rewards import PREFIX
from orchestrator.plan.model_folder import is_local
from rewards.functions import is_url
from rewards.models.scorers import KINDS
from rollout.data.rows import HUB
from rollout.data.template_settings import SHIPPED
from rollout.storage.uri import is_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPath:
    """One place of a recipe that names a file or a folder."""

    keys: tuple[str | int, ...]
    """Way to it in the recipe's tables."""
    path: str
    """Path as the recipe has it."""
    behind: str = ""
    """Text behind the path in the key's value: `:NAME` of a function in a file."""

    @property
    def key(self) -> str:
        """The key as a user writes it."""
        return ".".join(map(str, self.keys[2:] if self.keys[0] == "stages" else self.keys))

    @property
    def relative(self) -> bool:
        return not Path(self.path).is_absolute()


def local_paths(recipe: Recipe) -> Iterator[LocalPath]:
    """Every file and folder that a recipe names, in the order of its keys."""
    return _within(recipe, ())


def with_paths(recipe: Recipe, moved: Callable[[LocalPath], str]) -> Recipe:
    """The recipe with `moved(place)` in place of every path."""
    raw = copy.deepcopy(to_toml(recipe))
    for place in local_paths(recipe):
        *way, last = place.keys
        table: Any = raw
        for key in way:
            table = table[key]
        table[last] = moved(place) + place.behind
    return parse_recipe(raw)


def absolute(path: str) -> str:
    """A path of this machine, from where the command was called."""
    return str(Path(path).expanduser().absolute())


def _within(section: BaseModel, way: tuple[str | int, ...]) -> Iterator[LocalPath]:
    for name, field in type(section).model_fields.items():
        what = next((mark.what for mark in field.metadata if isinstance(mark, Names)), "")
        value, here = getattr(section, name), (*way, name)
        if what == "anything":
            yield from _looked_at(value, here)
        elif what:
            path = _named(what, value)
            if path:
                yield LocalPath(keys=here, path=path, behind=value[len(path) :])
        else:
            yield from _inside(value, here)
    if isinstance(section, FunctionSection):
        yield from _of_arguments(section, way)


def _inside(value: Any, way: tuple[str | int, ...]) -> Iterator[LocalPath]:
    """Sections in sections, in lists and in tables of them."""
    if isinstance(value, BaseModel):
        yield from _within(value, way)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _inside(each, (*way, name))
    elif isinstance(value, tuple | list):
        for place, each in enumerate(value):
            yield from _inside(each, (*way, place))


def _of_arguments(function: FunctionSection, way: tuple[str | int, ...]) -> Iterator[LocalPath]:
    """Paths among the arguments of a reward function: a model that scores says which are some, a function of the user's does not."""
    arguments = function.model_extra or {}
    kind = KINDS.get(function.name)
    if kind is None:
        yield from _looked_at(arguments, way)
        return
    for field in fields(kind[0]):
        value = arguments.get(field.name)
        path = _named(str(field.metadata.get("names", "")), value) if isinstance(value, str) else ""
        if path:
            yield LocalPath(keys=(*way, field.name), path=path)


def _looked_at(value: Any, way: tuple[str | int, ...]) -> Iterator[LocalPath]:
    """Texts, however deep, that are paths by what they look like."""
    if isinstance(value, str) and _is_there(value):
        yield LocalPath(keys=way, path=value)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _looked_at(each, (*way, name))
    elif isinstance(value, tuple | list):
        for place, each in enumerate(value):
            yield from _looked_at(each, (*way, place))


def _named(what: str, value: str) -> str:
    """The path that the value of a marked key begins with; empty: it names something else."""
    if what == "data":
        return "" if value.startswith(HUB) else value
    if what == "template":
        return "" if value in SHIPPED else value
    if what == "model":
        # A hub id or a URI is the same everywhere, and so is the stage that trains a reward model.
        return value if value and not value.startswith(PREFIX) and not is_uri(value) and is_local(value) else ""
    if what == "function":
        origin = "" if is_url(value) else value.rpartition(":")[0]
        return origin if origin.endswith(".py") else ""
    return ""


def _is_there(value: str) -> bool:
    """Whether a text that nothing is known of reads like a relative path, and a file or a folder stands there."""
    if "\n" in value or "://" in value or len(value) > 1024 or Path(value).is_absolute():
        return False  # an absolute one is the same wherever the job runs
    try:
        return ("/" in value or bool(Path(value).suffix) or value.startswith("~")) and Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
