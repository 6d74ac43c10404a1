"""The table of everything that a recipe may hold, made from its types and their docstrings."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from orchestrator.config.recipe import STAGE_SECTIONS, Recipe, Settings, Stage


def recipe_keys() -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of everything a recipe may hold; the README's table is made from this."""
    yield from _keys("", Recipe, skip=("stages",))
    yield from _keys("stages[].", Stage, skip=STAGE_SECTIONS)
    yield from _keys("", Settings)


def markdown() -> Iterator[str]:
    """The table, line by line."""
    yield "| Key | Type | Default | Meaning |"
    yield "|---|---|---|---|"
    for key, kind, default, meaning in recipe_keys():
        cells = (f"`{key}`", _kind(kind), default if default == "required" else f"`{default}`", meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(text: str) -> str:
    """A type in the table of keys; the values of a choice are written out."""
    if text.startswith("["):
        return " or ".join(f"`{choice.strip()}`" for choice in text.strip("[]").replace("'", '"').split(","))
    return f"`{text}`"


def _keys(prefix: str, model: type[BaseModel], skip: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(f"{prefix}{name}.", kind)
            continue
        args: tuple[Any, ...] = getattr(kind, "__args__", ())
        listed = args[0] if args[-1:] == (Ellipsis,) else None
        if isinstance(listed, type) and issubclass(listed, BaseModel):
            yield from _keys(f"{prefix}{name}[].", listed)
            continue
        place, nested = f"{prefix}{name}.NAME.", args[-1] if args else None
        while inner := getattr(nested, "__args__", ()):
            place, nested = f"{place}LABEL.", inner[-1]
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _keys(place, nested)
            continue
        text = kind.__name__ if isinstance(kind, type) and not args else str(kind)
        text = text.replace("typing.", "").replace("Literal", "")
        default = "required" if field.is_required() else json.dumps(field.default)
        yield f"{prefix}{name}", text, default, " ".join((field.description or "").split())
