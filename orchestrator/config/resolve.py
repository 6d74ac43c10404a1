"""The stages of a recipe, from as they are written to resolved: what a stage needs is in the stage.

Works on the tables before they are validated; what is no table is left to validation.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.config.recipe import OWN
from orchestrator.config.sections.data import rubric_asked
from orchestrator.config.sections.rewards import SHIPPED_RUBRICS
from orchestrator.config.stage_kinds import kind_named


def resolve_stages(defaults: Mapping[str, Any], written: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The stages over the defaults, each with the model that its line began with and the rubrics that its sources ask for."""
    stages = [_merge(defaults, stage) for stage in _with_models(written)]
    return [_without_default_steps(_with_rubrics(stage)) for stage in stages]


def _with_models(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stages as a recipe has them; one that starts from another's model gets the `path` and `build` that it began with.

    The defaults of the recipe are for the stages that begin a line of models.
    """
    begun: dict[Any, dict[str, Any]] = {}
    latest: Any = OWN
    inherited = []
    for stage in map(dict, stages):
        said = stage.get("model", {})
        parent = stage.get("model_from") or latest
        if isinstance(said, dict) and isinstance(parent, str) and isinstance(name := stage.get("name"), str):
            shape = {key: said[key] for key in ("path", "build") if key in said} or begun.get(parent, {})
            begun[name] = shape
            stage["model"] = said | shape
            latest = name if kind_named(str(stage.get("kind"))).leaves == "policy" else latest
        inherited.append(stage)
    return inherited


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over tables, key by key."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _with_rubrics(stage: dict[str, Any]) -> dict[str, Any]:
    """The stage with the shipped rubrics that its sources ask for and the recipe does not have."""
    rewards = stage.get("rewards", {})
    rubrics = rewards.get("rubrics", {"default": SHIPPED_RUBRICS["math"]}) if isinstance(rewards, dict) else None
    if not isinstance(rubrics, dict):
        return stage
    asked = {name for source in _sources(stage) if isinstance(name := rubric_asked(source), str)}
    missing = sorted(asked & set(SHIPPED_RUBRICS) - set(rubrics))
    if not missing:
        return stage
    rubrics = {**rubrics, **{name: SHIPPED_RUBRICS[name] for name in missing}}
    return {**stage, "rewards": {**rewards, "rubrics": rubrics}}


def _sources(stage: Mapping[str, Any]) -> Iterator[Any]:
    """The sources of a stage as they are written, the evaluation sets included."""
    for section, key in (("data", "sources"), ("eval", "sets")):
        values = stage.get(section)
        named = values.get(key) if isinstance(values, dict) else None
        yield from named.values() if isinstance(named, dict) else ()


def _without_default_steps(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage whose length is given in epochs has no steps, instead of their default."""
    sft, loop = stage.get("sft", {}), stage.get("loop", {})
    tables = isinstance(sft, dict) and isinstance(loop, dict)
    if kind_named(str(stage.get("kind"))).counts_epochs and tables and sft.get("epochs") and "steps" not in loop:
        return {**stage, "loop": {**loop, "steps": 0}}
    return stage
