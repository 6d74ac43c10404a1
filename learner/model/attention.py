"""Causal attention over sequences laid end to end, for any `transformers` decoder.

Linear layers see the flat tokens of a pack and compute no padding. Attention alone needs to know which tokens belong
together, and takes one of two ways:

    varlen    on a GPU in half precision: PyTorch's variable-length flash attention. Queries stay where they are; keys and
              values are gathered only where sequences share a prompt.
    buckets   everywhere else: sequences of similar length stand side by side, padded on the right, where a causal mask
              already hides the padding from every real token, so that PyTorch's fused kernels serve.

Both compute the same. Sequences that share a prompt (learner/batch.py) read its keys and values, which the linear layers
computed once. A layer with a sliding window of w sees the last w tokens of a sequence, itself included, wherever the pack
holds them: the tokens of a shared prompt count like any others.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from learner.model.sequence import SequenceGroup
from learner.model.transfer import moved
from rollout.errors import InputError

NAME = "rayzero_packed"
"""Name under which `transformers` knows packed attention (`attn_implementation`)."""

_NOT_FOR_ATTENTION = frozenset({"position_ids", "cache_position", "use_cache", "is_causal"})
"""Keyword arguments that models hand through to attention, and that ask nothing of it."""
_ASKED = {"softcap": "soft caps (softcap)", "s_aux": "attention sinks (s_aux)"}
"""Name of a keyword argument → what it asks for, in words."""

_MAX_PADDING = 1.25
"""Factor by which a row of a bucket may be longer than its shortest, plus 8 tokens."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """B sequences side by side: W keys each, of which the last W − `offset` are queries too."""

    index: Tensor
    """[B, W] int64 into the T tokens of the pack; padding repeats the sequence's last token."""
    offset: int

    @property
    def width(self) -> int:
        """W"""
        return self.index.shape[1]


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

    def __init__(
        self, lengths: np.ndarray, prefixes: np.ndarray, device: torch.device, group: SequenceGroup | None = None
    ) -> None:
        """`lengths`, `prefixes`: [K] as in learner.batch.Pack. `group`: the ranks that pass the pack together, if several."""
        self.lengths, self.prefixes, self.device, self.group = lengths, prefixes, device, group
        self.starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self.offsets = np.where(prefixes < 0, 0, lengths[prefixes])
        """[K] number of tokens in the prefix of each span."""
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def mask(self, bucket: Bucket, window: int | None) -> Tensor | None:
        """[W − offset, W] bool, True where a query may look; None where plain causal attention says the same.

        `window`: tokens that a query sees, itself included; None: all before it.
        """
        window = window if window is not None and window < bucket.width else None
        if bucket.offset == 0 and window is None:
            return None
        key = bucket.width, bucket.offset, window
        if key not in self._masks:
            seen = torch.ones(bucket.width - bucket.offset, bucket.width, dtype=torch.bool, device=self.device)
            seen = seen.tril(bucket.offset)
            # Columns are places in the sequence, those of a prefix included, so the window counts real positions.
            self._masks[key] = seen if window is None else seen.triu(bucket.offset - window + 1)
        return self._masks[key]

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
            rows.append(Bucket(moved(index, self.device), offset))
            # Of a token that stands in several rows any one will do: they all compute the same.
            place = first + np.arange(len(members))[:, None] * (width - offset) + np.arange(width - offset)[None, :]
            kept = np.arange(offset, width)[None, :] < totals[:, None]
            source[index[:, offset:][kept]] = place[kept]
            first += place.size
        return Buckets(tuple(rows), moved(source, self.device))

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
            keys = moved(np.concatenate(parts), self.device)
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
    return moved(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), device)


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
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """[1, heads, T, D] query, [1, kv_heads, T, D] key and value → [1, T, heads, D]; T: tokens of this rank.

    The signature is that of `transformers`' attention interface; `layout` comes through the model's keyword arguments.

    Raises:
        InputError: the model asks for what is not served here, or torch is too old or too new for its device.
    """
    if asked := unserved(module, others):
        raise InputError(f"packed attention does not serve {', '.join(asked)}, which {type(module).__name__} asks for")
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not dropout and serves_varlen(query, value):
            return _varlen_attention(query, key, value, layout.varlen, scaling, sliding_window)
        return _bucket_attention(query, key, value, layout, scaling, sliding_window, dropout)

    group = layout.group
    sums = group.with_all_tokens(query, key, value, attend) if group else attend(query, key, value)
    return sums[None], None


