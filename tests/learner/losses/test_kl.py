"""The estimators of the KL, their expectations and the expectations of their gradients."""

import math

import pytest
import torch
from torch import Tensor

from learner.losses.kl import kl_estimate
from learner.spec import KlEstimator
from tests.learner.loss_numbers import finite_difference, gradient, vector

ESTIMATORS: tuple[KlEstimator, ...] = ("k1", "k2", "k3")
LOG2 = math.log(2)
REFERENCE = vector(0.1, 0.3, 0.6)
LOGITS = vector(0.5, -0.2, -0.4)
"""Logits of a policy over three tokens."""


def divergence(left: Tensor, right: Tensor) -> Tensor:
    """KL(left ‖ right) of two distributions."""
    return (left * (left / right).log()).sum()


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        # r = 2, ½ and 1
        ("k1", (-LOG2, LOG2, 0)),
        ("k2", (LOG2**2 / 2, LOG2**2 / 2, 0)),
        ("k3", (1 - LOG2, LOG2 - 0.5, 0)),
    ],
)
def test_by_hand(estimator: KlEstimator, expected: tuple[float, ...]) -> None:
    now = vector(-1, -1, -1)
    values = kl_estimate(now, now + vector(2, 0.5, 1).log(), estimator)
    torch.testing.assert_close(values, vector(*expected), rtol=0, atol=1e-15)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_never_negative_and_zero_only_where_equal(estimator: KlEstimator) -> None:
    generator = torch.Generator().manual_seed(0)
    current = -5 * torch.rand(1000, generator=generator, dtype=torch.float64)
    reference = -5 * torch.rand(1000, generator=generator, dtype=torch.float64)
    assert (kl_estimate(current, reference, estimator) > 0).all()
    assert (kl_estimate(current, current, estimator) == 0).all()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_expectation_of_k1_and_k3_is_the_kl(estimator: KlEstimator) -> None:
    policy = torch.softmax(LOGITS, -1)
    mean = (policy * kl_estimate(policy.log(), REFERENCE.log(), estimator)).sum()
    torch.testing.assert_close(mean, divergence(policy, REFERENCE), rtol=0, atol=1e-15)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_the_expected_gradient_of_a_loss_term_is(estimator: KlEstimator) -> None:
    # As in training: the tokens are drawn once, the gradient goes through their logprobs alone.
    drawn = torch.softmax(LOGITS, -1)
    found = gradient(
        lambda x: (drawn * kl_estimate(torch.log_softmax(x, -1), REFERENCE.log(), estimator)).sum(), LOGITS
    )
    true = {
        "k1": torch.zeros(3, dtype=torch.float64),
        "k2": gradient(lambda x: divergence(torch.softmax(x, -1), REFERENCE), LOGITS),
        "k3": gradient(lambda x: divergence(REFERENCE, torch.softmax(x, -1)), LOGITS),
    }
    torch.testing.assert_close(found, true[estimator], rtol=0, atol=1e-15)
    assert true["k2"].abs().min() > 0.01
    assert (true["k2"] - true["k3"]).abs().max() > 0.01


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradient_equals_finite_differences(estimator: KlEstimator) -> None:
    now, reference = vector(-1, -0.5, -2), vector(-1.7, -0.1, -2.5)

    def function(x: Tensor) -> Tensor:
        return kl_estimate(x, reference, estimator).sum()

    torch.testing.assert_close(gradient(function, now), finite_difference(function, now), rtol=1e-7, atol=1e-9)
