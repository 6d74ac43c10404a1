"""The loss of supervised fine-tuning."""

import torch
from torch import Tensor

from learner.losses.types import LossParts, counted_sum


def sft_loss(logprobs: Tensor, entropies: Tensor, weights: Tensor) -> LossParts:
    """Cross-entropy −Σ_t w_t log π(token_t), all inputs [N]; `nll` sums it unweighted."""
    loss = -(weights * logprobs).sum()
    with torch.no_grad():
        sums = {"count": torch.ones_like(weights), "nll": -logprobs, "entropy": entropies}
        figures = {name: counted_sum(values, weights > 0) for name, values in sums.items()}
    return LossParts(loss, {"nll": loss}, figures)
