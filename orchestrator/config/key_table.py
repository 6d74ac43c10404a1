"""The table of everything that a recipe may hold, made from its types and their docstrings.

`rayzero recipes --keys` prints it; `rayzero recipes --keys > orchestrator/config/KEYS.md` keeps it.
"""

import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from orchestrator.config.recipe import STAGE_SECTIONS, Recipe, Settings, Stage

HEAD = """\
# Keys of a recipe

Made by `rayzero recipes --keys > orchestrator/config/KEYS.md`; change the docstrings in `orchestrator/config/`, not this file.

A section of a recipe, such as `[learner]`, holds the defaults of all stages; `[stages.learner]` in one of the `[[stages]]` holds
what is different there. On the command line `learner.lr=1e-5` is for all stages, `stages.NAME.learner.lr=1e-5` for one. NAME and
LABEL are names of your choice; `[]` stands for each entry of a list.
"""


class Key(NamedTuple):
    """A row of the table."""

    key: str
    type: str
    """Type of the value, in Markdown."""
    default: str
    """Default of the value, in JSON; or `required`; empty: it is a table, whose keys follow."""
    meaning: str


def recipe_keys() -> Iterator[Key]:
    """Everything that a recipe may hold; of a section that extends another, what it has besides."""
    yield from _keys("", Recipe, skip=("stages",))
    yield from _keys("stages[].", Stage, skip=STAGE_SECTIONS)
    yield from _keys("", Settings)


def markdown() -> Iterator[str]:
    """The whole of KEYS.md, line by line."""
    yield from HEAD.splitlines()
    yield ""
    yield "| Key | Type | Default | Meaning |"
    yield "|---|---|---|---|"
    for key, kind, default, meaning in recipe_keys():
        cells = (f"`{key}`", kind, f"`{default}`" if default not in ("", "required") else default, meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _keys(prefix: str, model: type[BaseModel], skip: tuple[str, ...] = ()) -> Iterator[Key]:
    """The keys of a model and of the models in it."""
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        place, inner = _nested(f"{prefix}{name}", field.annotation)
        meaning = " ".join((field.description or "").split())
        if inner is None:
            default = "required" if field.is_required() else json.dumps(field.default)
            yield Key(place, _words(field.annotation), default, meaning)
            continue
        if place != f"{prefix}{name}":
            yield Key(place, "table", "", meaning)
        yield from _keys(f"{place}.", inner, skip=_inherited(inner))


def _nested(place: str, annotation: Any) -> tuple[str, type[BaseModel] | None]:
    """The key of a section, or of each in a list or a table of sections, and its model; None: it is a plain value."""
    names, below = iter(("NAME", "LABEL")), place
    while (origin := get_origin(annotation)) in (dict, tuple):
        below += f".{next(names)}" if origin is dict else "[]"
        annotation = get_args(annotation)[1 if origin is dict else 0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return below, annotation
    return place, None


def _inherited(model: type[BaseModel]) -> tuple[str, ...]:
    """Keys that a section has from the one that it extends."""
    return tuple(name for base in model.__bases__ if issubclass(base, BaseModel) for name in base.model_fields)


def _words(annotation: Any) -> str:
    """A type as the table shows it; the values of a choice are written out."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in args)
    if origin in (Union, UnionType):
        return " or ".join(map(_words, args))
    if origin is tuple:
        return f"list of {_words(args[0])}"
    if origin is dict:
        return f"table of {_words(args[1])}"
    return f"`{annotation.__name__}`"
