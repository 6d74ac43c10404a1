"""The loss of reinforcement learning against numbers worked by hand and against finite differences, in float64.

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
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.losses.policy import clipped_surrogate, policy_loss
from learner.losses.types import Tokens
from learner.spec import LossSpec
from learner.stats import merge_figures
from tests.learner.loss_numbers import finite_difference, gradient, loss_spec, numbers, vector

A, B = math.sqrt(1.5), math.sqrt(0.5)
LOW, HIGH = 0.2, 0.3

ADVANTAGES = vector(A, -A, -A, 0, B, B, B, -2 * B)
RATIO = vector(1.5, 0.5, 1.5, 2.0, 1.0, 0.5, 1.2, 0.9)
TERMS = vector(1.3 * A, -0.8 * A, -1.5 * A, 0, B, 0.5 * B, 1.2 * B, -1.8 * B)
BOUND = [True, True, False, False, False, False, False, False]
WEIGHTS = vector(2, 1, 1, 2, 1, 1, 2, 2) / 12
SEGMENTS = torch.tensor([0, 1, 1, 2, 3, 3, 4, 5])
OLD = vector(-1.0, -0.5, -2.0, -0.7, -1.2, -0.3, -2.5, -0.9)
NOW = OLD + RATIO.log()
MISMATCH = vector(1, 3, 0.5, 1, 4, 1, 1, 1)
"""π_old / π_sampler: the second and the fifth are above 2."""
CUT = vector(1, 2, 0.5, 1, 2, 1, 1, 1)
SAMPLED = OLD - MISMATCH.log()
REFERENCE = NOW + vector(2, 0.5, 1, 1, 1, 1, 1, 1).log()
ENTROPIES = vector(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
EXAMPLE = Tokens(
    logprobs=NOW,
    old_logprobs=OLD,
    rollout_logprobs=SAMPLED,
    ref_logprobs=None,
    entropies=ENTROPIES,
    advantages=ADVANTAGES,
    weights=WEIGHTS,
    segments=SEGMENTS,
)
PULLED = replace(EXAMPLE, ref_logprobs=REFERENCE)
"""With a reference."""


def loss_of(tokens: Tokens = EXAMPLE, **changes: Any) -> float:
    return policy_loss(tokens, loss_spec(**changes)).loss.item()


def slopes_of(tokens: Tokens = EXAMPLE, spec: LossSpec | None = None, **changes: Any) -> Tensor:
    """Gradient with respect to the logprobs."""
    spec = spec or loss_spec(**changes)
    return gradient(lambda x: policy_loss(replace(tokens, logprobs=x), spec).loss, tokens.logprobs)


# --- The clipped surrogate: GRPO and DAPO


def test_the_surrogate_by_hand() -> None:
    found = clipped_surrogate(RATIO, ADVANTAGES, LOW, HIGH)
    torch.testing.assert_close(found.values, TERMS, rtol=0, atol=1e-14)
    assert (found.low | found.high).tolist() == BOUND
    assert found.high.tolist() == [True] + [False] * 7


def test_a_clipped_token_has_no_gradient_and_others_have_ratio_times_advantage() -> None:
    slopes = slopes_of()
    free = vector(0, 0, 1, 1, 1, 1, 1, 1)
    torch.testing.assert_close(slopes, -WEIGHTS * free * RATIO * ADVANTAGES, rtol=0, atol=1e-14)
    assert slopes[0] == 0
    assert slopes[1] == 0


def test_loss_by_hand() -> None:
    # −[1.3a/6 − (0.8 + 1.5)a/12 + (1 + 0.5)b/12 + 1.2b/6 − 1.8b/6]
    #  = −[(2.6 − 2.3)a + (1.5 + 2.4 − 3.6)b]/12 = −0.3 (a + b)/12
    assert loss_of() == pytest.approx(-0.3 * (A + B) / 12, abs=1e-14)


def test_loss_with_importance_by_hand() -> None:
    # c = (1, 2, ½, 1, 2, 1, 1, 1):
    # −[(2.6 − 2·0.8 − ½·1.5)a + (2·1 + 0.5 + 2.4 − 3.6)b]/12 = −(0.25a + 1.3b)/12
    assert loss_of(importance_cap=2.0) == pytest.approx(-(0.25 * A + 1.3 * B) / 12, abs=1e-14)


def test_loss_with_masked_importance_by_hand() -> None:
    # 3 and 4 are dropped, ½ stays: −[(2.6 − ½·1.5)a + (0.5 + 2.4 − 3.6)b]/12
    found = policy_loss(EXAMPLE, loss_spec(importance_cap=2.0, importance_mode="mask", importance_floor=0.4))
    assert found.loss.item() == pytest.approx(-(1.85 * A - 0.7 * B) / 12, abs=1e-14)
    assert found.figures["importance_bound"] == 2
    assert found.figures["effective"] == 5  # of eight tokens two are dropped and one has no advantage


def test_loss_with_sequence_importance_by_hand() -> None:
    # completions have 1, 3·½, 1, 4·1, 1, 1; cut at 2: −[(2.6 − 1.5·2.3)a + (2·1.5 + 2.4 − 3.6)b]/12
    found = loss_of(importance_cap=2.0, importance_level="sequence")
    assert found == pytest.approx(-(-0.85 * A + 1.8 * B) / 12, abs=1e-14)


def test_loss_with_kl_by_hand() -> None:
    # the first token, weight 2/12, has r = 2; the second, weight 1/12, has r = ½; the KL has no importance weight
    kl = (2 * (1 - math.log(2)) + (math.log(2) - 0.5)) / 12
    found = policy_loss(PULLED, loss_spec(kl_coef=0.4, importance_cap=2.0))
    assert found.loss.item() == pytest.approx(-(0.25 * A + 1.3 * B) / 12 + 0.4 * kl, abs=1e-14)
    assert found.parts["kl"].item() == pytest.approx(0.4 * kl, abs=1e-14)


def test_loss_with_entropy_by_hand() -> None:
    # (2·0.1 + 0.2 + 0.3 + 2·0.4 + 0.5 + 0.6 + 2·0.7 + 2·0.8)/12 = 5.6/12
    found = policy_loss(EXAMPLE, loss_spec(entropy_coef=0.3))
    assert found.parts["entropy"].item() == pytest.approx(-0.3 * 5.6 / 12, abs=1e-14)
    assert found.loss.item() == pytest.approx(-0.3 * (A + B) / 12 - 0.3 * 5.6 / 12, abs=1e-14)


def test_figures_by_hand() -> None:
    # the sampler's KL with r = π_old/π_sampler: 3 − log 3 − 1, ½ + log 2 − 1, 4 − log 4 − 1
    mismatch = (2 - math.log(3)) + (math.log(2) - 0.5) + (3 - math.log(4))
    found = policy_loss(PULLED, loss_spec(kl_coef=0.4, importance_cap=2.0))
    assert numbers(found) == pytest.approx(
        {
            "count": 8,
            "entropy": 3.6,
            "ratio": 1.5 + 0.5 + 1.5 + 2 + 1 + 0.5 + 1.2 + 0.9,
            "ratio_min": 0.5,
            "ratio_max": 2.0,
            "clipped_low": 1,
            "clipped_high": 1,
            "importance": 1 + 2 + 0.5 + 1 + 2 + 3,
            "importance_bound": 2,
            "mismatch_kl": mismatch,
            "mismatch_max": math.log(4),
            "effective": 7,
            "kl": (1 - math.log(2)) + (math.log(2) - 0.5),
        },
        abs=1e-12,
    )
    assert "kl" not in policy_loss(EXAMPLE, loss_spec()).figures
    assert policy_loss(EXAMPLE, loss_spec()).figures["importance_bound"] == 0


def test_the_reported_kl_is_k3_whatever_the_loss_takes() -> None:
    found = policy_loss(PULLED, loss_spec(kl_coef=0.4, kl_estimator="k1"))
    assert found.figures["kl"].item() == pytest.approx(0.5, abs=1e-14)
    assert found.parts["kl"].item() == pytest.approx(0.4 * (-2 + 1) * math.log(2) / 12, abs=1e-14)


def test_gradient_by_hand() -> None:
    # −w c ρ A where the clip does not bind, and β w (1 − r) of the KL
    slopes = slopes_of(PULLED, kl_coef=0.4, importance_cap=2.0)
    free = vector(0, 0, 1, 1, 1, 1, 1, 1)
    pull = 1 - vector(2, 0.5, 1, 1, 1, 1, 1, 1)
    torch.testing.assert_close(slopes, WEIGHTS * (-CUT * free * RATIO * ADVANTAGES + 0.4 * pull), rtol=0, atol=1e-14)


# --- Other surrogates


def test_dual_clip_by_hand() -> None:
    # of ρ = 1.5 and A = −a there stays −1.4a, of ρ = 0.9 all
    found = policy_loss(EXAMPLE, loss_spec(dual_clip=1.4))
    assert found.loss.item() == pytest.approx(-(0.4 * A + 0.3 * B) / 12, abs=1e-14)
    assert found.figures["clipped_high"] == 2
    assert found.figures["clipped_low"] == 1
    assert slopes_of(dual_clip=1.4)[2] == 0
    torch.testing.assert_close(slopes_of(dual_clip=1.6), slopes_of(), rtol=0, atol=0)


def test_gspo_by_hand() -> None:
    # completions have 1.5 (clipped to 1.3), √0.75, 2, √0.5 (not: it is good and less likely), 1.2, 0.9; each weighs 1/6
    found = policy_loss(EXAMPLE, loss_spec(policy_loss="gspo"))
    bad, good = math.sqrt(0.75), math.sqrt(0.5)
    terms = 1.3 * A - bad * A + 0 + good * B + 1.2 * B - 1.8 * B
    assert found.loss.item() == pytest.approx(-terms / 6, abs=1e-14)
    # −w s A at every token of a completion, so −A s / 6 times the mean of its logprobs' gradients
    ratios = vector(0, bad, bad, 2, good, good, 1.2, 0.9)
    torch.testing.assert_close(slopes_of(policy_loss="gspo"), -WEIGHTS * ratios * ADVANTAGES, rtol=0, atol=1e-14)
    assert found.figures["clipped_high"] == 1
    assert found.figures["clipped_low"] == 0


def test_cispo_by_hand() -> None:
    # the weight is clip(ρ) = (1.3, 0.8, 1.3, 1.3, 1, 0.8, 1.2, 0.9); no token loses its gradient
    weight = vector(1.3, 0.8, 1.3, 1.3, 1, 0.8, 1.2, 0.9)
    found = policy_loss(EXAMPLE, loss_spec(policy_loss="cispo", importance_cap=2.0))
    expected = -(WEIGHTS * CUT * weight * ADVANTAGES * NOW).sum().item()
    assert found.loss.item() == pytest.approx(expected, abs=1e-14)
    slopes = slopes_of(policy_loss="cispo", importance_cap=2.0)
    torch.testing.assert_close(slopes, -WEIGHTS * CUT * weight * ADVANTAGES, rtol=0, atol=1e-14)
    assert (found.figures["clipped_low"], found.figures["clipped_high"]) == (2, 3)


def test_reinforce_by_hand() -> None:
    found = policy_loss(EXAMPLE, loss_spec(policy_loss="reinforce"))
    assert found.loss.item() == pytest.approx(-(WEIGHTS * ADVANTAGES * NOW).sum().item(), abs=1e-14)
    torch.testing.assert_close(slopes_of(policy_loss="reinforce"), -WEIGHTS * ADVANTAGES, rtol=0, atol=0)


# --- What holds between them

LOSSES = ("clip", "gspo", "cispo", "reinforce")
batches = st.lists(st.integers(1, 4), min_size=1, max_size=5)
"""Tokens of each completion."""
fast = settings(max_examples=30, deadline=None, derandomize=True)


def drawn(lengths: list[int], seed: int = 0, spread: float = 0.4) -> Tokens:
    """Random completions of those lengths, off policy by about `spread`."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)

    def normal(count: int = total) -> Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64)

    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    old = -normal().abs() - 0.1
    return Tokens(
        logprobs=old + spread * normal(),
        old_logprobs=old,
        rollout_logprobs=old + spread * normal(),
        ref_logprobs=old + spread * normal(),
        entropies=normal().abs(),
        advantages=normal(len(lengths))[segments],
        weights=(1 / (len(lengths) * torch.tensor(lengths, dtype=torch.float64)))[segments],
        segments=segments,
    )


