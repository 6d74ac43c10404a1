"""The learning rate at the steps that matter."""

from itertools import pairwise

import pytest

from learner.learning_rate import learning_rate


def rates(steps: range, **changes: object) -> list[float]:
    settings = {"peak": 2.0, "warmup_steps": 4, "total_steps": 14, "schedule": "constant"} | changes
    return [learning_rate(step, **settings) for step in steps]


def test_warm_up_is_linear_and_never_zero() -> None:
    assert rates(range(6)) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert rates(range(4), schedule="cosine") == [0.5, 1.0, 1.5, 2.0]


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates(range(2), warmup_steps=0) == [2.0, 2.0]
    assert rates(range(1), warmup_steps=0, schedule="cosine") == [2.0]


def test_cosine_falls_to_a_tenth() -> None:
    values = rates(range(4, 40), schedule="cosine")
    assert values[0] == 2.0
    assert values[5] == pytest.approx(0.2 + 1.8 / 2)  # half way
    assert values[10:] == pytest.approx([0.2] * 26)  # from `total_steps` on
    assert all(left > right for left, right in pairwise(values[:11]))


def test_a_warm_up_as_long_as_the_stage_is_no_division_by_zero() -> None:
    assert rates(range(14), warmup_steps=14, schedule="cosine")[-1] == 2.0
    assert rates(range(15, 16), warmup_steps=14, schedule="cosine")[0] == pytest.approx(0.2)
