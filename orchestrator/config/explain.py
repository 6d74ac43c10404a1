"""The first mistake in the values of a recipe, in the words of the recipe: one line, with the nearest known key."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from rollout.errors import InputError, did_you_mean


def check_default_keys(defaults: Mapping[str, Any], settings: type[BaseModel]) -> None:
    """Report an unknown key of the defaults once, under its own name instead of once a stage."""
    for section, values in defaults.items():
        known = settings.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
        if not isinstance(values, dict):
            raise InputError(f"{section} = {values!r}: is a section, write [{section}] with keys below it")
        for key in values:
            if key not in known:
                raise InputError(f"unknown key {section}.{key}{did_you_mean(key, known)}")


def explain(error: ValidationError, raw: Mapping[str, Any], schema: type[BaseModel], sections: Sequence[str]) -> str:
    """The first mistake, in the words of the recipe."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    where = _place(error, raw)
    if first["type"] == "extra_forbidden":
        known = [*_keys_at(schema, location[:-1]), *(sections if len(location) == 1 else ())]
        return f"unknown key {where}{did_you_mean(location[-1], known)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return f"{where}: {message}" if where and not message.startswith("stage ") else message
    return f"{where} = {first['input']!r}: {reason(first)}"


def reason(mistake: Mapping[str, Any]) -> str:
    """What pydantic says of a value, in the words of TOML, which has lists."""
    message = str(mistake["msg"])
    return f"{message[0].lower()}{message[1:]}".replace("a valid tuple", "a list")


def _place(error: ValidationError, raw: Mapping[str, Any]) -> str:
    """The place of the first mistake: `learner.lr (stage reasoning)`; without the stage when every stage makes it."""
    places = [entry["loc"] for entry in error.errors()]
    first = places[0]
    stages = raw.get("stages")
    if len(first) < 2 or first[0] != "stages" or not isinstance(first[1], int) or not isinstance(stages, list):
        return ".".join(map(str, first))
    stage, key = stages[first[1]], ".".join(map(str, first[2:]))
    name = stage.get("name") if isinstance(stage, dict) else None
    label = f"stage {name}" if isinstance(name, str) else f"stage number {first[1] + 1}"
    if not key:
        return label
    mistaken = {place[1] for place in places if place[:1] == ("stages",) and place[2:] == first[2:]}
    return key if len(first) > 3 and len(mistaken) == len(stages) else f"{key} ({label})"


def _keys_at(model: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        field = model.model_fields.get(part)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else [model]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(model.model_fields)
