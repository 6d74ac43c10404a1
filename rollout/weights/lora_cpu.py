"""Adapters on CPU hosts: one adapter for all tokens, as two matrix products a layer.

vLLM's own CPU code serves many adapters at a time. It copies the adapter once for every token and multiplies each by its
copy, which costs an engine more than half its speed. Here there is one, that of the policy, and no token without it.
"""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class SingleAdapter(PunicaWrapperCPU):
    """For engines with `max_loras` = 1 whose requests all have the adapter, once there is one; before, it is zero."""

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """y [T, out] += scale · x Aᵀ Bᵀ, for each A [1, 1, r, in] and B [1, 1, slice, r] of a layer."""
        begin = 0
        for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            y[:, begin : begin + size].addmm_(x @ a[0, 0].T, b[0, 0].T, alpha=scale)
            begin += size
