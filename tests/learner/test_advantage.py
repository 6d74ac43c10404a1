"""Advantages against numbers worked by hand."""

import math

import numpy as np
import pytest

from learner.advantage import group_advantages


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        # mean 1/2, deviations (1/2, −1/2, 0), variance (1/4 + 1/4 + 0)/3 = 1/6
        ([1.0, 0.0, 0.5], [0.5 * math.sqrt(6), -0.5 * math.sqrt(6), 0.0]),
        # mean 2/3, deviations (1/3, 1/3, −2/3), variance (1/9 + 1/9 + 4/9)/3 = 2/9
        ([1.0, 1.0, 0.0], [math.sqrt(0.5), math.sqrt(0.5), -math.sqrt(2)]),
    ],
)
def test_grpo_divides_by_the_population_deviation(rewards: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(group_advantages(np.array(rewards), True), expected, rtol=0, atol=1e-15)


def test_dr_grpo_only_centres() -> None:
    np.testing.assert_allclose(group_advantages(np.array([1.0, 1.0, 0.0]), False), [1 / 3, 1 / 3, -2 / 3], atol=1e-15)


@pytest.mark.parametrize("normalize_std", [True, False])
@pytest.mark.parametrize("rewards", [[0.1] * 3, [0.1 + 0.2] * 7, [-1e30] * 3, [1.0], []])
def test_equal_rewards_give_exact_zeros(rewards: list[float], normalize_std: bool) -> None:
    advantages = group_advantages(np.array(rewards), normalize_std)
    assert advantages.shape == (len(rewards),)
    assert not advantages.any()


def test_they_sum_to_zero_and_ignore_shift_and_scale() -> None:
    rewards = np.random.default_rng(0).normal(size=8)
    advantages = group_advantages(rewards, True)
    assert abs(advantages.sum()) < 1e-12
    assert abs((advantages**2).mean() - 1) < 1e-12
    np.testing.assert_allclose(group_advantages(3 * rewards + 5, True), advantages, atol=1e-12)


def test_whole_numbers_are_not_rounded() -> None:
    np.testing.assert_allclose(group_advantages(np.array([1, 0]), False), [0.5, -0.5])
