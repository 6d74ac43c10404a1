"""Which stage takes from which, and what is said of a recipe whose stages do not fit together."""

from typing import Any

import pytest

from orchestrator.config.load import parse_recipe
from orchestrator.config.recipe import Recipe
from orchestrator.config.wiring import missing_before, parent_of, root_of, select_stages
from rollout.errors import InputError

SOURCE = {"sources": {"a": {"task": "arithmetic"}}}


def recipe(*stages: dict[str, Any], **head: Any) -> Recipe:
    named = [{"kind": "sft", **stage} for stage in stages]
    return parse_recipe({"name": "r", "model": {"path": "org/model"}, "data": SOURCE, "stages": named, **head})


def parents(of: Recipe) -> dict[str, str | None]:
    found = {stage.name: parent_of(of.stages, stage) for stage in of.stages}
    return {name: parent.name if parent else None for name, parent in found.items()}


CHAIN = recipe(
    {"name": "zero", "kind": "grpo"},
    {"name": "cold", "model_from": "own"},
    {"name": "rl", "kind": "grpo"},
    {"name": "student", "model_from": "own", "model": {"path": "org/small"}},
    {"name": "student-rl", "kind": "grpo", "model": {"path": "org/small"}},
    {"name": "last", "model_from": "rl"},
)


def test_a_stage_starts_from_the_one_before_or_from_what_it_names() -> None:
    assert parents(CHAIN) == {
        "zero": None,
        "cold": None,
        "rl": "cold",
        "student": None,
        "student-rl": "student",
        "last": "rl",
    }
    roots = {stage.name: root_of(CHAIN.stages, stage).name for stage in CHAIN.stages}
    assert roots["last"] == roots["rl"] == "cold"
    assert roots["student-rl"] == "student"


def test_a_stage_has_the_model_that_its_line_began_with() -> None:
    small = {"build": {"tokenizer": "bpe", "hidden": 64, "heads": 2, "kv_heads": 2}}
    made = recipe(
        {"name": "base"},
        {"name": "small-base", "model_from": "own", "model": {"path": "", **small}},
        {"name": "small"},
        {"name": "samples", "kind": "reject"},
        {"name": "smaller-still", "model": {"max_tokens": 600}},
        {"name": "small-zero", "kind": "grpo", "model_from": "small-base"},
        {"name": "again", "model_from": "base"},
    )
    hidden = {stage.name: stage.model.build.hidden for stage in made.stages}
    assert {name for name, width in hidden.items() if width == 64} == {
        "small-base", "small", "samples", "smaller-still", "small-zero",
    }  # fmt: skip
    assert {stage.name for stage in made.stages if stage.model.path == "org/model"} == {"base", "again"}
    assert [stage.model.max_tokens for stage in made.stages if stage.name == "smaller-still"] == [600]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([{"name": "a"}, {"name": "a"}], "two stages are called 'a'"),
        ([{"name": "own"}], "cannot be called 'own'"),
        ([{"name": "cold"}, {"name": "b", "model_from": "clod"}], "is no stage before it; did you mean 'cold'"),
        ([{"name": "a", "model_from": "b"}, {"name": "b"}], "'b' is no stage before it; there is: none"),
        ([{"name": "a"}, {"name": "b", "model": {"path": "org/other"}}], 'set model_from = "own"'),
        ([{"name": "a"}, {"name": "b", "data": {"sources": {"x": {"stage": "a"}}}}], "a stage of kind sft leaves no rows"),
        ([{"name": "a", "data": {"sources": {"x": {"stage": "z"}}}}], "data.sources.x.stage = 'z' is no stage before it"),
        ([{"name": "a", "data": {"sources": {"x": {"stage": "z", "path": "f"}}}}], "one of `path`, `task` and `stage`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_said(stages: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe(*stages)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_no_model_at_all() -> None:
    with pytest.raises(InputError, match=r"model\.path is empty"):
        recipe({"name": "a"}, model={})


def names(**options: str) -> list[str]:
    return [stage.name for stage in select_stages(CHAIN.stages, **options)]


def test_stages_are_selected() -> None:
    assert names() == [stage.name for stage in CHAIN.stages]
    assert names(first="rl") == ["rl", "student", "student-rl", "last"]
    assert names(last="cold") == ["zero", "cold"]
    assert names(first="cold", last="rl") == ["cold", "rl"]
    assert names(only="rl") == ["rl"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"first": "cald"}, "--from cald: no stage of that name; did you mean 'cold'"),
        ({"first": "rl", "last": "cold"}, "--from rl comes after --until cold"),
        ({"only": "rl", "first": "rl"}, "--only is one stage"),
    ],
)
def test_a_selection_that_makes_no_sense(options: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        names(**options)


def test_what_is_needed_and_not_there() -> None:
    only = select_stages(CHAIN.stages, only="rl")
    assert list(missing_before(CHAIN.stages, only, set())) == ["stage rl takes from stage cold, which is not finished"]
    assert not list(missing_before(CHAIN.stages, only, {"cold"}))
    assert not list(missing_before(CHAIN.stages, only, {"rl"}))
    assert not list(missing_before(CHAIN.stages, CHAIN.stages, set()))
