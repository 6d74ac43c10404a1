"""Objectives as pure tensor functions over flat tokens.

N = completion tokens of one micro-batch, laid end to end; no padding, no batch dimension. Every function sums
`weights * token loss`: the weights hold the whole normalisation (learner/batch.py), so the result does not depend on how a
batch was cut into micro-batches and ranks.

The loss of reinforcement learning is put together from parts that are chosen apart from each other (learner/spec.py):

    Σ_t w_t [ −c_t · surrogate_t + β · KL_t − η · H_t ]

    surrogate   what the policy gradient comes from, of the ratio π / π_old          below
    c           importance correction π_old / π_sampler, a constant                  learner/losses/importance.py
    KL          estimated distance from the reference, when it is in the loss        learner/losses/kl.py
    H           entropy of the whole distribution                                    learner/model/policy.py
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from learner.losses.importance import importance_ratio, importance_weights
from learner.losses.kl import kl_estimate
from learner.losses.segments import segment_means
from learner.spec import LossSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The targets of one pack, each [N]."""

    logprobs: Tensor
    """Current policy; the gradient goes through these and the entropies."""
    old_logprobs: Tensor
    rollout_logprobs: Tensor
    ref_logprobs: Tensor | None
    """None: no KL in the loss."""
    entropies: Tensor
    """Nats."""
    advantages: Tensor
    weights: Tensor
    """Share in the objective; a token of weight 0 counts nowhere."""
    segments: Tensor
    """int64, which completion of the pack a token belongs to."""


class LossParts(NamedTuple):
    loss: Tensor
    """[] differentiable, to minimise."""
    parts: dict[str, Tensor]
    """[] what the loss is the sum of, by name."""
    figures: dict[str, Tensor]
    """[] sums over `count`, smallest (`*_min`) and largest (`*_max`) values (learner/tally.py)."""


class Surrogate(NamedTuple):
    values: Tensor
    """[N] to maximise."""
    ratio: Tensor
    """[N] π / π_old: of the token, or of its completion."""
    low: Tensor
    """[N] bool, bound from below; of a clip: the token was bad and is already much less likely."""
    high: Tensor
    """[N] bool, bound from above; of a clip: it was good and is already much more likely, or bad and far too likely."""


def token_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """[N] ρ_t = π / π_old of each token."""
    return torch.exp(logprobs - old_logprobs)


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, segments: Tensor) -> Tensor:
    """[N] s_i = (π(y_i) / π_old(y_i))^(1 / L_i), the geometric mean of a completion's token ratios, at each of its tokens.

    GSPO (arXiv:2507.18071, section 4.1). Its range is much narrower than a token's: the paper clips at 1 − 3e-4 and 1 + 4e-4.
    """
    return torch.exp(segment_means(logprobs - old_logprobs, segments))


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, dual_clip: float = 0
) -> Surrogate:
    """[N] min(ρ A, clip(ρ, 1 − clip_low, 1 + clip_high) A), and where A < 0 no less than dual_clip · A.

    PPO's clipped objective (arXiv:1707.06347, equation 7); two bounds as in DAPO (arXiv:2503.14476, equation 8). With A < 0
    the minimum has no lower bound: a token that π makes far more likely than π_old dominates the batch. The dual clip
    (arXiv:1912.09729) is that bound; 0: off. Where a bound holds, the gradient is zero.
    """
    clipped = torch.clamp(ratio, 1 - clip_low, 1 + clip_high)
    values = torch.minimum(ratio * advantages, clipped * advantages)
    low = (ratio < 1 - clip_low) & (advantages < 0)
    high = (ratio > 1 + clip_high) & (advantages > 0)
    if dual_clip:
        floor = dual_clip * advantages
        too_likely = (advantages < 0) & (values < floor)
        values, high = torch.where(too_likely, floor, values), high | too_likely
    return Surrogate(values, ratio, low, high)


