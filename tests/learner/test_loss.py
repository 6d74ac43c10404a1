"""The losses against numbers worked by hand and against finite differences, in float64.

The example of most tests: two groups of three completions, a = √1.5, b = √0.5.

    group    reward  advantage  tokens with ρ = π/π_old             min(ρA, clip(ρ)A), clip to [0.8, 1.3]
    first    1       a          1.5                                 1.3a  clipped
             0       −a         0.5, 1.5                            −0.8a clipped, −1.5a
             0.5     0          2.0                                 0
    second   1       b          1.0, 0.5                            b, 0.5b
             1       b          1.2                                 1.2b
             0       −2b        0.9                                 −1.8b

With length_norm = sequence and S = 6, a token of a completion of one token weighs 1/6, of two tokens 1/12.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from learner.loss import clipped_surrogate, grpo_loss, importance_weights, kl_to_reference, sft_loss

A, B = math.sqrt(1.5), math.sqrt(0.5)
LOW, HIGH = 0.2, 0.3


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


ADVANTAGES = vector(A, -A, -A, 0, B, B, B, -2 * B)
RATIO = vector(1.5, 0.5, 1.5, 2.0, 1.0, 0.5, 1.2, 0.9)
TERMS = vector(1.3 * A, -0.8 * A, -1.5 * A, 0, B, 0.5 * B, 1.2 * B, -1.8 * B)
BOUND = [True, True, False, False, False, False, False, False]
WEIGHTS = vector(2, 1, 1, 2, 1, 1, 2, 2) / 12
OLD = vector(-1.0, -0.5, -2.0, -0.7, -1.2, -0.3, -2.5, -0.9)
NOW = OLD + RATIO.log()
MISMATCH = vector(1, 3, 0.5, 1, 4, 1, 1, 1)
"""π_old / π_sampler: the second and the fifth are cut to 2."""
SAMPLED = OLD - MISMATCH.log()
REFERENCE = NOW + vector(2, 0.5, 1, 1, 1, 1, 1, 1).log()


def grpo(
    logprobs: Tensor = NOW, reference: Tensor | None = None, *, kl_coef: float = 0.0, cap: float = 0.0, **_: float
):
    return grpo_loss(
        logprobs,
        OLD,
        SAMPLED,
        reference,
        ADVANTAGES,
        WEIGHTS,
        clip_low=LOW,
        clip_high=HIGH,
        kl_coef=kl_coef,
        importance_cap=cap,
    )


def finite_difference(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of a scalar function."""
    slopes = torch.zeros_like(at)
    for i in range(len(at)):
        shift = torch.zeros_like(at)
        shift[i] = step
        slopes[i] = (function(at + shift) - function(at - shift)) / (2 * step)
    return slopes


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(function(at), at)
    return slopes


# --- Surrogate


def test_the_surrogate_by_hand() -> None:
    terms, clipped = clipped_surrogate(NOW, OLD, ADVANTAGES, LOW, HIGH)
    torch.testing.assert_close(terms, TERMS, rtol=0, atol=1e-14)
    assert clipped.tolist() == BOUND


def test_a_clipped_token_has_no_gradient_and_others_have_ratio_times_advantage() -> None:
    slopes = gradient(lambda x: clipped_surrogate(x, OLD, ADVANTAGES, LOW, HIGH)[0].sum(), NOW)
    expected = torch.where(torch.tensor(BOUND), torch.zeros(8, dtype=torch.float64), RATIO * ADVANTAGES)
    torch.testing.assert_close(slopes, expected, rtol=0, atol=1e-14)
    assert slopes[0] == 0
    assert slopes[1] == 0


def test_on_policy_the_gradient_is_reinforce() -> None:
    slopes = gradient(lambda x: clipped_surrogate(x, x.detach(), ADVANTAGES, LOW, HIGH)[0].sum(), NOW)
    torch.testing.assert_close(slopes, ADVANTAGES, rtol=0, atol=0)


# --- KL


