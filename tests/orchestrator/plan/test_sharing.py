"""Engines and ranks that take turns on GPUs: when they do, what that reserves, and what cannot."""

from typing import Any

import pytest

from orchestrator.config.recipe import Stage
from orchestrator.plan.placement import MANY, gpu_share, shares_gpus, stage_places
from rollout.errors import InputError
from tests.orchestrator.factories import recipe


def stage_of(**sections: Any) -> Stage:
    return recipe(**sections).stages[0]


def test_they_share_where_there_are_too_few_gpus_for_both() -> None:
    stage = stage_of(rollout={"replicas": 2}, learner={"ranks": 2})
    assert [shares_gpus(stage, gpus) for gpus in (1, 2, 3, 4, MANY)] == [True, True, True, False, False]
    assert [stage_places(stage, gpus=gpus)[1] for gpus in (2, 4)] == [2, 4]
    assert [gpu_share(stage, gpus) for gpus in (2, 4)] == [2, 4]


def test_the_recipe_has_the_last_word() -> None:
    asked = stage_of(rollout={"share_gpus": True})
    assert shares_gpus(asked, MANY)
    assert gpu_share(asked, MANY) == 1
    assert not shares_gpus(stage_of(rollout={"share_gpus": False}), 1)


def test_a_part_is_left_to_reward_models() -> None:
    stage = stage_of(rollout={"share_gpus": True, "gpus": 0.8})
    assert gpu_share(stage, 1) == 0.8


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"loop": {"max_staleness": 1}}, "loop.max_staleness = 1 samples then"),
        ({"rollout": {"tensor_parallel": 2}}, "rollout.tensor_parallel = 2 workers shares with no rank; set it to 1"),
        ({"rollout": {"replicas": 3}, "learner": {"ranks": 2}}, "replicas = 3 are more than learner.ranks = 2"),
    ],
)
def test_what_cannot_share_does_not_by_itself_and_is_refused_when_asked(sections: dict[str, Any], why: str) -> None:
    assert not shares_gpus(stage_of(**sections), 1)
    rollout = {**sections.get("rollout", {}), "share_gpus": True}
    with pytest.raises(InputError, match=r"share_gpus = true: .*" + why):
        recipe(**{**sections, "rollout": rollout})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"rollout": {"tensor_parallel": 2, "gpus": 0.8}}, "rollout.gpus = 0.8: the 2 workers of an engine"),
        ({"rollout": {"gpus": 0.5}}, "rollout.gpus"),
        ({"learner": {"gpus": 0.4}}, "learner.gpus"),
    ],
)
def test_a_part_of_a_gpu_is_never_one_of_two_and_never_lets_two_on_one(sections: dict[str, Any], message: str) -> None:
    """NCCL takes no two processes of a group on one GPU, and two that each fit a half would land there."""
    with pytest.raises(InputError, match=message):
        recipe(**sections)


def test_another_value_is_told_in_one_sentence() -> None:
    with pytest.raises(InputError) as caught:
        recipe(rollout={"share_gpus": "maybe"})
    assert str(caught.value) == """rollout.share_gpus: 'maybe' is neither true, false nor "auto\""""