@fast
@given(batches, st.integers(0, 99))
def test_on_policy_every_loss_has_the_gradient_of_reinforce(lengths: list[int], seed: int) -> None:
    tokens = drawn(lengths, seed)
    tokens = replace(tokens, logprobs=tokens.old_logprobs, ref_logprobs=None)
    # One weight a completion: GSPO spreads the gradient of a completion evenly over its tokens.
    importance = {"importance_cap": 2.0, "importance_level": "sequence"}
    for name in LOSSES:
        found = slopes_of(tokens, policy_loss=name, **importance)
        torch.testing.assert_close(found, slopes_of(tokens, policy_loss="reinforce", **importance))


@fast
@given(st.integers(1, 8), st.integers(0, 99))
def test_gspo_of_completions_of_one_token_is_grpo(count: int, seed: int) -> None:
    tokens = drawn([1] * count, seed)
    torch.testing.assert_close(slopes_of(tokens, policy_loss="gspo"), slopes_of(tokens), rtol=0, atol=1e-14)
    assert loss_of(tokens, policy_loss="gspo") == pytest.approx(loss_of(tokens), abs=1e-14)


@fast
@given(batches, st.integers(0, 99))
def test_cispo_has_the_gradient_of_reinforce_weighted_by_the_clipped_ratio(lengths: list[int], seed: int) -> None:
    tokens = drawn(lengths, seed)
    weight = torch.exp(tokens.logprobs - tokens.old_logprobs).clamp(1 - LOW, 1 + HIGH)
    weighted = slopes_of(replace(tokens, advantages=weight * tokens.advantages), policy_loss="reinforce")
    torch.testing.assert_close(slopes_of(tokens, policy_loss="cispo"), weighted, rtol=0, atol=1e-14)


