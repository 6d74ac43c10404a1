"""Objectives as pure tensor functions over flat tokens.

N = completion tokens of one micro-batch, laid end to end; no padding, no batch dimension. Every function sums
`weights * token loss`: the weights hold the whole normalisation (learner/batch.py), so the result does not depend on how a
batch was cut into micro-batches and ranks.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class LossParts(NamedTuple):
    """A loss to minimise, and sums over tokens for the metrics (divide by `stats["tokens"]`)."""

    loss: Tensor
    """[] differentiable."""
    stats: dict[str, float]


def kl_to_reference(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """[N] unbiased, non-negative estimate of KL(π ‖ π_ref): r − log r − 1 with r = π_ref / π.

    Schulman's k3, as used by GRPO (DeepSeekMath, arXiv:2402.03300, equation 4).
    """
    log_ratio = ref_logprobs - logprobs
    return torch.exp(log_ratio) - log_ratio - 1


def clipped_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """[N] min(ρ A, clip(ρ, 1 − clip_low, 1 + clip_high) A) with ρ = π / π_old, and [N] whether the clip bound it.

    PPO's clipped objective (arXiv:1707.06347, equation 7); two bounds as in DAPO (arXiv:2503.14476).
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = torch.clamp(ratio, 1 - clip_low, 1 + clip_high)
    unclipped_term, clipped_term = ratio * advantages, clipped * advantages
    return torch.minimum(unclipped_term, clipped_term), clipped_term < unclipped_term


def importance_weights(old_logprobs: Tensor, rollout_logprobs: Tensor, cap: float) -> Tensor:
    """[N] min(π_old / π_sampler, cap), a constant for the gradient; all ones when `cap` is 0.

    Truncated importance sampling: corrects what the engine sampled towards what the learner would have, for the
    numerical mismatch between the two and for staleness, apart from the clip anchor.
    """
    if cap == 0:
        return torch.ones_like(old_logprobs)
    return torch.exp(old_logprobs - rollout_logprobs).clamp(max=cap).detach()


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    rollout_logprobs: Tensor,
    ref_logprobs: Tensor | None,
    advantages: Tensor,
    weights: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    importance_cap: float,
) -> LossParts:
    """−Σ_t w_t [ c_t · min(ρ_t A_t, clip(ρ_t) A_t) − β KL_t ], all inputs [N].

    GRPO (DeepSeekMath, arXiv:2402.03300, equation 3; DeepSeek-R1, arXiv:2501.12948, equation 1) with a truncated
    importance weight c_t for tokens that the sampler drew from a slightly different distribution.
    """
    surrogate, clipped = clipped_surrogate(logprobs, old_logprobs, advantages, clip_low, clip_high)
    importance = importance_weights(old_logprobs, rollout_logprobs, importance_cap)
    token_loss = -importance * surrogate
    counted = (weights > 0).to(logprobs.dtype)
    with torch.no_grad():
        mismatch = kl_to_reference(rollout_logprobs, old_logprobs)
        gap = (old_logprobs - rollout_logprobs).abs() * counted
        stats = {
            "tokens": counted.sum().item(),
            "clipped": (clipped * counted).sum().item(),
            "importance": (importance * counted).sum().item(),
            "capped": ((importance >= importance_cap) * counted).sum().item() if importance_cap else 0.0,
            "mismatch_kl": (mismatch * counted).sum().item(),
            "mismatch_max": gap.max().item() if len(gap) else 0.0,
            "ratio": (torch.exp(logprobs - old_logprobs) * counted).sum().item(),
        }
    if ref_logprobs is not None:
        kl = kl_to_reference(logprobs, ref_logprobs)
        token_loss = token_loss + kl_coef * kl
        stats["kl"] = (kl.detach() * counted).sum().item()
    return LossParts((weights * token_loss).sum(), stats)


def sft_loss(logprobs: Tensor, weights: Tensor) -> LossParts:
    """Cross-entropy −Σ_t w_t log π(token_t), all inputs [N]; `nll` sums it unweighted for the metrics."""
    counted = (weights > 0).to(logprobs.dtype)
    stats = {"tokens": counted.sum().item(), "nll": -(logprobs.detach() * counted).sum().item()}
    return LossParts(-(weights * logprobs).sum(), stats)