def test_kl_by_hand() -> None:
    # r = 2: 2 − log 2 − 1; r = 1/2: 1/2 + log 2 − 1; r = 1: 0
    values = kl_to_reference(vector(-1, -1, -1), vector(-1, -1, -1) + vector(2, 0.5, 1).log())
    torch.testing.assert_close(values, vector(1 - math.log(2), math.log(2) - 0.5, 0), rtol=0, atol=1e-15)


def test_kl_is_never_negative_and_zero_only_where_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    current = -5 * torch.rand(1000, generator=generator, dtype=torch.float64)
    reference = -5 * torch.rand(1000, generator=generator, dtype=torch.float64)
    assert (kl_to_reference(current, reference) > 0).all()
    assert (kl_to_reference(current, current) == 0).all()


def test_the_expectation_of_the_kl_estimate_is_the_kl() -> None:
    policy, reference = vector(0.5, 0.3, 0.2), vector(0.1, 0.3, 0.6)
    expected = (policy * (policy / reference).log()).sum()
    estimate = (policy * kl_to_reference(policy.log(), reference.log())).sum()
    torch.testing.assert_close(estimate, expected, rtol=0, atol=1e-15)


# --- Importance


def test_importance_is_cut_above_only() -> None:
    torch.testing.assert_close(importance_weights(OLD, SAMPLED, 2.0), vector(1, 2, 0.5, 1, 2, 1, 1, 1))


def test_importance_zero_is_off() -> None:
    assert importance_weights(OLD, SAMPLED, 0).tolist() == [1.0] * 8
    assert importance_weights(OLD, OLD, 2.0).tolist() == [1.0] * 8


def test_importance_is_a_constant_of_the_gradient() -> None:
    assert not importance_weights(OLD.clone().requires_grad_(), SAMPLED, 2.0).requires_grad


# --- GRPO


def test_grpo_loss_by_hand() -> None:
    # −[1.3a/6 − (0.8 + 1.5)a/12 + (1 + 0.5)b/12 + 1.2b/6 − 1.8b/6]
    #  = −[(2.6 − 2.3)a + (1.5 + 2.4 − 3.6)b]/12 = −0.3 (a + b)/12
    assert grpo().loss.item() == pytest.approx(-0.3 * (A + B) / 12, abs=1e-14)


def test_grpo_loss_with_importance_by_hand() -> None:
    # c = (1, 2, ½, 1, 2, 1, 1, 1):
    # −[(2.6 − 2·0.8 − ½·1.5)a + (2·1 + 0.5 + 2.4 − 3.6)b]/12 = −(0.25a + 1.3b)/12
    assert grpo(cap=2.0).loss.item() == pytest.approx(-(0.25 * A + 1.3 * B) / 12, abs=1e-14)


def test_grpo_loss_with_kl_by_hand() -> None:
    # the first token, weight 2/12, has r = 2; the second, weight 1/12, has r = ½; the KL has no importance weight
    kl = (2 * (1 - math.log(2)) + (math.log(2) - 0.5)) / 12
    expected = -(0.25 * A + 1.3 * B) / 12 + 0.4 * kl
    assert grpo(NOW, REFERENCE, kl_coef=0.4, cap=2.0).loss.item() == pytest.approx(expected, abs=1e-14)


def test_grpo_stats_by_hand() -> None:
    stats = grpo(NOW, REFERENCE, kl_coef=0.4, cap=2.0).stats
    # the sampler's KL with r = π_old/π_sampler: 3 − log 3 − 1, ½ + log 2 − 1, 4 − log 4 − 1
    mismatch = (2 - math.log(3)) + (math.log(2) - 0.5) + (3 - math.log(4))
    assert stats == pytest.approx(
        {
            "tokens": 8,
            "clipped": 2,
            "importance": 1 + 2 + 0.5 + 1 + 2 + 3,
            "capped": 2,
            "mismatch_kl": mismatch,
            "mismatch_max": math.log(4),
            "ratio": 1.5 + 0.5 + 1.5 + 2 + 1 + 0.5 + 1.2 + 0.9,
            "kl": (1 - math.log(2)) + (math.log(2) - 0.5),
        },
        abs=1e-12,
    )
    assert "kl" not in grpo().stats
    assert grpo(cap=0).stats["capped"] == 0


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
@pytest.mark.parametrize("cap", [0.0, 2.0])
def test_grpo_gradient_equals_finite_differences(kl_coef: float, cap: float) -> None:
    reference = SAMPLED - 0.2 if kl_coef else None

    def function(logprobs: Tensor) -> Tensor:
        return grpo(logprobs, reference, kl_coef=kl_coef, cap=cap).loss

    torch.testing.assert_close(gradient(function, NOW), finite_difference(function, NOW), rtol=1e-7, atol=1e-9)
    assert torch.autograd.gradcheck(function, NOW.clone().requires_grad_())


