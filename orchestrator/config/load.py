"""The recipe: one TOML file, typed sections, every key documented where it is declared.

A recipe has defaults (`[model]`, `[rollout]`, `[learner]`, …) and `[[stages]]`, each of which may repeat any of these
sections over the defaults. `load_recipe` returns a `Recipe` whose stages are resolved: what a stage needs is in the
stage. An unknown key is an error that names the nearest known one.

Nothing here or in `sections` imports torch, vllm, ray, deepspeed or transformers, so a mistake is answered in well under
a second.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from orchestrator.config.explain import check_default_keys, explain
from orchestrator.config.missing import check_required
from orchestrator.config.overrides import overridden
from orchestrator.config.schedule import Schedule, check_schedule
from orchestrator.config.sections.base import Section
from orchestrator.config.sections.cluster import ClusterSection
from orchestrator.config.sections.data import DataSection, rubric_asked
from orchestrator.config.sections.eval import EvalSection
from orchestrator.config.sections.kinds import DpoSection, RejectSection, RewardModelSection, SftSection
from orchestrator.config.sections.learner import LearnerSection
from orchestrator.config.sections.loop import LoopSection
from orchestrator.config.sections.model import ModelSection
from orchestrator.config.sections.rewards import SHIPPED_RUBRICS, RewardsSection, SandboxSection
from orchestrator.config.sections.rollout import RolloutSection
from orchestrator.config.sections.schedule import Change
from orchestrator.config.wiring import check_wiring, inherit_models
from rollout.errors import InputError, did_you_mean

RECIPES = Path(__file__).parents[1] / "recipes"


class Settings(Section):
    """The sections that a recipe gives defaults for and a stage may repeat."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    rollout: RolloutSection = RolloutSection()
    rewards: RewardsSection = RewardsSection()
    sandbox: SandboxSection = SandboxSection()
    learner: LearnerSection = LearnerSection()
    loop: LoopSection = LoopSection()
    sft: SftSection = SftSection()
    reject: RejectSection = RejectSection()
    reward_model: RewardModelSection = RewardModelSection()
    dpo: DpoSection = DpoSection()
    eval: EvalSection = EvalSection()


StageKind = Literal["sft", "grpo", "reject", "reward_model", "dpo", "eval"]


