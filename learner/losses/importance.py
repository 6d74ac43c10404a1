"""Correction of what the sampler drew towards what the learner would have drawn.

The engine's distribution differs from the learner's by rounding, and by staleness. The weight π_old / π_sampler corrects
for both. It stands apart from the clip anchor, whose ratio is π / π_old: the decoupled objective of arXiv:2110.00641,
used for asynchronous training in AReaL (arXiv:2505.24298).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learner.losses.segments import segment_means, segment_sums
from learner.spec import ImportanceLevel, ImportanceMode


class Importance(NamedTuple):
    weights: Tensor
    """[N] constants of the gradient."""
    bound: Tensor
    """[N] bool, whether the weight was cut or the token dropped."""


def importance_ratio(
    old_logprobs: Tensor, rollout_logprobs: Tensor, segments: Tensor, level: ImportanceLevel
) -> Tensor:
    """[N] π_old / π_sampler, without gradient.

    token      of each token by itself
    sequence   the product over the completion: unbiased for the whole of it, and of a variance that grows with length
    geometric  the geometric mean over the completion, its L-th root: comparable between lengths, biased
    """
    log_ratio = (old_logprobs - rollout_logprobs).detach()
    match level:
        case "token":
            return torch.exp(log_ratio)
        case "sequence":
            return torch.exp(segment_sums(log_ratio, segments))
        case "geometric":
            return torch.exp(segment_means(log_ratio, segments))


def importance_weights(ratio: Tensor, mode: ImportanceMode, floor: float, cap: float) -> Importance:
    """[N] ratio c → [N] weights.

    truncate   min(c, cap)                          truncated importance sampling (Ionides 2008; for the mismatch of engine
                                                    and learner: F. Yao et al., "Your efficient RL framework secretly
                                                    brings you off-policy RL training", 2025)
    mask       c if floor ≤ c ≤ cap, otherwise 0    IcePop (arXiv:2510.18855): what is too far off does not train

    A cap of 0 is no correction: all ones. What is dropped keeps its place in the normalisation.
    """
    if cap == 0:
        return Importance(torch.ones_like(ratio), torch.zeros_like(ratio, dtype=torch.bool))
    match mode:
        case "truncate":
            return Importance(ratio.clamp(max=cap), ratio >= cap)
        case "mask":
            outside = (ratio < floor) | (ratio > cap)
            return Importance(ratio.masked_fill(outside, 0), outside)