def cispo_surrogate(
    logprobs: Tensor, ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Surrogate:
    """[N] sg(clip(ρ, 1 − clip_low, 1 + clip_high)) A log π: the weight is bound, no token loses its gradient.

    CISPO (MiniMax-M1, arXiv:2506.13585, equations 4 and 5), where clip_low is so large that only the upper bound acts.
    """
    weight = torch.clamp(ratio, 1 - clip_low, 1 + clip_high).detach()
    return Surrogate(weight * advantages * logprobs, ratio, ratio < 1 - clip_low, ratio > 1 + clip_high)


def reinforce_surrogate(logprobs: Tensor, ratio: Tensor, advantages: Tensor) -> Surrogate:
    """[N] A log π, unbound and uncorrected for the steps since π_old (Williams 1992)."""
    never = torch.zeros_like(ratio, dtype=torch.bool)
    return Surrogate(advantages * logprobs, ratio, never, never)


def surrogate(tokens: Tokens, spec: LossSpec) -> Surrogate:
    """The one that the recipe asks for."""
    now, old, advantages = tokens.logprobs, tokens.old_logprobs, tokens.advantages
    match spec.policy_loss:
        case "clip":
            ratio = token_ratio(now, old)
            return clipped_surrogate(ratio, advantages, spec.clip_low, spec.clip_high, spec.dual_clip)
        case "gspo":
            ratio = sequence_ratio(now, old, tokens.segments)
            return clipped_surrogate(ratio, advantages, spec.clip_low, spec.clip_high, spec.dual_clip)
        case "cispo":
            return cispo_surrogate(now, token_ratio(now, old), advantages, spec.clip_low, spec.clip_high)
        case "reinforce":
            return reinforce_surrogate(now, token_ratio(now, old), advantages)


def policy_loss(tokens: Tokens, spec: LossSpec) -> LossParts:
    """Σ_t w_t [ −c_t · surrogate_t + β · KL_t − η · H_t ].

    With the defaults of a recipe: GRPO (DeepSeekMath, arXiv:2402.03300, equation 3; DeepSeek-R1, arXiv:2501.12948,
    equation 1) with a truncated importance weight. KL and entropy carry no importance weight.
    """
    objective = surrogate(tokens, spec)
    ratio = importance_ratio(tokens.old_logprobs, tokens.rollout_logprobs, tokens.segments, spec.importance_level)
    importance = importance_weights(ratio, spec.importance_mode, spec.importance_floor, spec.importance_cap)
    parts = {"policy": -(tokens.weights * importance.weights * objective.values).sum()}
    if tokens.ref_logprobs is not None:
        kl = kl_estimate(tokens.logprobs, tokens.ref_logprobs, spec.kl_estimator)
        parts["kl"] = spec.kl_coef * (tokens.weights * kl).sum()
    if spec.entropy_coef:
        parts["entropy"] = -spec.entropy_coef * (tokens.weights * tokens.entropies).sum()
    with torch.no_grad():
        counted = tokens.weights > 0
        sums = {
            "count": torch.ones_like(tokens.weights),
            "entropy": tokens.entropies,
            "ratio": objective.ratio,
            "clipped_low": objective.low,
            "clipped_high": objective.high,
            "importance": importance.weights,
            "importance_bound": importance.bound,
            "mismatch_kl": kl_estimate(tokens.rollout_logprobs, tokens.old_logprobs),
            "effective": tokens.weights * importance.weights * tokens.advantages != 0,
        }
        if tokens.ref_logprobs is not None:
            sums["kl"] = kl_estimate(tokens.logprobs, tokens.ref_logprobs)
        figures = {name: _sum(values, counted) for name, values in sums.items()}
        gap = (tokens.old_logprobs - tokens.rollout_logprobs).abs()
        figures["mismatch_max"] = torch.where(counted, gap, 0).max()
        figures["ratio_min"] = torch.where(counted, objective.ratio, torch.inf).min()
        figures["ratio_max"] = torch.where(counted, objective.ratio, 0).max()
    return LossParts(torch.stack(list(parts.values())).sum(), parts, figures)


def sft_loss(logprobs: Tensor, entropies: Tensor, weights: Tensor) -> LossParts:
    """Cross-entropy −Σ_t w_t log π(token_t), all inputs [N]; `nll` sums it unweighted."""
    loss = -(weights * logprobs).sum()
    with torch.no_grad():
        sums = {"count": torch.ones_like(weights), "nll": -logprobs, "entropy": entropies}
        figures = {name: _sum(values, weights > 0) for name, values in sums.items()}
    return LossParts(loss, {"nll": loss}, figures)


def pairwise_loss(scores: Tensor, weights: Tensor) -> LossParts:
    """−Σ_p w_p log σ(s_chosen − s_rejected): the Bradley–Terry model of preferences, for reward models.

    InstructGPT (arXiv:2203.02155, equation 1). `scores`, `weights`: [2 P], chosen and rejected of each pair in turn; the
    weight of a pair is the sum of its two. Scores are free up to a constant. `ordered`: equal scores count one half.
    """
    chosen, rejected = scores.view(-1, 2).unbind(1)
    pair_weights = weights.view(-1, 2).sum(1)
    margins = chosen - rejected
    loss = -(pair_weights * logsigmoid(margins)).sum()
    with torch.no_grad():
        sums = {"count": torch.ones_like(margins), "margin": margins, "ordered": (margins.sign() + 1) / 2}
        figures = {name: _sum(values, pair_weights > 0) for name, values in sums.items()}
    return LossParts(loss, {"preference": loss}, figures)


def implicit_rewards(logprobs: Tensor, ref_logprobs: Tensor, segments: Tensor, beta: float) -> Tensor:
    """[N + N mod 2] β log(π(y) / π_ref(y)) of each completion y, by its segment; 0 behind the last.

    The reward that a policy trained by DPO stands for, up to a part that the prompt alone decides (arXiv:2305.18290, section
    4). All inputs [N].
    """
    # As many places as tokens, more than there can be completions: their number need not be read from the device.
    rewards = logprobs.new_zeros(len(logprobs) + len(logprobs) % 2)
    return rewards.index_add(0, segments, beta * (logprobs - ref_logprobs))


def dpo_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    segments: Tensor,
    weights: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0,
) -> LossParts:
    """−Σ_p w_p [ (1 − ε) log σ(Δ_p) + ε log σ(−Δ_p) ],  Δ = β log(π / π_ref)(chosen) − β log(π / π_ref)(rejected).

    Direct preference optimisation: Rafailov et al. 2023 (arXiv:2305.18290, equation 7) at ε = 0. ε > 0 takes that share of the
    preferences to be the wrong way round (Mitchell 2023, "A note on DPO with noisy preferences"). Log-probabilities are summed
    over a completion's tokens, not averaged. All inputs [N]; segments 2p and 2p + 1 are the chosen and the rejected completion
    of pair p, whose weight is the sum of those of its tokens.
    """
    rewards = implicit_rewards(logprobs, ref_logprobs, segments, beta)
    shares = torch.zeros_like(rewards).index_add(0, segments, weights.to(rewards.dtype))
    forward = pairwise_loss(rewards, shares)
    loss = forward.loss
    if label_smoothing:
        backward = pairwise_loss(-rewards, shares)
        loss = (1 - label_smoothing) * loss + label_smoothing * backward.loss
    with torch.no_grad():
        chosen, rejected = rewards.view(-1, 2).unbind(1)
        counted = shares.view(-1, 2).sum(1) > 0
        sums = {"chosen_reward": chosen, "rejected_reward": rejected}
        figures = forward.figures | {name: _sum(values, counted) for name, values in sums.items()}
    return LossParts(loss, {"preference": loss}, figures)


def _sum(values: Tensor, counted: Tensor) -> Tensor:
    """[] float64 over those that count. A choice, not a product: what does not count may be infinite."""
    return torch.where(counted, values, 0).sum(dtype=torch.float64)
