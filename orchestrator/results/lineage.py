"""Where the model of every stage of a run comes from, and what else it takes: the recipe of a run, as a graph to show.

Read from the plain tables of `recipe.toml`, so that runs of earlier versions can be shown too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.stage_kinds import kind_named, kind_of
from orchestrator.config.trained_rewards import PREFIX
from orchestrator.config.wiring import parent_of, root_of
from orchestrator.run.record import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one stage takes its model, its rows and its rewards from."""

    stage: str
    kind: str
    parent: str
    """Stage whose model it starts from; empty: an initial model."""
    initial: str
    """Key of the initial model that its model goes back to: stages of one key have models of one shape."""
    rows_of: tuple[str, ...]
    """Stages whose rows it learns from or asks."""
    scored_by: tuple[str, ...]
    """Stages whose reward models score what it samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where the models of a run come from."""

    origins: dict[str, Origin]
    """Stage → its origin, in the order of the recipe."""
    initial: dict[str, str]
    """Initial models in the order in which they are first needed: key → what it is, in words."""

    def in_words(self, stage: str) -> str:
        """The origin of a stage as it is told: `from cold-start, rows of samples (by reasoning), scored by prefs`."""
        origin = self.origins[stage]
        kind = kind_of(origin)
        verb = "of " if kind.only_evaluates or kind.leaves == "rows" else "from "
        words = [f"{verb}{origin.parent or 'the initial model'}"]
        for name in origin.rows_of:
            teacher = self.teacher(name)
            words.append(f"rows of {name}" + (f" (by {teacher})" if teacher else ""))
        if origin.scored_by:
            words.append(f"scored by {', '.join(origin.scored_by)}")
        return ", ".join(words)

    def teachers_of(self, stage: str) -> tuple[str, ...]:
        """Stages of another initial model whose rows this one learns from."""
        own = self.origins[stage]
        teachers = [self.teacher(name) for name in own.rows_of]
        return tuple(name for name in teachers if name and self.origins[name].initial != own.initial)

    def teacher(self, stage: str) -> str:
        """The stage whose model wrote the rows that this one left; empty: none, or an initial model."""
        origin = self.origins.get(stage)
        return origin.parent if origin else ""


def lineage_of(run: RunRecord) -> Lineage:
    """The graph of a run; stages that only its metrics know start from an initial model without a name."""
    entries = {str(entry.get("name", "")): entry for entry in run.recipe.get("stages", [])}
    origins: dict[str, Origin] = {}
    initial: dict[str, str] = {}
    for stage in run.stages:
        parent, root = parent_of(run.stages, stage), root_of(run.stages, stage)
        model = entries.get(root.name, {}).get("model") or run.recipe.get("model") or {}
        key = json.dumps([model.get("path"), model.get("build")], sort_keys=True)
        initial.setdefault(key, _model_words(model))
        entry = entries.get(stage.name, {})
        origins[stage.name] = Origin(
            stage=stage.name,
            kind=stage.kind,
            parent=parent.name if parent else "",
            initial=key,
            rows_of=_known(entries, (source.get("stage") for source in _sources(entry).values())),
            scored_by=_known(entries, _reward_models(entry, stage.kind)),
        )
    return Lineage(origins=origins, initial=initial)


def _known(entries: Mapping[str, Any], names: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(name) for name in names if name and str(name) in entries))


def _sources(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    sources: Mapping[str, Any] = (entry.get("data") or {}).get("sources") or {}
    return sources


def _reward_models(entry: Mapping[str, Any], kind: str) -> list[str]:
    """Stages that trained the reward models of the rubrics that a stage samples by."""
    if not kind_named(kind).samples:
        return []
    used = {source.get("rubric", "default") for source in _sources(entry).values()}
    rubrics = (entry.get("rewards") or {}).get("rubrics") or {}
    functions = [function for name in rubrics if name in used for function in rubrics[name].values()]
    paths = [str(function.get("path", "")) for function in functions if isinstance(function, dict)]
    return [path.removeprefix(PREFIX) for path in paths if path.startswith(PREFIX)]


def _model_words(model: Mapping[str, Any]) -> str:
    """An initial model in words: `Qwen/Qwen2.5-0.5B`, the last part of a folder, or what the recipe builds."""
    path, build = str(model.get("path") or ""), model.get("build") or {}
    if path:
        return path if path.count("/") == 1 and path[0] not in "/.~" else Path(path).name
    if build.get("layers") and build.get("hidden"):
        return f"built here, {build['layers']} layers of {build['hidden']}".replace(" 1 layers", " 1 layer")
    return "initial model"