def test_grpo_gradient_by_hand() -> None:
    # −w c ρ A where the clip does not bind, and β w (1 − r) of the KL
    slopes = gradient(lambda x: grpo(x, REFERENCE, kl_coef=0.4, cap=2.0).loss, NOW)
    capped = vector(1, 2, 0.5, 1, 2, 1, 1, 1)
    free = vector(0, 0, 1, 1, 1, 1, 1, 1)
    pull = 1 - vector(2, 0.5, 1, 1, 1, 1, 1, 1)
    torch.testing.assert_close(slopes, WEIGHTS * (-capped * free * RATIO * ADVANTAGES + 0.4 * pull), rtol=0, atol=1e-14)


def test_a_step_down_the_gradient_raises_good_tokens_and_lowers_bad_ones() -> None:
    def on_policy(x: Tensor) -> Tensor:
        keywords = {"clip_low": LOW, "clip_high": HIGH, "kl_coef": 0.0, "importance_cap": 0.0}
        return grpo_loss(x, x.detach(), x.detach(), None, ADVANTAGES, WEIGHTS, **keywords).loss

    assert (torch.sign(-gradient(on_policy, NOW)) == torch.sign(ADVANTAGES)).all()


def test_cutting_into_micro_batches_does_not_change_loss_or_stats() -> None:
    def part(cut: slice):
        return grpo_loss(
            NOW[cut],
            OLD[cut],
            SAMPLED[cut],
            REFERENCE[cut],
            ADVANTAGES[cut],
            WEIGHTS[cut],
            clip_low=LOW,
            clip_high=HIGH,
            kl_coef=0.4,
            importance_cap=2.0,
        )

    whole, parts = part(slice(None)), [part(slice(0, 3)), part(slice(3, 4)), part(slice(4, 8))]
    assert sum(p.loss for p in parts).item() == pytest.approx(whole.loss.item(), abs=1e-15)
    for name in whole.stats.keys() - {"mismatch_max"}:
        assert sum(p.stats[name] for p in parts) == pytest.approx(whole.stats[name], abs=1e-12)
    assert max(p.stats["mismatch_max"] for p in parts) == whole.stats["mismatch_max"]


def test_a_token_of_weight_zero_counts_nowhere_however_unlikely_it_is() -> None:
    # The empty pack of a rank without work: the sampler "said" 0, the model may say anything.
    logprobs = torch.tensor([-200.0], requires_grad=True)
    one = torch.zeros(1)
    keywords = {"clip_low": LOW, "clip_high": HIGH, "kl_coef": 0.1, "importance_cap": 2.0}
    parts = grpo_loss(logprobs, logprobs.detach(), one, logprobs.detach(), one, one, **keywords)
    parts.loss.backward()
    assert parts.loss.item() == 0
    assert logprobs.grad is not None
    assert logprobs.grad.item() == 0
    assert set(parts.stats.values()) == {0.0}


# --- SFT


def test_sft_loss_by_hand() -> None:
    logprobs = vector(-1, -2, -4).requires_grad_()
    parts = sft_loss(logprobs, vector(0.5, 0.25, 0))
    assert parts.loss.item() == 0.5 * 1 + 0.25 * 2
    assert parts.stats == {"tokens": 2, "nll": 3}
    parts.loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-0.5, -0.25, 0]
    assert torch.autograd.gradcheck(lambda x: sft_loss(x, WEIGHTS).loss, NOW.clone().requires_grad_())
