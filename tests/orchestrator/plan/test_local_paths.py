"""Every path of a recipe is found, and no key of it can be forgotten."""

import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from orchestrator.config.load import load_recipe, parse_recipe
from orchestrator.config.recipe import Recipe
from orchestrator.config.sections.base import Names
from orchestrator.plan.local_paths import absolute, local_paths, with_paths
from rewards.models.scorers import KINDS

NO_PATHS = """
name description stages.eval.reflection cluster.address cluster.storage cluster.storage_cache cluster.device
stages.name stages.kind stages.model_from
stages.data.system stages.data.template_args
stages.data.few_shot.prompt_column stages.data.few_shot.completion_column
stages.rollout.resources stages.learner.resources stages.rewards.resources
stages.sandbox.packages stages.learner.warmup_steps
stages.rewards.rubrics.gate stages.rewards.rubrics.entry
stages.learner.lora_targets stages.learner.lora_modules
tracking.project tracking.run tracking.entity tracking.mlflow_uri tracking.trackio_space
"""
SOURCE = """
set task stage split subset revision prompt_column answer_column answer_pattern starter_column completion_column prompt_form
chosen_column rejected_column messages_column rubric options keep_thought correct baseline_column judged_by
"""
"""Text keys of a source that name a column or a rubric."""
ALLOWED = (
    set(NO_PATHS.split())
    | {f"stages.data.sources.{name}" for name in SOURCE.split()}
    | {f"stages.eval.sets.{name}" for name in SOURCE.split()}
)
OF_SCORERS = {"scope", "device", "dtype", "endpoint", "model", "template", "sampling", "api_key_env"}
"""`template` of a judge is the text itself."""


def text_keys(model: type[BaseModel], way: str = "") -> Iterator[tuple[str, bool]]:
    """(key, whether it is marked) of everything in a recipe that may hold free text, however deep."""
    for name, field in model.model_fields.items():
        key = f"{way}{name}"
        marked = any(isinstance(mark, Names) for mark in field.metadata)
        models, texts = held(field.annotation)
        if texts or marked:
            yield key, marked
        for inner in models:
            yield from text_keys(inner, f"{key}.")


def held(annotation: Any) -> tuple[list[type[BaseModel]], bool]:
    """(sections, whether there is free text) in a type; keys of tables are names."""
    origin = get_origin(annotation)
    if origin is Literal:
        return [], False
    if origin is None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation], False
        return [], annotation in (str, Any)
    args = get_args(annotation)
    parts = args[1:] if origin is dict else args[:1] if origin not in (Union, UnionType, tuple, list) else args
    found = [held(each) for each in parts if each is not Ellipsis]
    return [model for models, _ in found for model in models], any(texts for _, texts in found)


def test_every_text_of_a_recipe_is_a_path_or_none() -> None:
    """A new key fails here until somebody has said which: mark it with `Names`, or name it above."""
    unsaid = {key for key, marked in text_keys(Recipe) if not marked} - ALLOWED
    assert not unsaid
    assert {key for key, marked in text_keys(Recipe) if marked} == {
        "cluster.env",
        "faults.at",
        "stages.rollout.engine",
        "stages.model.path",
        "stages.data.sources.path",
        "stages.data.few_shot.path",
        "stages.data.template",
        "stages.rewards.rubrics.name",
        "stages.eval.sets.path",
    }


def test_every_argument_of_a_model_that_scores_is_a_path_or_none() -> None:
    for kind, _ in KINDS.values():
        for field in fields(kind):
            plain = field.type in (int, float, bool)
            assert plain or bool(field.metadata.get("names")) != (field.name in OF_SCORERS), field.name


LOCAL = """
name = "mine"
cluster.env = { HF_HOME = "cache/hf", NCCL_SOCKET_IFNAME = "eth0", MODE = "a/b" }
[model]
path = "models/qwen"
[data]
template = "my.jinja"
few_shot = "shots.jsonl"
sources.a = { path = "data/train-*.parquet" }
sources.hub = { path = "hub:openai/gsm8k" }
[eval]
sets.b = { path = "/data/test.jsonl" }
[rewards.rubrics.default]
"rewards/mine.py:score" = { weight = 1.0, table = "data/words.txt", more = { deep = ["data/words.txt", 1] }, mode = "fast", other = "no/such" }
accuracy = 0.5
"package.module:other" = 0.1
rm = { name = "reward_model", path = "models/rm" }
hub-rm = { name = "reward_model", path = "org/helpful" }
[[stages]]
name = "rl"
kind = "grpo"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("models/qwen", "cache/hf", "data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/words.txt").touch()
    return tmp_path


def test_paths_of_a_recipe(here: Path) -> None:
    found = {place.key: (place.path, place.behind) for place in local_paths(parse_recipe(tomllib.loads(LOCAL)))}
    assert found == {
        "cluster.env.HF_HOME": ("cache/hf", ""),
        "model.path": ("models/qwen", ""),
        "data.template": ("my.jinja", ""),
        "data.few_shot.path": ("shots.jsonl", ""),
        "data.sources.a.path": ("data/train-*.parquet", ""),
        "eval.sets.b.path": ("/data/test.jsonl", ""),
        "rewards.rubrics.default.rewards/mine.py:score.name": ("rewards/mine.py", ":score"),
        "rewards.rubrics.default.rewards/mine.py:score.table": ("data/words.txt", ""),
        "rewards.rubrics.default.rewards/mine.py:score.more.deep.0": ("data/words.txt", ""),
        "rewards.rubrics.default.rm.path": ("models/rm", ""),
    }


def test_paths_are_replaced_and_nothing_else(here: Path) -> None:
    before = parse_recipe(tomllib.loads(LOCAL))
    (stage,) = (moved := with_paths(before, lambda place: absolute(place.path))).stages
    assert stage.model.path == f"{here}/models/qwen"
    assert stage.data.template == f"{here}/my.jinja"
    assert stage.data.few_shot.path == f"{here}/shots.jsonl"
    assert stage.data.sources["a"].path == f"{here}/data/train-*.parquet"
    assert stage.data.sources["hub"].path == "hub:openai/gsm8k"
    assert moved.cluster.env == {"HF_HOME": f"{here}/cache/hf", "NCCL_SOCKET_IFNAME": "eth0", "MODE": "a/b"}
    functions = stage.rewards.rubrics["default"]
    own = functions["rewards/mine.py:score"]
    assert own.name == f"{here}/rewards/mine.py:score"
    words = f"{here}/data/words.txt"
    assert own.model_extra == {"table": words, "more": {"deep": [words, 1]}, "mode": "fast", "other": "no/such"}
    assert functions["rm"].model_extra == {"path": f"{here}/models/rm"}
    assert functions["hub-rm"].model_extra == {"path": "org/helpful"}
    assert [each.name for each in functions.values()][1:3] == ["accuracy", "package.module:other"]
    same = {place.keys: place.path for place in local_paths(before)}
    assert with_paths(before, lambda place: same[place.keys]) == before


@pytest.mark.parametrize("path", ["org/helpful", "stage:helpful"])
def test_names_of_a_reward_model_that_are_no_paths(path: str, here: Path) -> None:
    recipe = parse_recipe(tomllib.loads(LOCAL.replace("models/rm", path)))
    assert not [place for place in local_paths(recipe) if place.key == "rewards.rubrics.default.rm.path"]


def test_recipes_that_ship_have_no_paths_until_they_are_told_some() -> None:
    assert [*local_paths(load_recipe("arithmetic", ["model.path=org/model"]))] == []
