"""Element-wise work that PyTorch compiles into a few kernels on a GPU, where it is otherwise bound by memory: a third of a step.

Compiling takes the first step of a model some tens of seconds, so that small models go without.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from learner.model.attention import NAME, packed_attention

LEAST_PARAMETERS = 200_000_000
"""Parameters of a model from which on compiled layers repay what they cost."""

COMPILER = "inductor"
"""PyTorch's own; tests trace with another one."""


def compile_layers(model: nn.Module) -> int:
    """Compile the layers of a decoder, each but for its attention; returns how many. All have the same code: it is made once."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # Opaque to the compiler: what it does depends on the lengths in a pack. Wrapped here, since that imports the compiler.
    ALL_ATTENTION_FUNCTIONS.register(NAME, torch.compiler.disable(packed_attention))
    layers = [layer for name, layer in model.named_modules() if name.rpartition(".")[0].endswith("layers")]
    for layer in layers:
        layer.compile(dynamic=True, backend=COMPILER)
    return len(layers)


@cache
def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, compiled once for all shapes."""
    compiled: Callable[..., Any] = torch.compile(function, dynamic=True, backend=COMPILER)
    return compiled


def absorb(logits: Tensor, largest: Tensor, total: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the head keeps of each token (learner/model/head.py: m, Σ e^(z − m), Σ e^(z − m) (z − m)), with a tile [N, V'] more."""
    new = torch.maximum(largest, logits.amax(1))
    shift = largest - new
    centred = logits - new[:, None]
    powers = centred.exp()
    scale = shift.exp()
    return new, total * scale + powers.sum(1), (weighted + shift * total) * scale + (powers * centred).sum(1)


def tile_slopes(
    logits: Tensor,
    logsumexp: Tensor,
    entropies: Tensor | None,
    column: Tensor,
    slope: Tensor,
    entropy_slope: Tensor,
    factor: float,
    dtype: torch.dtype,
) -> Tensor:
    """[N, V'] gradient of a tile of logits, times `factor`, in `dtype`.

    Args:
        entropies: [N] where they carry a gradient.
        column: [N] of the target in the tile; −1: it lies in another one.
    """
    y = logits - logsumexp[:, None]
    outer = slope[:, None]
    pull = outer if entropies is None else (y + entropies[:, None]) * entropy_slope[:, None] + outer
    at_target = torch.arange(logits.shape[1], device=logits.device)[None] == column[:, None]
    return ((torch.where(at_target, outer, 0) - y.exp() * pull) * factor).to(dtype)
