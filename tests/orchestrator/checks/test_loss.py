"""Notes about losses that are legal and probably not meant."""

from typing import Any

import pytest

from orchestrator.checks.loss import check_loss
from rollout.errors import InputError
from tests.orchestrator.factories import recipe


def notes(kind: str = "grpo", **settings: Any) -> list[str]:
    checked = recipe(learner=settings, stages=[{"name": "s", "kind": kind}])
    return check_loss(checked, checked.stages[0])


@pytest.mark.parametrize(
    ("settings", "starts"),
    [
        ({"kl_estimator": "k1"}, "learner.kl_estimator = "),
        ({"kl_in": "reward"}, "learner.kl_in = "),
        ({"kl_coef": 0, "reference_refresh_steps": 400}, "learner.reference_refresh_steps does nothing"),
        ({"policy_loss": "gspo"}, "learner.policy_loss = "),
        (
            {"policy_loss": "gspo", "clip_low": 3e-4, "clip_high": 4e-4, "length_norm": "token"},
            "learner.length_norm = ",
        ),
    ],
)
def test_one_note_that_names_the_key(settings: dict[str, Any], starts: str) -> None:
    (note,) = notes(**settings)
    assert note.startswith(starts)
    assert notes("sft", **settings) == []


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kl_estimator": "k1", "kl_coef": 0},
        {"kl_estimator": "k1", "kl_in": "reward", "advantage_scale": "batch_std"},
        {"kl_in": "reward", "kl_coef": 0},
        {"policy_loss": "gspo", "clip_low": 3e-4, "clip_high": 4e-4},
        {"reference_refresh_steps": 400},
    ],
)
def test_what_is_meant_has_no_note(settings: dict[str, Any]) -> None:
    assert notes(**settings) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dual_clip": 1}, "give more than 1"),
        ({"dual_clip": 3, "policy_loss": "cispo"}, "set it to 0"),
        ({"importance_mode": "mask", "importance_floor": 1.5}, "drops even the weight 1"),
        ({"importance_mode": "mask", "importance_cap": 0.9}, "drops even the weight 1"),
        ({"kl_estimator": "k4"}, "'k1', 'k2' or 'k3'"),
    ],
)
def test_what_contradicts_itself_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        recipe(learner=settings)
    assert "learner" in str(caught.value)
    assert "\n" not in str(caught.value)
