"""Sums over the completions of a pack, whose tokens lie end to end."""

import torch
from torch import Tensor


def segment_sums(values: Tensor, segments: Tensor) -> Tensor:
    """[N] values → [N] at every token the sum over its completion. `segments`: [N] which completion each belongs to."""
    # As many sums as tokens, more than there can be completions: their number need not be read from the device.
    return torch.zeros_like(values).index_add(0, segments, values).index_select(0, segments)


def segment_means(values: Tensor, segments: Tensor) -> Tensor:
    """[N] values → [N] at every token the mean over its completion."""
    return segment_sums(values, segments) / segment_sums(torch.ones_like(values), segments)
