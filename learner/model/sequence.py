"""Sequence parallelism: ranks that pass one pack together, each a share of its tokens, so that a sequence may be longer than
what one of them has memory for.

All layers but attention see one token at a time, and a rank has only its own. Attention sees all tokens and one head at a
time: before it, ranks exchange tokens for heads, after it heads for tokens (DeepSpeed-Ulysses, arXiv:2309.14509, section 3).
Four exchanges a layer, two on the way back included; a rank sends 1 / ranks of what it holds to each other one. DeepSpeed's
own module for `transformers` is not used: it asks for flash attention and one sequence a row, where a pack has many, whose
prompts they may share.

Heads need not divide by the ranks: some have one more then, and the others wait for them. Where key/value heads are fewer than
ranks, each goes to every rank whose queries read it.

What is computed from log-probabilities is computed by every rank of a group, from those of all: a completion may lie on two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from rollout.errors import InputError

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""[T, heads, D] queries, [T, kv_heads, D] keys and [T, kv_heads, D'] values → [T, heads, D'] sums."""


@dataclass(frozen=True, slots=True)
class Heads:
    """Which heads the ranks of a group have: contiguous parts of the queries', and the key/value heads that these read."""

    order: tuple[int, ...]
    """Heads as they are sent, those for rank 0 first: places in queries, keys and values laid end to end."""
    sent: tuple[int, ...]
    """Number of them that each rank gets."""
    queries: tuple[int, ...]
    """Number of query heads of each rank."""
    keys: tuple[int, ...]
    """Number of key heads of each rank, and of value heads."""


@cache
def split_heads(heads: int, kv_heads: int, ranks: int) -> Heads:
    """Divide heads over ranks.

    Raises:
        InputError: there are fewer than ranks.
    """
    if heads < ranks:
        raise InputError(
            f"learner.sequence_parallel = {ranks}: the model has {heads} attention heads; set it to {heads}"
        )
    order: list[int] = []
    queries, keys = [], []
    for own in np.array_split(np.arange(heads), ranks):
        read = own // (heads // kv_heads)
        once, readers = np.unique(read, return_counts=True)
        # Attention pairs queries with keys by equal parts; where a part was cut, each query gets its key by itself.
        mine = once if len(set(readers.tolist())) == 1 else read
        order += [*own, *(heads + mine), *(heads + kv_heads + mine)]
        queries.append(len(own))
        keys.append(len(mine))
    sent = tuple(query + 2 * key for query, key in zip(queries, keys, strict=True))
    return Heads(tuple(map(int, order)), sent, tuple(queries), tuple(keys))


@cache
def _index(order: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(order, device=device)


class SequenceGroup:
    """The ranks that this rank passes packs with."""

    def __init__(self, rank: int, ranks: int, size: int) -> None:
        """Make the groups of `size` ranks each, neighbours together. Collective over all `ranks`.

        Raises:
            InputError: the ranks do not divide into such groups.
        """
        from deepspeed import comm

        if ranks % size:
            raise InputError(f"learner.sequence_parallel = {size} does not divide learner.ranks = {ranks}")
        self.size = size
        self.number, self.index = divmod(rank, size)
        """Which group this is, and which of its ranks this one."""
        groups = [comm.new_group(list(range(first, first + size))) for first in range(0, ranks, size)]
        self._handle: Any = groups[self.number]

    def own(self, tokens: int) -> slice:
        """The tokens of this rank, of so many, which the ranks share equally."""
        share = tokens // self.size
        return slice(self.index * share, (self.index + 1) * share)

    def with_all_tokens(self, query: Tensor, key: Tensor, value: Tensor, attend: Attend) -> Tensor:
        """Attention of this rank's heads over the tokens of all.

        Args:
            query, key, value: [T / ranks, heads or kv_heads, D] states of this rank's tokens; values may be smaller.

        Returns: [T / ranks, heads, D'] of this rank's tokens.
        """
        heads = split_heads(query.shape[1], key.shape[1], self.size)
        size, value_size = query.shape[2], value.shape[2]
        states = torch.cat([query, key, pad(value, (0, size - value_size))], 1)
        states = states.transpose(0, 1).index_select(0, _index(heads.order, query.device))
        mine = heads.sent[self.index]
        states = _Exchange.apply(states, heads.sent, (mine,) * self.size, self._handle)
        states = states.view(self.size, mine, -1, size).permute(0, 2, 1, 3).flatten(0, 1)
        queries, keys = heads.queries[self.index], heads.keys[self.index]
        query, key, value = states.split([queries, keys, keys], 1)
        sums = attend(query, key, value[..., :value_size])
        sums = sums.view(self.size, -1, queries, value_size).transpose(1, 2).flatten(0, 1)
        sums = _Exchange.apply(sums, (queries,) * self.size, heads.queries, self._handle)
        return sums.transpose(0, 1)

    def whole(self, values: Tensor, places: Tensor, count: int) -> Tensor:
        """[count] values of all ranks, of which this one has those at `places`; all ranks get them. Its gradient is that of
        what every rank then computes alike, so none is added to another."""
        result: Tensor = _Whole.apply(values, places, count, self._handle)
        return result


class _Exchange(torch.autograd.Function):
    """Rows for every rank in turn → rows from every rank in turn."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: tuple[int, ...], received: tuple[int, ...], handle: Any) -> Tensor:
        ctx.sent, ctx.received, ctx.handle = sent, received, handle
        return _exchange(rows, sent, received, handle)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Any, ...]:
        return _exchange(slopes, ctx.received, ctx.sent, ctx.handle), None, None, None


def _exchange(rows: Tensor, sent: tuple[int, ...], received: tuple[int, ...], handle: Any) -> Tensor:
    from deepspeed import comm

    result = rows.new_empty(sum(received), *rows.shape[1:])
    comm.all_to_all_single(result, rows.contiguous(), list(received), list(sent), group=handle)
    return result


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, count: int, handle: Any) -> Tensor:
        from deepspeed import comm

        ctx.save_for_backward(places)
        # Every place is one rank's; what the others add to it is 0, so that nothing is rounded.
        whole = values.new_zeros(count).index_copy(0, places, values.detach())
        comm.all_reduce(whole, group=handle)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Any, ...]:
        (places,) = ctx.saved_tensors
        return slopes.index_select(0, places), None, None, None