@fast
@given(batches, st.integers(0, 99))
def test_a_wide_clip_never_binds_and_leaves_the_importance_weighted_policy_gradient(
    lengths: list[int], seed: int
) -> None:
    tokens = replace(drawn(lengths, seed), ref_logprobs=None)
    ratio = torch.exp(tokens.logprobs - tokens.old_logprobs)
    found = slopes_of(tokens, clip_low=1.0, clip_high=1e9)
    torch.testing.assert_close(found, -tokens.weights * ratio * tokens.advantages)


def test_a_step_down_the_gradient_raises_good_tokens_and_lowers_bad_ones() -> None:
    tokens = replace(EXAMPLE, logprobs=OLD)
    for name in LOSSES:
        assert (torch.sign(-slopes_of(tokens, policy_loss=name)) == torch.sign(ADVANTAGES)).all()


COMBINATIONS: list[dict[str, Any]] = [
    {"policy_loss": name, "dual_clip": dual, "importance_mode": mode, "importance_level": level, "kl_estimator": kl}
    for name, dual in (("clip", 0), ("clip", 1.5), ("gspo", 0), ("gspo", 1.5), ("cispo", 0), ("reinforce", 0))
    for mode in ("truncate", "mask")
    for level, kl in (("token", "k1"), ("sequence", "k2"), ("geometric", "k3"))
]


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda c: "-".join(str(value) for value in c.values()))
def test_every_combination_has_the_gradient_of_finite_differences(combination: dict[str, Any]) -> None:
    tokens = drawn([3, 1, 2, 4], seed=3)
    settings = loss_spec(kl_coef=0.3, entropy_coef=0.2, importance_cap=1.5, **combination)
    held, still = tokens, settings
    if settings.policy_loss == "cispo":  # its weight is a constant of the gradient, but not of a difference
        weight = torch.exp(tokens.logprobs - tokens.old_logprobs).clamp(1 - LOW, 1 + HIGH)
        held, still = replace(tokens, advantages=weight * tokens.advantages), replace(settings, policy_loss="reinforce")

    def function(logprobs: Tensor) -> Tensor:
        return policy_loss(replace(held, logprobs=logprobs), still).loss

    torch.testing.assert_close(
        slopes_of(tokens, settings), finite_difference(function, tokens.logprobs), rtol=1e-6, atol=1e-9
    )


