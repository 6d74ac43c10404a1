"""What losses take and give.

N = completion tokens of one micro-batch, laid end to end; no padding, no batch dimension. Every loss sums
`weights * token loss`: the weights hold the whole normalisation (learner/batch.py), so the result does not depend on how a
batch was cut into micro-batches and ranks.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


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
    """[] sums over `count`, smallest (`*_min`) and largest (`*_max`) values (learner/stats.py)."""


def counted_sum(values: Tensor, counted: Tensor) -> Tensor:
    """[] float64 sum of the values that count. A choice, not a product: what does not count may be infinite."""
    return torch.where(counted, values, 0).sum(dtype=torch.float64)
