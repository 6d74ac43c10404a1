"""Causal attention over sequences laid end to end, for any `transformers` decoder.

Linear layers see the flat tokens of a pack and compute no padding. Attention alone needs to know which tokens belong
together, and takes one of two ways:

    varlen    on a GPU in half precision: PyTorch's variable-length flash attention. Queries stay where they are; keys and
              values are gathered only where sequences share a prompt.
    buckets   everywhere else: sequences of similar length stand side by side, padded on the right, where a causal mask
              already hides the padding from every real token, so that PyTorch's fused kernels serve.

Both compute the same. Sequences that share a prompt (learner/batch.py) read its keys and values, which the linear layers
computed once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "rayzero_packed"
"""Name under which `transformers` knows packed attention (`attn_implementation`)."""

_MAX_PADDING = 1.25
"""Factor by which a row of a bucket may be longer than its shortest, plus 8 tokens."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """B sequences side by side: W keys each, of which the last W − `offset` are queries too."""

    index: Tensor
    """[B, W] int64 into the T tokens of the pack; padding repeats the sequence's last token."""
    offset: int
    mask: Tensor | None
    """[W − offset, W] bool, True where a query may look; None where plain causal attention says the same (offset 0)."""


@dataclass(frozen=True, slots=True)
class Buckets:
    rows: tuple[Bucket, ...]
    source: Tensor
    """[T] int64: token t is query source[t] of all buckets laid end to end."""


@dataclass(frozen=True, slots=True)
class Varlen:
    """Spans as flash attention wants them; K spans."""

    query_starts: Tensor
    """[K + 1] int32"""
    key_starts: Tensor
    """[K + 1] int32"""
    longest_query: int
    longest_key: int
    keys: Tensor | None
    """[sum of the keys of all spans] int64 into the T tokens; None: the tokens as they are."""


class Layout:
    """Says which tokens of a pack see each other: K spans laid end to end, each after the tokens of its prefix, if any."""

    def __init__(self, lengths: np.ndarray, prefixes: np.ndarray, device: torch.device) -> None:
        """`lengths`, `prefixes`: [K] as in learner.batch.Pack."""
        self.lengths, self.prefixes, self.device = lengths, prefixes, device
        self.starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self.offsets = np.where(prefixes < 0, 0, lengths[prefixes])
        """[K] number of tokens in the prefix of each span."""

    @cached_property
    def buckets(self) -> Buckets:
        source = np.full(int(self.lengths.sum()), -1, np.int64)
        rows, first = [], 0
        for members, apart in self._rows():
            offsets, totals = self.offsets[members], (self.offsets + self.lengths)[members]
            offset, width = int(offsets.min()) if apart else 0, int(totals.max())
            column = np.minimum(np.arange(width)[None, :], totals[:, None] - 1)
            own = self.starts[members][:, None] + column - offsets[:, None]
            index = np.where(column < offsets[:, None], self.starts[self.prefixes[members]][:, None] + column, own)
            mask = torch.ones(width - offset, width, dtype=torch.bool).tril(offset) if offset else None
            rows.append(Bucket(torch.from_numpy(index).to(self.device), offset, _to(mask, self.device)))
            # Of a token that stands in several rows any one will do: they all compute the same.
            place = first + np.arange(len(members))[:, None] * (width - offset) + np.arange(width - offset)[None, :]
            kept = np.arange(offset, width)[None, :] < totals[:, None]
            source[index[:, offset:][kept]] = place[kept]
            first += place.size
        return Buckets(tuple(rows), torch.from_numpy(source).to(self.device))

    def _rows(self) -> list[tuple[np.ndarray, bool]]:
        """Spans of each bucket, and whether their prefix is only read there (or computed along with them).

        With a prefix of P tokens and L of its own, a row costs (P + L)² / 2 with plain causal attention, which computes the
        prefix again, and L · (P + L) apart, which needs a mask. So apart where P > L. A prompt then needs a row of its own,
        unless another of its sequences computes it.
        """
        apart = self.offsets > self.lengths
        read = self.prefixes[self.prefixes >= 0]
        along = self.prefixes[(self.prefixes >= 0) & ~apart]
        plain = ~apart
        plain[read] = False
        plain[np.setdiff1d(read, along)] = True
        groups = [(members, False) for members in _similar(np.flatnonzero(plain), self.offsets + self.lengths)]
        for same in _similar(np.flatnonzero(apart), self.offsets):
            groups += [(members, True) for members in _similar(same, self.offsets + self.lengths)]
        return groups

    @cached_property
    def varlen(self) -> Varlen:
        totals = self.offsets + self.lengths
        keys = None
        if totals.sum() != self.lengths.sum():
            spans = [np.arange(start, start + length) for start, length in zip(self.starts, self.lengths, strict=True)]
            parts = [
                part
                for span, prefix in zip(spans, self.prefixes, strict=True)
                for part in ([span] if prefix < 0 else [spans[prefix], span])
            ]
            keys = torch.from_numpy(np.concatenate(parts)).to(self.device)
        return Varlen(
            query_starts=_cumulative(self.lengths, self.device),
            key_starts=_cumulative(totals, self.device),
            longest_query=int(self.lengths.max()),
            longest_key=int(totals.max()),
            keys=keys,
        )