def unserved(module: torch.nn.Module, arguments: Mapping[str, Any]) -> list[str]:
    """What a layer asks of attention, beyond what `packed_attention` names, that would change its result; in words."""
    asked = [
        _ASKED.get(name, name)
        for name, value in arguments.items()
        if value is not None and value is not False and name not in _NOT_FOR_ATTENTION
    ]
    return asked if getattr(module, "is_causal", True) else [*asked, "attention to later tokens (is_causal)"]


def serves_varlen(query: Tensor, value: Tensor) -> bool:
    """Whether [T, heads, D] queries and values take the first way; said in the log where that is for a card to decide.

    Raises:
        InputError: the card could, but its torch has no kernel that is asked as this code asks.
    """
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    return _varlen_serves(query.device, query.shape[-1], value.shape[-1])


@cache
def _varlen_serves(device: torch.device, size: int, value_size: int) -> bool:
    """`size`, `value_size`: of the heads of queries and values."""
    capability = torch.cuda.get_device_capability(device)
    if obstacle := _obstacle(capability, size, value_size):
        _say(f"attention: padded buckets ({obstacle}), slower than variable-length flash attention")
        return False
    _varlen_kernel()
    _say(f"attention: variable-length flash attention, {_faster_kernels(capability) or 'FA2'}")
    return True


def _obstacle(capability: tuple[int, int], size: int, value_size: int) -> str:
    """Why flash attention cannot serve such heads on a device of this compute capability; empty: it can."""
    if capability < (8, 0):
        return f"compute capability {capability[0]}.{capability[1]} is below 8.0"
    if size > 256:
        return f"heads of {size} are larger than 256"
    return f"heads of {size} for queries and {value_size} for values" if size != value_size else ""


@cache
def _varlen_kernel() -> Callable[..., Tensor]:
    """PyTorch's (torch 2.10 brought it, later releases the last of what is asked of it).

    Raises:
        InputError: this torch does not have it, or with other arguments.
    """
    asked = {"scale", "window_size", "enable_gqa"}
    try:
        from torch.nn.attention.varlen import varlen_attn

        lacking = asked - signature(varlen_attn).parameters.keys()
    except ImportError:
        lacking = asked
    if lacking:
        raise InputError(
            f"torch {torch.__version__} has no varlen_attn with {', '.join(sorted(lacking))}, which attention on this GPU "
            "needs; install the torch that RayZero's `gpu` extra asks for"
        )
    return varlen_attn


def _faster_kernels(capability: tuple[int, int]) -> str:
    """FlashAttention 3 in place of torch's own kernels, on Hopper and where its package is; its name, or nothing."""
    from torch.nn import attention

    activate = getattr(attention, "activate_flash_attention_impl", None)
    if activate is None or capability[0] != 9 or find_spec("flash_attn_interface") is None:
        return ""
    try:
        activate("FA3")
    except Exception as problem:  # noqa: BLE001 - a package built for another torch raises what it likes
        _say(f"attention: flash_attn_interface is installed and cannot be used: {problem}")
        return ""
    return "FA3"


def _say(line: str) -> None:
    """In the log of this rank."""
    print(f"rayzero: {line}", file=sys.stderr, flush=True)


def _varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Varlen, scaling: float | None, window: int | None
) -> Tensor:
    """All [T, heads, D]. Where a span has more keys than queries, the kernel aligns the last query with the last key."""
    if layout.keys is not None:
        key, value = key.index_select(0, layout.keys), value.index_select(0, layout.keys)
    return _varlen_kernel()(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        layout.query_starts,
        layout.key_starts,
        layout.longest_query,
        layout.longest_key,
        scale=scaling,
        window_size=kernel_window(window, layout.longest_key),
        enable_gqa=query.shape[1] != key.shape[1],
    )


def kernel_window(window: int | None, longest: int) -> tuple[int, int]:
    """(tokens before, tokens after) that a query of `varlen_attn` sees beside its own; −1: all of them."""
    return (window - 1 if window is not None and window < longest else -1), 0


def _bucket_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scaling: float | None,
    window: int | None,
    dropout: float,
) -> Tensor:
    """All [T, heads, D]."""
    grouped = query.shape[1] != key.shape[1]
    outputs = []
    for bucket in layout.buckets.rows:
        q = _gather(query, bucket.index[:, bucket.offset :])
        k, v = _gather(key, bucket.index), _gather(value, bucket.index)
        mask = layout.mask(bucket, window)
        out = scaled_dot_product_attention(
            q, k, v, mask, is_causal=mask is None, scale=scaling, dropout_p=dropout, enable_gqa=grouped
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    flat = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return flat.index_select(0, layout.buckets.source)


def _gather(states: Tensor, index: Tensor) -> Tensor:
    """[T, H, D] and [B, W] → [B, H, W, D]"""
    return states.index_select(0, index.reshape(-1)).view(*index.shape, *states.shape[1:]).transpose(1, 2)