def test_the_entropy_has_the_gradient_of_its_weight() -> None:
    spec = loss_spec(entropy_coef=0.3)
    found = gradient(lambda x: policy_loss(replace(EXAMPLE, entropies=x), spec).loss, ENTROPIES)
    torch.testing.assert_close(found, -0.3 * WEIGHTS, rtol=0, atol=1e-15)


@fast
@given(batches, st.integers(0, 99), st.sampled_from(COMBINATIONS), st.randoms(use_true_random=False))
def test_cutting_between_completions_changes_neither_loss_nor_gradient_nor_figures(
    lengths: list[int], seed: int, combination: dict[str, Any], random: Any
) -> None:
    tokens = drawn(lengths, seed)
    spec = loss_spec(kl_coef=0.3, entropy_coef=0.2, importance_cap=1.5, **combination)
    order = random.sample(range(len(lengths)), len(lengths))
    cuts = sorted({0, len(lengths), *random.sample(range(len(lengths)), min(2, len(lengths)))})
    whole, found = policy_loss(tokens, spec), []
    slopes = torch.zeros_like(tokens.logprobs)
    for first, last in pairwise(cuts):
        indices = torch.cat([torch.where(tokens.segments == member)[0] for member in order[first:last]])
        part = _pick(tokens, indices)
        found.append(policy_loss(part, spec))
        slopes[indices] = slopes_of(part, spec)
    assert sum(part.loss for part in found).item() == pytest.approx(whole.loss.item(), abs=1e-12)
    torch.testing.assert_close(slopes, slopes_of(tokens, spec), rtol=1e-12, atol=1e-14)
    assert merge_figures(map(numbers, found)) == pytest.approx(numbers(whole), abs=1e-12)


