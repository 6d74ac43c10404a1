"""Names of settings in a finding: the key, such as `learner.lr`, and the stage where that matters."""

from typing import Any

from orchestrator.config.recipe import Recipe, Stage


def key_in(recipe: Recipe, stage: Stage, key: str) -> str:
    """A key in a message; with its stage where the stages differ in it."""
    values = [_value(other, key) for other in recipe.stages]
    return key if all(value == values[0] for value in values) else f"{key} (stage {stage.name})"


def _value(stage: Stage, key: str) -> Any:
    """The value that a stage has under a dotted key; None where it has nothing."""
    value: Any = stage
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value
