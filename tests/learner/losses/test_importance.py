"""Weights that correct the sampler towards the learner, by hand: three completions of two, one and three tokens."""

import pytest
import torch

from learner.losses.importance import importance_ratio, importance_weights
from learner.spec import ImportanceLevel, ImportanceMode
from tests.learner.loss_numbers import vector

SEGMENTS = torch.tensor([0, 0, 1, 2, 2, 2])
RATIO = vector(2, 0.5, 3, 0.25, 4, 8)
SAMPLED = vector(-1, -2, -0.5, -3, -1, -2)
OLD = SAMPLED + RATIO.log()


@pytest.mark.parametrize(
    ("level", "expected"),
    [("token", (2, 0.5, 3, 0.25, 4, 8)), ("sequence", (1, 1, 3, 8, 8, 8)), ("geometric", (1, 1, 3, 2, 2, 2))],
)
def test_the_levels(level: ImportanceLevel, expected: tuple[float, ...]) -> None:
    torch.testing.assert_close(importance_ratio(OLD, SAMPLED, SEGMENTS, level), vector(*expected))


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
def test_a_ratio_is_a_constant_of_the_gradient_and_one_for_an_exact_sampler(level: ImportanceLevel) -> None:
    old = OLD.clone().requires_grad_()
    assert not importance_ratio(old, SAMPLED, SEGMENTS, level).requires_grad
    assert importance_ratio(OLD, OLD, SEGMENTS, level).tolist() == [1.0] * 6


@pytest.mark.parametrize(
    ("mode", "weights", "bound"),
    [
        ("truncate", (2, 0.5, 2.5, 0.25, 2.5, 2.5), (0, 0, 1, 0, 1, 1)),
        ("mask", (2, 0.5, 0, 0, 0, 0), (0, 0, 1, 1, 1, 1)),
    ],
)
def test_the_modes(mode: ImportanceMode, weights: tuple[float, ...], bound: tuple[int, ...]) -> None:
    found = importance_weights(RATIO, mode, floor=0.5, cap=2.5)
    assert found.weights.tolist() == list(weights)
    assert found.bound.tolist() == [bool(each) for each in bound]


@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_a_cap_of_zero_is_no_correction(mode: ImportanceMode) -> None:
    found = importance_weights(RATIO, mode, floor=0.5, cap=0)
    assert found.weights.tolist() == [1.0] * 6
    assert not found.bound.any()


@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_a_product_beyond_what_floats_hold_is_still_bound(mode: ImportanceMode) -> None:
    ratio = importance_ratio(torch.zeros(40), torch.full((40,), -5.0), torch.zeros(40, dtype=torch.int64), "sequence")
    assert ratio.isinf().all()
    expected = 2.0 if mode == "truncate" else 0.0
    assert importance_weights(ratio, mode, floor=0.5, cap=2.0).weights.tolist() == [expected] * 40
