"""Paths that a recipe leaves empty are asked for at once, by the key that fills them."""

from typing import Any

import pytest

from orchestrator.config.load import load_recipe, parse_recipe
from rollout.errors import InputError
from tests.orchestrator.factories import NEEDED


def told(**changes: Any) -> str:
    raw: dict[str, Any] = {
        "name": "r",
        "model": {"path": "org/model"},
        "data": {"sources": {"a": {"task": "arithmetic"}}},
        "stages": [{"name": "one", "kind": "grpo"}],
    }
    with pytest.raises(InputError) as caught:
        parse_recipe(raw | changes)
    return str(caught.value)


def source(**keys: Any) -> dict[str, Any]:
    return {"sources": {"a": {"path": "", **keys}}}


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({}, "with columns 'prompt', 'answer'"),
        ({"answer_column": ""}, "with columns 'prompt'"),
        ({"prompt_column": "q", "completion_column": "c", "answer_column": ""}, "with columns 'q', 'c'"),
        ({"chosen_column": "good", "rejected_column": "bad"}, "with columns 'prompt', 'good', 'bad'"),
        ({"messages_column": "chat"}, "with conversations in column 'chat'"),
    ],
)
def test_an_empty_path_says_what_rows_are_wanted(keys: dict[str, str], what: str) -> None:
    assert told(data=source(**keys)) == (
        f"data.sources.a.path is empty: give a JSONL, JSON, Parquet, CSV or Arrow file {what} (data.sources.a.path=…)"
    )


def test_a_published_set_is_asked_for_by_name() -> None:
    text = told(eval={"sets": {"t": {"set": "aime24", "path": ""}}})
    assert text == "eval.sets.t.path is empty: give the file of aime24 as it is published (eval.sets.t.path=…)"


def test_an_empty_model_is_asked_for_and_one_that_is_a_stages_own_by_its_stage() -> None:
    assert told(model={"path": ""}) == (
        "model.path is empty: give a Hugging Face model folder or hub id (model.path=…)"
    )
    own = {"name": "two", "kind": "grpo", "model_from": "own", "model": {"path": ""}}
    assert told(stages=[{"name": "one", "kind": "grpo"}, own]).startswith("stages.two.model.path is empty")


def test_a_model_that_is_built_needs_no_path() -> None:
    raw = {"path": "", "build": {"tokenizer": "characters"}}
    stages = [{"name": "x", "kind": "grpo"}]
    built = parse_recipe({"name": "r", "model": raw, "data": source(path="a.jsonl"), "stages": stages})
    assert built.stages[0].model.build is not None


@pytest.mark.parametrize("name", ["r1", "r1-zero"])
def test_a_recipe_of_real_models_asks_for_all_that_it_needs_in_two_lines(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(name)
    first, second = str(caught.value).splitlines()
    assert first == "model.path is empty: give a Hugging Face model folder or hub id (model.path=…)"
    keys = {override.split("=")[0] for override in NEEDED[name]}
    assert set(second.removeprefix("and so are ").split(", ")) == keys - {"model.path"}
    # One at a time is one line, and what is named is what fills it.
    for missing in NEEDED[name]:
        with pytest.raises(InputError) as caught:
            load_recipe(name, [given for given in NEEDED[name] if given != missing])
        key = missing.split("=")[0]
        assert str(caught.value).startswith(f"{key} is empty: give ")
        assert str(caught.value).endswith(f"({key}=…)")
