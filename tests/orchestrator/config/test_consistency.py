"""Settings that contradict each other: each told in a sentence, after whatever is wrong with single values."""

from typing import Any

import pytest

from orchestrator.config.consistency import check_consistency
from orchestrator.config.recipe import Recipe
from rollout.errors import InputError
from tests.orchestrator.factories import recipe


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"loop": {"steps": 0}}, "stage 'rl': loop.steps = 0: give at least 1"),
        ({"data": {}}, "stage 'rl' has no prompts: add [data.sources.NAME] with `path` or `task`"),
        (
            {"stages": [{"name": "last", "kind": "eval"}]},
            "stage 'last' evaluates nothing: add [eval.sets.NAME] with `path` or `task`",
        ),
        (
            {"data": {"sources": {"a": {"task": "arithmetic", "rubric": "style"}}}},
            "stage rl: source 'a' asks for rubric 'style'; rewards.rubrics has: default",
        ),
        (
            {"eval": {"sets": {"e": {"path": "f", "baseline_column": "old", "judged_by": "acuracy"}}}},
            "stage rl: eval.sets.e.judged_by = 'acuracy'; did you mean 'accuracy'?; rubric 'default' has: accuracy, format",
        ),
        (
            {"data": {"sources": {"a": {"task": "arithmetic"}}, "template": "r1-zero", "system": "S"}},
            "stage rl: data.system is for chat templates, but data.template = 'r1-zero'; set it to \"chat\", or to a Jinja file",
        ),
        (
            {"data": {"sources": {"a": {"task": "arithmetic"}}, "template_args": {"enable_thinking": False}}},
            "stage rl: data.template_args is for chat templates, but data.template = 'plain'; set it to \"chat\", or to a Jinja file",
        ),
        (
            {
                "data": {
                    "sources": {"a": {"path": "f", "messages_column": "m"}},
                    "template": "chat",
                    "few_shot": "s.jsonl",
                },
                "stages": [{"name": "s", "kind": "sft"}],
            },
            "stage s: data.few_shot stands before questions, but source 'a' holds whole conversations (messages_column); remove "
            "one of them",
        ),
        (
            {"rollout": {"group_size": 1}},
            "stage rl: rollout.group_size = 1: advantages are relative to the group, which needs at least 2 completions",
        ),
        (
            {"loop": {"publish_every": 3, "max_staleness": 1}},
            "stage rl: loop.publish_every = 3 lets tokens be 2 versions old; raise loop.max_staleness (now 1) to at least "
            "that",
        ),
        (
            {"learner": {"mini_batches": 9}, "loop": {"groups_per_step": 8}},
            "stage rl: learner.mini_batches = 9 is more than the 8 groups of a batch (loop.groups_per_step)",
        ),
        (
            {"model": {"path": "org/model", "max_tokens": 300}},
            "stage rl: rollout.max_tokens (256) + data.max_prompt_tokens (256) exceed model.max_tokens (300)",
        ),
    ],
)
def test_a_contradiction_names_its_stage_and_its_keys(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe(**sections)
    assert str(caught.value) == message


def test_what_a_kind_does_not_do_is_not_asked_of_it() -> None:
    pairs = {"sources": {"a": {"path": "f", "chosen_column": "a", "rejected_column": "b", "rubric": "none"}}}
    short = {"path": "org/model", "max_tokens": 300}
    made = recipe(
        data=pairs, model=short, rollout={"group_size": 1}, stages=[{"name": "prefs", "kind": "reward_model"}]
    )
    assert made.stages[0].name == "prefs"


def test_a_wrong_value_is_told_before_a_contradiction() -> None:
    with pytest.raises(InputError, match="unknown key lerner"):
        recipe(rollout={"group_size": 1}, lerner={"lr": 1})


def test_the_types_alone_know_no_contradiction() -> None:
    raw = recipe().model_dump()
    raw["stages"][0]["rollout"]["group_size"] = 1
    built = Recipe.model_validate(raw)
    with pytest.raises(InputError, match="group_size = 1"):
        check_consistency(built)
