"""Batches in optimizer steps."""

import pytest

from orchestrator.config.recipe import Stage
from orchestrator.plan.batches import batch_plan, changes_of
from tests.orchestrator.factories import recipe


def stage_of(**learner: int) -> Stage:
    stage = {
        "name": "rl",
        "kind": "grpo",
        "rollout": {"group_size": 4},
        "loop": {"steps": 100, "groups_per_step": 48},
        "schedule": [{"from_step": 10, "rollout": {"temperature": 0.5}}],
    }
    return recipe(stages=[stage], learner=learner).stages[0]


def test_one_step_a_batch() -> None:
    assert batch_plan(stage_of()) == "192 completions a batch (48 groups × 4); 100 batches are 100 optimizer steps"
    assert list(changes_of(stage_of())) == ["from step 10: rollout.temperature = 0.5"]


def test_several_steps_a_batch_count_in_both() -> None:
    stage = stage_of(mini_batches=16, reference_refresh_steps=40)
    assert batch_plan(stage) == (
        "192 completions a batch (48 groups × 4), in 16 mini-batches of 12; 100 batches are 1,600 optimizer steps; "
        "a new reference every 40 of them (2.5 batches)"
    )
    assert list(changes_of(stage)) == ["from step 10 (160 optimizer steps): rollout.temperature = 0.5"]


@pytest.mark.parametrize("kind", ["sft", "reject"])
def test_other_kinds_have_no_such_batches(kind: str) -> None:
    assert batch_plan(recipe(stages=[{"name": "x", "kind": kind}]).stages[0]) == ""


def test_without_a_reference_none_is_refreshed() -> None:
    assert "reference" not in batch_plan(stage_of(kl_coef=0, reference_refresh_steps=40))
