"""Causal attention over sequences laid end to end, for any `transformers` decoder.

Linear layers see the flat tokens of a pack and compute no padding. Only inside attention are the sequences set side by
side, in buckets of similar length; padding stands on the right, where a causal mask already hides it from every real
token, so no mask is built and PyTorch's fused kernels serve.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "rayzero_packed"
"""The name under which `transformers` knows it (`attn_implementation`)."""

_MAX_PADDING = 1.25
"""A bucket holds sequences up to this factor longer than its shortest."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tokens of a pack stand inside attention. T tokens, B×W the shape of one bucket."""

    buckets: tuple[Tensor, ...]
    """Each [B, W] int64 index into T; padding repeats the sequence's last token."""
    source: Tensor
    """[T] int64: token t is element source[t] of all buckets laid end to end."""


def make_layout(lengths: np.ndarray, device: torch.device) -> Layout:
    """[S] lengths → the buckets of a pack."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    source = np.empty(int(lengths.sum()), np.int64)
    buckets, offset = [], 0
    for members in _by_length(lengths):
        width = int(lengths[members].max())
        column = np.minimum(np.arange(width)[None, :], lengths[members][:, None] - 1)
        buckets.append(torch.from_numpy(starts[members][:, None] + column).to(device))
        for row, member in enumerate(members):
            begin, length = starts[member], lengths[member]
            source[begin : begin + length] = offset + row * width + np.arange(length)
        offset += len(members) * width
    return Layout(tuple(buckets), torch.from_numpy(source).to(device))


def _by_length(lengths: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(lengths, kind="stable")
    groups: list[list[int]] = []
    for i in order:
        if not groups or lengths[i] > _MAX_PADDING * lengths[groups[-1][0]] + 8:
            groups.append([])
        groups[-1].append(int(i))
    return [np.array(group) for group in groups]


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """[1, heads, T, D] query, [1, kv_heads, T, D] key and value → [1, T, heads, D].

    The signature is that of `transformers`' attention interface; `layout` comes through the model's keyword arguments.
    """
    grouped = query.shape[1] != key.shape[1]
    outputs = []
    for index in layout.buckets:
        q, k, v = (_gather(states, index) for states in (query, key, value))
        out = scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=grouped
        )
        outputs.append(out.transpose(1, 2).reshape(-1, out.shape[1], out.shape[3]))
    flat = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return flat.index_select(0, layout.source).unsqueeze(0), None


def _gather(states: Tensor, index: Tensor) -> Tensor:
    """[1, H, T, D] and [B, W] → [B, H, W, D]"""
    rows, width = index.shape
    _, heads, _, size = states.shape
    picked = states[0].index_select(1, index.reshape(-1))
    return picked.view(heads, rows, width, size).transpose(0, 1)