def _pick(tokens: Tokens, indices: Tensor) -> Tokens:
    """Some completions of the pack, numbered anew."""
    picked = {name: getattr(tokens, name)[indices] for name in Tokens.__slots__}
    return Tokens(**picked | {"segments": torch.unique_consecutive(picked["segments"], return_inverse=True)[1]})


@pytest.mark.parametrize("name", LOSSES)
def test_a_token_of_weight_zero_counts_nowhere_however_unlikely_it_is(name: str) -> None:
    # The empty pack of a rank without work: the sampler "said" 0, the model may say anything.
    logprobs, zero = torch.tensor([-200.0], requires_grad=True), torch.zeros(1)
    tokens = Tokens(
        logprobs=logprobs,
        old_logprobs=logprobs.detach(),
        rollout_logprobs=zero,
        ref_logprobs=logprobs.detach(),
        entropies=torch.ones(1),
        advantages=zero,
        weights=zero,
        segments=torch.zeros(1, dtype=torch.int64),
    )
    parts = policy_loss(tokens, loss_spec(policy_loss=name, kl_coef=0.1, entropy_coef=0.1, importance_cap=2.0))
    parts.loss.backward()
    assert parts.loss.item() == 0
    assert logprobs.grad is not None
    assert logprobs.grad.item() == 0
    figures = numbers(parts)
    assert figures.pop("ratio_min") == math.inf  # the neutral element of a minimum
    assert set(figures.values()) == {0.0}
