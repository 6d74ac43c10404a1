"""The losses of preference pairs by hand, against finite differences, and DPO's on packs of a model, however they are cut."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.batch import TrainingSequence
from learner.losses.preferences import dpo_loss, implicit_rewards, pairwise_loss
from learner.losses.types import LossParts
from learner.model.policy import load_policy
from learner.model.small import build_model
from learner.stats import merge_figures
from tests.learner.loss_numbers import finite_difference, gradient, numbers, vector
from tests.learner.packs import packs_of
from tests.learner.specs import build_spec

# --- Reward models


def test_pairwise_loss_by_hand() -> None:
    # margins log 3 and −log 2: −½ log σ(log 3) − ½ log σ(−log 2) = ½ log(4/3) + ½ log 3
    scores = vector(math.log(3), 0, 1, 1 + math.log(2))
    parts = pairwise_loss(scores, vector(0.25, 0.25, 0.25, 0.25))
    assert parts.loss.item() == pytest.approx(0.5 * math.log(4 / 3) + 0.5 * math.log(3), abs=1e-14)
    assert numbers(parts) == pytest.approx({"count": 2, "ordered": 1, "margin": math.log(3) - math.log(2)})
    # −w (1 − σ(margin)) for the chosen, the opposite for the rejected
    slopes = gradient(lambda x: pairwise_loss(x, vector(0.25, 0.25, 0.25, 0.25)).loss, scores)
    torch.testing.assert_close(slopes, vector(-1 / 8, 1 / 8, -1 / 3, 1 / 3), rtol=0, atol=1e-14)


def test_pairwise_loss_does_not_see_a_shift_of_all_scores_and_equals_finite_differences() -> None:
    scores, weights = vector(0.3, -0.2, 1.5, 2.5, -1, -1), vector(0.2, 0.1, 0.3, 0.2, 0.1, 0.1)

    def function(x: Tensor) -> Tensor:
        return pairwise_loss(x, weights).loss

    torch.testing.assert_close(function(scores + 7), function(scores))
    torch.testing.assert_close(gradient(function, scores), finite_difference(function, scores), rtol=1e-6, atol=1e-9)


def test_a_pair_of_weight_zero_counts_nowhere() -> None:
    parts = pairwise_loss(vector(5, 0), vector(0, 0))
    assert parts.loss.item() == 0
    assert set(numbers(parts).values()) == {0.0}


# --- DPO

BETA = 0.5
SEGMENTS = torch.tensor([0, 0, 1, 2, 3, 3])
REFERENCE = vector(-1.0, -2.0, -1.0, -3.0, -0.5, -0.5)
# β times the sums over each completion: log 3 + 1 and 1, so the first margin is log 3; 0 and log 2, so the second is −log 2.
NOW = REFERENCE + vector(math.log(3), 1 + math.log(1.5), 1, 0, math.log(2), 0) / BETA
NOW[1] -= math.log(1.5) / BETA
WEIGHTS = vector(1, 1, 2, 2, 1, 1) / 8
"""Half for each pair."""


def loss_of(logprobs: Tensor = NOW, **changes: float) -> LossParts:
    return dpo_loss(logprobs, REFERENCE, SEGMENTS, WEIGHTS, **({"beta": BETA} | changes))


def test_dpo_loss_by_hand() -> None:
    parts = loss_of()
    assert parts.loss.item() == pytest.approx(0.5 * math.log(4 / 3) + 0.5 * math.log(3), abs=1e-14)
    assert numbers(parts) == pytest.approx(
        {
            "count": 2,
            "ordered": 1,
            "margin": math.log(3) - math.log(2),
            "chosen_reward": math.log(3) + 1,
            "rejected_reward": 1 + math.log(2),
        }
    )
    rewards = implicit_rewards(NOW, REFERENCE, SEGMENTS, BETA)
    torch.testing.assert_close(rewards, vector(math.log(3) + 1, 1, 0, math.log(2), 0, 0))


def test_slopes_are_those_of_the_paper_and_of_finite_differences() -> None:
    # −w β σ(−margin) at every token of a chosen completion, the opposite at those of a rejected one (section 4).
    slopes = gradient(lambda x: loss_of(x).loss, NOW)
    first, second = 0.5 * BETA / 4, 0.5 * BETA * 2 / 3
    torch.testing.assert_close(slopes, vector(-first, -first, first, -second, second, second), rtol=0, atol=1e-14)
    for smoothing in (0.0, 0.2):

        def function(x: Tensor, smoothing: float = smoothing) -> Tensor:
            return loss_of(x, label_smoothing=smoothing).loss

        torch.testing.assert_close(gradient(function, NOW), finite_difference(function, NOW), rtol=1e-6, atol=1e-9)


def test_smoothed_labels_are_a_mixture_of_both_orders() -> None:
    swapped = dpo_loss(
        NOW[[2, 0, 1, 4, 5, 3]],
        REFERENCE[[2, 0, 1, 4, 5, 3]],
        torch.tensor([0, 1, 1, 2, 2, 3]),
        vector(2, 1, 1, 1, 1, 2) / 8,
        beta=BETA,
    )
    expected = 0.9 * loss_of().loss + 0.1 * swapped.loss
    torch.testing.assert_close(loss_of(label_smoothing=0.1).loss, expected, rtol=1e-14, atol=0)
    # Their minimum is not at an infinite margin but where σ(margin) = 1 − ε.
    best = REFERENCE + vector(math.log(9), 0, 0, math.log(9), 0, 0) / BETA
    slopes = gradient(lambda x: loss_of(x, label_smoothing=0.1).loss, best)
    torch.testing.assert_close(slopes, torch.zeros_like(slopes), rtol=0, atol=1e-15)


def test_where_the_policy_is_the_reference_the_loss_is_log_2() -> None:
    parts = loss_of(REFERENCE)
    assert parts.loss.item() == pytest.approx(math.log(2), abs=1e-15)
    assert parts.figures["ordered"] == 1  # of two: each counts one half


def test_an_empty_pack_counts_nowhere() -> None:
    logprobs = torch.tensor([-200.0, -3.0], requires_grad=True)
    parts = dpo_loss(logprobs, torch.zeros(2), torch.tensor([0, 1]), torch.zeros(2), beta=1.0)
    parts.loss.backward()
    assert parts.loss.item() == 0
    assert not logprobs.grad.any()
    assert {value.item() for value in parts.figures.values()} == {0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("model")
    build_model(build_spec(), iter(()), path)
    return str(path)


def test_loss_gradient_and_figures_do_not_depend_on_packs_and_ranks(folder: str) -> None:
    policy = load_policy(folder, torch.float64, trust_remote_code=False, logit_chunk_tokens=1000)
    rng = np.random.default_rng(0)
    sequences = []
    for _ in range(6):
        prompt = rng.integers(3, 100, size=rng.integers(2, 12))
        for _ in range(2):
            response = rng.integers(3, 100, size=rng.integers(1, 15))
            sequences.append(TrainingSequence(token_ids=np.concatenate([prompt, response]), first_target=len(prompt)))

    def total(**how: int) -> tuple[float, Tensor, dict[str, float]]:
        policy.zero_grad()
        loss, figures = 0.0, []
        for pack in packs_of(sequences, together=2, **how):
            logprobs = policy(pack, 1.0)[0].double()
            # A reference that differs by token, and is the same function of the token in every cut.
            reference = logprobs.detach() + 0.1 * torch.sin(pack.targets.double())
            parts = dpo_loss(logprobs, reference, pack.segments, pack.weights, beta=2.0, label_smoothing=0.1)
            parts.loss.backward()
            loss += parts.loss.item()
            figures.append(numbers(parts))
        return loss, policy.model.base_model.layers[0].mlp.up_proj.weight.grad.clone(), merge_figures(figures)

    loss, slopes, figures = total()
    assert slopes.abs().max() > 1e-4
    assert figures["count"] == 6
    for how in ({"budget": 1}, {"budget": 50, "ranks": 2, "seed": 3}, {"ranks": 8, "seed": 1}):
        other = total(**how)
        assert other[0] == pytest.approx(loss, abs=1e-6)
        torch.testing.assert_close(other[1], slopes, rtol=1e-4, atol=1e-6)
        assert other[2] == pytest.approx(figures, abs=1e-5)
