"""Advantages against numbers worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.losses.advantage import Baseline, Scale, above_baseline, advantages, kl_penalised

fast = settings(max_examples=60, deadline=None, derandomize=True)
batches = st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.2, 1.0, 1.2]), min_size=2, max_size=6), min_size=1, max_size=4)

FIRST, SECOND = [1.0, 0.0, 0.5], [1.0, 1.0, 0.0]
"""Above their means: (1/2, −1/2, 0) and (1/3, 1/3, −2/3)."""
SIXTH = math.sqrt(1 / 6)
"""Deviation of the first group: its variance is (1/4 + 1/4 + 0)/3 = 1/6; of the second (1/9 + 1/9 + 4/9)/3 = 2/9."""
TOGETHER = math.sqrt((1 / 6 + 2 / 9) / 2)
"""Deviation of both groups together, of what is above and below their baselines: the variance is 7/36."""
ALL_REWARDS = math.sqrt(3.25 / 6 - (3.5 / 6) ** 2)
"""Deviation of the six rewards: their squares sum to 3.25, they to 3.5."""


def each(groups: list[list[float]], baseline: Baseline, scale: Scale) -> list[np.ndarray]:
    return advantages([np.array(group) for group in groups], baseline, scale)


@pytest.mark.parametrize(
    ("baseline", "scale", "expected"),
    [
        ("group_mean", "group_std", [0.5 / SIXTH, -0.5 / SIXTH, 0, math.sqrt(0.5), math.sqrt(0.5), -math.sqrt(2)]),
        ("group_mean", "none", [1 / 2, -1 / 2, 0, 1 / 3, 1 / 3, -2 / 3]),
        # 1 − (0 + 0.5)/2, 0 − (1 + 0.5)/2, 0.5 − (1 + 0)/2; 1 − (1 + 0)/2, the same, 0 − (1 + 1)/2
        ("leave_one_out", "none", [0.75, -0.75, 0, 0.5, 0.5, -1]),
        ("group_mean", "batch_std", [v / TOGETHER for v in (1 / 2, -1 / 2, 0, 1 / 3, 1 / 3, -2 / 3)]),
        ("group_mean", "batch_reward_std", [v / ALL_REWARDS for v in (1 / 2, -1 / 2, 0, 1 / 3, 1 / 3, -2 / 3)]),
        ("leave_one_out", "batch_std", [v / (1.5 * TOGETHER) for v in (0.75, -0.75, 0, 0.5, 0.5, -1)]),
    ],
)
def test_two_groups_by_hand(baseline: Baseline, scale: Scale, expected: list[float]) -> None:
    found = each([FIRST, SECOND], baseline, scale)
    assert [len(group) for group in found] == [3, 3]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["group_std", "batch_std", "batch_reward_std", "none"])
@pytest.mark.parametrize("rewards", [[0.1] * 3, [0.1 + 0.2] * 7, [-1e30] * 3, [1.0], []])
def test_equal_rewards_give_exact_zeros(rewards: list[float], baseline: Baseline, scale: Scale) -> None:
    alone, beside = each([rewards], baseline, scale), each([rewards, [0.0, 1.0]], baseline, scale)
    for found in (alone[0], beside[0]):
        assert found.shape == (len(rewards),)
        assert not found.any()
    assert beside[1].all()


@fast
@given(batches, st.sampled_from(["group_std", "batch_std", "batch_reward_std", "none"]))
def test_they_sum_to_zero_in_every_group_and_keep_the_order_of_the_rewards(
    groups: list[list[float]], scale: Scale
) -> None:
    for rewards, found in zip(groups, each(groups, "group_mean", scale), strict=True):
        assert abs(found.sum()) < 1e-9
        assert (np.argsort(found, kind="stable") == np.argsort(rewards, kind="stable")).all()


@fast
@given(batches)
def test_leave_one_out_is_the_mean_of_the_others_and_a_multiple_of_centring(groups: list[list[float]]) -> None:
    for rewards in map(np.array, groups):
        others = [(rewards.sum() - own) / (len(rewards) - 1) for own in rewards]
        found = above_baseline(rewards, "leave_one_out")
        np.testing.assert_allclose(found, rewards - others, atol=1e-12)
        factor = len(rewards) / (len(rewards) - 1)
        np.testing.assert_allclose(found, factor * above_baseline(rewards, "group_mean"), atol=1e-12)


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "batch_reward_std"])
def test_a_scale_takes_shift_and_unit_of_the_rewards_away(scale: Scale) -> None:
    groups = [list(np.random.default_rng(seed).normal(size=8)) for seed in range(3)]
    found = np.concatenate(each(groups, "group_mean", scale))
    moved = np.concatenate(each([[3 * r + 5 for r in group] for group in groups], "group_mean", scale))
    np.testing.assert_allclose(moved, found, atol=1e-12)
    if scale != "batch_reward_std":
        assert abs((found**2).mean() - 1) < 1e-12


def test_group_std_does_not_look_beyond_the_group() -> None:
    alone, beside = each([FIRST], "group_mean", "group_std"), each([FIRST, [0.0, 9.0]], "group_mean", "group_std")
    assert alone[0].tolist() == beside[0].tolist()


def test_whole_numbers_are_not_rounded() -> None:
    (found,) = advantages([np.array([1, 0])], "group_mean", "none")
    assert found.tolist() == [0.5, -0.5]


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "batch_reward_std", "none"])
def test_rewards_that_mean_the_same_are_no_signal(scale: Scale) -> None:
    """As a reward model computes them beside others of a batch; a group of its own decides, not the batch."""
    groups = [np.array([2.0, 2.0 + 3e-6, 2.0 - 3e-6]), np.array([2.0, 2.0 + 3e-6, 3.0])]
    tied, told = advantages(groups, "group_mean", scale, [1e-5, 1e-5])
    assert tied.tolist() == [0.0, 0.0, 0.0]
    assert told[2] > 0.5
    noise = advantages(groups, "group_mean", "group_std")[0]
    assert np.abs(noise).max() > 1.2


def test_the_kl_in_the_reward() -> None:
    found = kl_penalised(np.array([1, 0, 1]), np.array([2.0, 4.0, -1.0]), 0.25)
    assert found.tolist() == [0.5, -1.0, 1.25]
