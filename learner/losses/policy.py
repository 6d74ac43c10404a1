"""The loss of reinforcement learning, put together from parts that are chosen apart from each other (learner/spec.py):

Σ_t w_t [ −c_t · surrogate_t + β · KL_t − η · H_t ]

surrogate   what the policy gradient comes from, of the ratio π / π_old          below
c           importance correction π_old / π_sampler, a constant                  learner/losses/importance.py
KL          estimated distance from the reference, when it is in the loss        learner/losses/kl.py
H           entropy of the whole distribution                                    learner/model/policy.py
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner.losses.importance import importance_ratio, importance_weights
from learner.losses.kl import kl_estimate
from learner.losses.segments import segment_means
from learner.losses.types import LossParts, Tokens, counted_sum
from learner.spec import LossSpec


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
        figures = {name: counted_sum(values, counted) for name, values in sums.items()}
        gap = (tokens.old_logprobs - tokens.rollout_logprobs).abs()
        figures["mismatch_max"] = torch.where(counted, gap, 0).max()
        figures["ratio_min"] = torch.where(counted, objective.ratio, torch.inf).min()
        figures["ratio_max"] = torch.where(counted, objective.ratio, 0).max()
    return LossParts(torch.stack(list(parts.values())).sum(), parts, figures)