class Stage(Settings):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of the stage and of its folder in the run directory."""
    kind: StageKind
    """`sft`: supervised fine-tuning; `grpo`: reinforcement learning; `reject`: rejection sampling, which leaves rows;
    `reward_model`: a model of preferences from pairs, for rubrics (`path = "stage:NAME"`); `dpo`: direct preference
    optimisation on pairs; `eval`: evaluation alone."""

    model_from: str = ""
    """Earlier stage whose model this one starts from; `own`: what its own `model` section says. Empty: the stage before
    it that left a policy."""
    schedule: tuple[Change, ...] = ()
    """Settings that change at a step (grpo), in the order of the steps."""

    @model_validator(mode="before")
    @classmethod
    def _steps_of_epochs(cls, values: Any) -> Any:
        """With epochs, steps that are not given are none, instead of their default."""
        if not isinstance(values, dict) or values.get("kind") != "sft":
            return values
        sft, loop = values.get("sft", {}), values.get("loop", {})
        if isinstance(sft, dict) and sft.get("epochs") and isinstance(loop, dict) and "steps" not in loop:
            return values | {"loop": loop | {"steps": 0}}
        return values

    @model_validator(mode="after")
    def _length(self) -> Self:
        if self.kind == "sft" and self.sft.epochs:
            if self.loop.steps:
                raise ValueError(
                    f"stage {self.name!r}: sft.epochs = {self.sft.epochs:g} and loop.steps = {self.loop.steps} both say "
                    "how long it is; set one of them to 0"
                )
        elif not self.loop.steps:
            raise ValueError(
                f"stage {self.name!r}: loop.steps = 0: give at least 1" + " or sft.epochs" * (self.kind == "sft")
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _shipped_rubrics(cls, raw: Any) -> Any:
        """The rubrics that ship, written out where a source asks for one."""
        if not isinstance(raw, dict) or not isinstance(rewards := raw.get("rewards", {}), dict):
            return raw
        rubrics = rewards.get("rubrics", {"default": SHIPPED_RUBRICS["math"]})
        asked = {name for source in _sources(raw) if isinstance(name := rubric_asked(source), str)}
        if isinstance(rubrics, dict) and (missing := sorted(asked & set(SHIPPED_RUBRICS) - set(rubrics))):
            rubrics = {**rubrics, **{name: SHIPPED_RUBRICS[name] for name in missing}}
            return {**raw, "rewards": {**rewards, "rubrics": rubrics}}
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "eval" and not self.eval.sets:
            raise ValueError(f"stage {self.name!r} evaluates nothing: add [eval.sets.NAME] with `path` or `task`")
        if self.kind != "eval" and not self.data.sources:
            raise ValueError(f"stage {self.name!r} has no prompts: add [data.sources.NAME] with `path` or `task`")
        # Worked examples and pairs are not scored.
        scored = self.data.sources if self.kind in ("grpo", "reject") else {}
        for name, source in (*scored.items(), *self.eval.prompt_sets.items()):
            if source.rubric not in self.rewards.rubrics:
                known = ", ".join(sorted(self.rewards.rubrics))
                raise ValueError(f"source {name!r} asks for rubric {source.rubric!r}; rewards.rubrics has: {known}")
        for name, chosen in self.eval.prompt_sets.items():
            labels = self.rewards.rubrics[chosen.rubric]
            if chosen.correct and chosen.correct not in labels:
                raise ValueError(
                    f"eval.sets.{name}.correct = {chosen.correct!r}{did_you_mean(chosen.correct, labels)}; "
                    f"rubric {chosen.rubric!r} has: {', '.join(labels)}"
                )
            if chosen.judged_by and chosen.judged_by not in labels:
                raise ValueError(
                    f"eval.sets.{name}.judged_by = {chosen.judged_by!r}{did_you_mean(chosen.judged_by, labels)}; "
                    f"rubric {chosen.rubric!r} has: {', '.join(labels)}"
                )
        if self.kind == "grpo":
            if self.rollout.group_size == 1:
                raise ValueError(
                    "rollout.group_size = 1: advantages are relative to the group, which needs at least 2 completions"
                )
            if self.loop.publish_every > self.loop.max_staleness + 1:
                raise ValueError(
                    f"loop.publish_every = {self.loop.publish_every} lets tokens be {self.loop.publish_every - 1} "
                    f"versions old; raise loop.max_staleness (now {self.loop.max_staleness}) to at least that"
                )
            if self.learner.mini_batches > self.loop.groups_per_step:
                raise ValueError(
                    f"learner.mini_batches = {self.learner.mini_batches} is more than the "
                    f"{self.loop.groups_per_step} groups of a batch (loop.groups_per_step)"
                )
        check_schedule(self)
        longest = Schedule(self).max_tokens
        # A reward model reads and generates nothing.
        if self.kind != "reward_model" and longest + self.data.max_prompt_tokens > self.model.max_tokens:
            raise ValueError(
                f"rollout.max_tokens ({longest}) + data.max_prompt_tokens "
                f"({self.data.max_prompt_tokens}) exceed model.max_tokens ({self.model.max_tokens})"
            )
        return self


class Recipe(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of the recipe; the run directory is `runs/<name>` unless told otherwise."""
    description: str = ""
    """One line for `rayzero recipes` and the report."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Every random choice of the run derives from it."""
    cluster: ClusterSection = ClusterSection()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    """In order; each starts from the model that the one before it left, unless it says otherwise."""

    @model_validator(mode="after")
    def _wired(self) -> Self:
        check_wiring(self.stages)
        return self


STAGE_SECTIONS = tuple(Settings.model_fields)


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name or a TOML file by path, apply `key=value` overrides (overrides.py), validate.

    Raises:
        InputError: unknown recipe, unreadable TOML, unknown key, wrong type, or settings that contradict each other.
    """
    return parse_recipe(_read_toml(_find(name)), overrides)


def parse_recipe(raw: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Lay overrides over a recipe, resolve its stages over its defaults and validate it. Raises InputError."""
    raw = overridden(raw, overrides, STAGE_SECTIONS)
    defaults = {section: raw.pop(section) for section in STAGE_SECTIONS if section in raw}
    stages = raw.get("stages")
    if isinstance(stages, list) and all(isinstance(stage, dict) for stage in stages):
        check_default_keys(defaults, Settings)
        raw["stages"] = [_merge(defaults, stage) for stage in inherit_models(stages)]
        check_required(stages, raw["stages"])
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise InputError(explain(error, raw, Recipe, STAGE_SECTIONS)) from None


def shipped_recipes() -> dict[str, str]:
    """Name → one-line description of every recipe in the package."""
    return {path.stem: str(_read_toml(path).get("description", "")) for path in sorted(RECIPES.glob("*.toml"))}


def to_toml(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain TOML data: what `recipe.toml` in the run directory holds."""
    data: dict[str, Any] = json.loads(recipe.model_dump_json())
    return data


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix == ".toml" or "/" in name:
        if not path.is_file():
            raise InputError(f"no recipe file at {name}")
        return path
    shipped = RECIPES / f"{name}.toml"
    if not shipped.is_file():
        known = sorted(path.stem for path in RECIPES.glob("*.toml"))
        raise InputError(f"unknown recipe {name!r}{did_you_mean(name, known)}; shipped: {', '.join(known)}")
    return shipped


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _sources(stage: Mapping[str, Any]) -> Iterator[Any]:
    """The sources of a stage as they are written in a recipe, the evaluation sets included."""
    for section, key in (("data", "sources"), ("eval", "sets")):
        values = stage.get(section)
        named = values.get(key) if isinstance(values, dict) else None
        yield from named.values() if isinstance(named, dict) else ()
