"""Dotted keys: how a setting of a recipe is named to a person, such as `learner.lr`."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.config.load import Recipe, Stage

PLAIN_NAME = re.compile(r"[\w-]+")
"""A name that stands in a key without quotes."""


def key_in(recipe: "Recipe", stage: "Stage", key: str) -> str:
    """A key in a message; with its stage where the stages differ in it."""
    values = [_value(other, key) for other in recipe.stages]
    return key if all(value == values[0] for value in values) else f"{key} (stage {stage.name})"


def _value(stage: "Stage", key: str) -> Any:
    """What a stage has under a dotted key; None where it has nothing."""
    value: Any = stage
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys, written as an override takes them."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + (name if PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False))
        if isinstance(value, Mapping):
            result.update(flat(value, f"{key}."))
        else:
            result[key] = value
    return result
