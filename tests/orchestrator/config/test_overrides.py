"""Settings of the command line: how a key is taken apart, and what it is laid over."""

import json
from typing import Any

import pytest

from orchestrator.config.keys import flat
from orchestrator.config.load import load_recipe
from orchestrator.config.overrides import apply_overrides, split
from rollout.errors import InputError


@pytest.mark.parametrize(
    ("override", "names", "text"),
    [
        ("seed=3", ["seed"], "3"),
        ("a.b-c.d_1=x=y", ["a", "b-c", "d_1"], "x=y"),
        ('a."my/file.py:fn"=1', ["a", "my/file.py:fn"], "1"),
        ("a.'my/file.py:fn'=1", ["a", "my/file.py:fn"], "1"),
        ('"a=b".c=1', ["a=b", "c"], "1"),
        ('a . "b" = "c.d"', ["a", "b"], ' "c.d"'),
        (r'a."say \"hi\" \u00fc".b=', ["a", 'say "hi" ü', "b"], ""),
        ("größe.x=1", ["größe", "x"], "1"),
        ('a."b.c".größe=1', ["a", "b.c", "größe"], "1"),
        ("a.größe .limit=1", ["a", "größe", "limit"], "1"),
        ("a.'ö.x'.y=1", ["a", "ö.x", "y"], "1"),
        ("a.\"b'=.c\".'d\"=' =x='y'", ["a", "b'=.c", 'd"='], "x='y'"),
    ],
)
def test_a_key_is_taken_apart_as_toml_does(override: str, names: list[str], text: str) -> None:
    assert split(override) == (names, text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.lr", "write it as key=value"),
        ("=1", "write it as key=value"),
        ("a..b=1", "write it as key=value"),
        ("a.=1", "write it as key=value"),
        ('a."b=1', "write it as key=value"),
        ('a.b"c".d=1', "write it as key=value"),
        (r'a."\q"=1', "is no quoted name"),
        ("a.my/file.py:fn=1", "'my/file' needs quotes"),
        ("a.package.module:fn=1", "'module:fn' needs quotes"),
        ("a.mine:fn=1", "'mine:fn' needs quotes"),
        ("a.my set.limit=1", "'my set' needs quotes"),
    ],
)
def test_a_key_that_is_none_is_told_with_the_way_out(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        split(override)
    text = str(caught.value)
    assert text.startswith(f"override {override!r}: ")
    assert message in text
    assert len(text.splitlines()) <= 2
    if "needs quotes" in message:
        assert """keep the quotes from the shell: 'data.sources."a/b.c".limit=9'""" in text


def test_a_reward_of_ones_own_is_added_by_its_file() -> None:
    (stage,) = load_recipe("gsm8k", ["model.path=org/model", 'rewards.rubrics.default."my/file.py:fn"=0.1']).stages
    rubric = stage.rewards.rubrics["default"]
    assert {each.name: each.weight for each in rubric.values()} == {
        "accuracy": 1.0,
        "format": 0.2,
        "my/file.py:fn": 0.1,
    }


def test_a_stage_and_a_source_may_be_quoted() -> None:
    overrides = ['stages."reasoning".data.sources."a.b".task=arithmetic', 'data.sources."a.b".limit=5']
    recipe = load_recipe("arithmetic", overrides[:1])
    assert "a.b" in recipe.stages[1].data.sources
    assert "a.b" not in recipe.stages[0].data.sources
    recipe = load_recipe("arithmetic", ['data.sources."a.b".task=arithmetic', *overrides])
    assert [stage.data.sources["a.b"].limit for stage in recipe.stages] == [5, 5]


def test_what_lies_below_is_not_changed() -> None:
    raw: dict[str, Any] = {"learner": {"lr": 1.0}, "stages": [{"name": "one"}]}
    result = apply_overrides(raw, ["learner.lr=2", "seed=1", "stages.one.loop.steps=3"], ["learner", "loop"])
    assert raw == {"learner": {"lr": 1.0}, "stages": [{"name": "one"}]}
    assert result == {
        "learner": {"lr": 2},
        "seed": 1,
        "stages": [{"name": "one", "learner": {"lr": 2}, "loop": {"steps": 3}}],
    }


def test_a_later_override_does_not_reach_through_an_earlier_one_into_other_stages() -> None:
    overrides = ["data.sources={ a = { task = 'arithmetic' } }", "stages.one.data.sources.a.limit=3"]
    result = apply_overrides({"stages": [{"name": "one"}, {"name": "two"}]}, overrides, ["data"])
    one, two = result["stages"]
    assert "limit" in one["data"]["sources"]["a"]
    assert "limit" not in two["data"]["sources"]["a"]


def test_what_is_said_of_one_stage_is_stronger_than_what_is_said_of_all() -> None:
    for overrides in (["learner.lr=1", "stages.one.learner.lr=2"], ["stages.one.learner.lr=2", "learner.lr=1"]):
        result = apply_overrides({"stages": [{"name": "one"}, {"name": "two"}]}, overrides, ["learner"])
        assert [stage["learner"]["lr"] for stage in result["stages"]] == [2, 1]


@pytest.mark.parametrize("part", ["data.sources", "eval.sets"])
def test_a_source_is_changed_in_the_stages_that_have_it(part: str) -> None:
    section, kind = part.split(".")
    has = {section: {kind: {"a": {"path": ""}}}}
    raw = {"stages": [{"name": "one", **has}, {"name": "two"}]}
    one, two = apply_overrides(raw, [f"{part}.a.path=x"], [section])["stages"]
    assert one[section] == {kind: {"a": {"path": "x"}}}
    assert two == {"name": "two"}
    # One of the defaults, or of nobody, is everybody's.
    for defaults in (has, {}):
        result = apply_overrides(
            {**defaults, "stages": [{"name": "one"}, {"name": "two"}]}, [f"{part}.a.path=x"], [section]
        )
        assert [stage[section][kind]["a"]["path"] for stage in result["stages"]] == ["x", "x"]


def test_the_model_of_a_run_is_not_that_of_a_stage_with_its_own() -> None:
    own = {"name": "student", "model_from": "own", "model": {"path": "small", "max_tokens": 9}}
    raw = {"stages": [{"name": "one"}, {"name": "again", "model_from": "own"}, own]}
    overrides = ["model.path=first", "model.path=large", "model.max_tokens=8"]
    result = apply_overrides(raw, overrides, ["model"])
    one, again, student = result["stages"]
    assert result["model"] == {"path": "large", "max_tokens": 8}
    assert one["model"] == again["model"] == {"max_tokens": 8}  # the path is that of the defaults
    assert student["model"] == {"path": "small", "max_tokens": 8}


@pytest.mark.parametrize("stages", ["3", '"x"', "{ a = 1 }"])
def test_stages_that_are_no_list_are_left_to_validation(stages: str) -> None:
    with pytest.raises(InputError, match="stages"):
        load_recipe("arithmetic", [f"stages={stages}", "learner.lr=1"])


def test_a_key_as_it_is_shown_is_a_key_as_it_is_taken() -> None:
    recipe = load_recipe("arithmetic", ['rewards.rubrics.default."my/file.py:fn"=0.25'])
    shown = flat(recipe.stages[1].model_dump(mode="json", include={"rewards", "data"}))
    key = 'rewards.rubrics.default."my/file.py:fn".weight'
    assert shown[key] == 0.25
    assert split(f"{key}={json.dumps(shown[key])}")[0] == ["rewards", "rubrics", "default", "my/file.py:fn", "weight"]