def _similar(members: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Cut into parts of similar length, shortest first."""
    parts: list[list[int]] = []
    for i in members[np.argsort(lengths[members], kind="stable")]:
        if not parts or lengths[i] > _MAX_PADDING * lengths[parts[-1][0]] + 8:
            parts.append([])
        parts[-1].append(int(i))
    return [np.array(part) for part in parts]


def _cumulative(lengths: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)).to(device)


def _to(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


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
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    if serves_varlen(query) and not dropout:
        return _varlen_attention(query, key, value, layout.varlen, scaling)[None], None
    return _bucket_attention(query, key, value, layout.buckets, scaling, dropout)[None], None


def serves_varlen(query: Tensor) -> bool:
    """Whether these take the first way: on CUDA (compute capability 8 or more), 16 bits, heads of up to 256."""
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] <= 256
        and _varlen_kernel() is not None
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


@cache
def _varlen_kernel() -> Callable[..., Tensor] | None:
    """PyTorch's, where it knows all that is asked of it (torch 2.10 brought it, later releases the last of these)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    asked = {"scale", "window_size", "enable_gqa"}
    return varlen_attn if asked <= signature(varlen_attn).parameters.keys() else None


def _varlen_attention(query: Tensor, key: Tensor, value: Tensor, layout: Varlen, scaling: float | None) -> Tensor:
    """All [T, heads, D]. Where a span has more keys than queries, the kernel aligns the last query with the last key."""
    attend = _varlen_kernel()
    assert attend is not None
    if layout.keys is not None:
        key, value = key.index_select(0, layout.keys), value.index_select(0, layout.keys)
    return attend(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        layout.query_starts,
        layout.key_starts,
        layout.longest_query,
        layout.longest_key,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _bucket_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Buckets, scaling: float | None, dropout: float
) -> Tensor:
    """All [T, heads, D]."""
    grouped = query.shape[1] != key.shape[1]
    outputs = []
    for bucket in layout.rows:
        q = _gather(query, bucket.index[:, bucket.offset :])
        k, v = _gather(key, bucket.index), _gather(value, bucket.index)
        out = scaled_dot_product_attention(
            q, k, v, bucket.mask, is_causal=bucket.mask is None, scale=scaling, dropout_p=dropout, enable_gqa=grouped
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    flat = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return flat.index_select(0, layout.source)


def _gather(states: Tensor, index: Tensor) -> Tensor:
    """[T, H, D] and [B, W] → [B, H, W, D]"""
    return states.index_select(0, index.reshape(-1)).view(*index.shape, *states.shape[1:]).transpose(1, 2)
