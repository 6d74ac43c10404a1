"""Scored groups → what the ranks compute on: flat packs of tokens with their share in the objective.

A sequence is a prompt and one completion. A pack is sequences laid end to end up to a token budget; attention does not
cross from one to the next (learner/attention.py). The weights carry the whole normalisation of a mini-batch:

    sequence   w = 1 / (S · L_i)    mean over the tokens of completion i, then over the S completions (GRPO)
    token      w = 1 / Σ_i L_i      mean over all tokens (DAPO)
    constant   w = 1 / (S · C)      sum over a fixed length C: no preference for long or short (Dr. GRPO)

so the sum over any partition into packs and ranks is the same objective.
"""

from collections.abc import Callable
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rewards.types import ScoredGroup

LengthNorm = Literal["sequence", "token", "constant"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sequence:
    """One row to train on: T tokens, of which the last L (its completion) may train."""

    token_ids: np.ndarray
    """[T] int64, prompt then completion."""
    first_target: int
    """Index of the first token that trains, ≥ 1."""
    advantage: float = 0.0
    rollout_logprobs: np.ndarray | None = None
    """[L] float32 of the tokens from `first_target` on; None for supervised data."""

    @property
    def num_targets(self) -> int:
        """L: tokens that train."""
        return len(self.token_ids) - self.first_target


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pack:
    """One forward pass of one rank. T tokens of all its sequences, N of them targets."""

    token_ids: np.ndarray
    """[T] int64"""
    position_ids: np.ndarray
    """[T] int64, restarts at 0 with every sequence."""
    lengths: np.ndarray
    """[S] int64 tokens of each sequence; sums to T."""
    rows: np.ndarray
    """[S] int64 which of the sequences given to `make_batch` each is; −1 in an empty pack."""
    target_positions: np.ndarray
    """[N] int64 index into T whose *next* token is a target."""
    targets: np.ndarray
    """[N] int64 token ids."""
    segments: np.ndarray
    """[N] int64 index into S: the sequence that the target belongs to."""
    weights: np.ndarray
    """[N] float32 share in the objective; 0 only in the empty pack of a rank without work."""
    advantages: np.ndarray
    """[N] float32 advantage of the target's completion."""
    rollout_logprobs: np.ndarray
    """[N] float32 sampler's; 0 for supervised data."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingBatch:
    """What the learner consumes at a time: one optimizer step a mini-batch."""

    packs: tuple[tuple[tuple[Pack, ...], ...], ...]
    """[mini-batch][rank][micro-batch]; every rank has the same number of micro-batches."""
    temperature: float
    """The sampler's; the learner divides its logits by it."""
    num_sequences: int
    num_tokens: int
    """Tokens forwarded, prompts included, no padding."""
    num_targets: int
    """Tokens that train."""

    @property
    def padding_share(self) -> float:
        """Of the tokens that pass through the model, those of empty packs: 0 unless a rank has less work than another."""
        forwarded = sum(len(pack.token_ids) for mini in self.packs for rank in mini for pack in rank)
        return 1 - self.num_tokens / forwarded if forwarded else 0.0


def sequences_of(group: ScoredGroup, advantages: np.ndarray, *, overlong_filtering: bool = False) -> list[Sequence]:
    """The completions of a scored group, each with its advantage. `advantages`: [G'] of all of them, in order.

    overlong_filtering: without those that were cut at the token limit (DAPO, arXiv:2503.14476, section 3.4). What they
    would have been is unknown, so they earn neither blame nor praise, and have no share in the means over what trains; the
    group is still judged with them.
    """
    prompt = np.asarray(group.prompt.token_ids, dtype=np.int64)
    return [
        Sequence(
            token_ids=np.concatenate([prompt, completion.token_ids.astype(np.int64)]),
            first_target=len(prompt),
            advantage=float(advantage),
            rollout_logprobs=completion.rollout_logprobs,
        )
        for completion, advantage in zip(group.completions, advantages, strict=True)
        if not (overlong_filtering and completion.finish_reason == "length")
    ]


def make_batch(
    sequences: Sequence_[Sequence],
    *,
    ranks: int,
    mini_batches: int,
    micro_batch_tokens: int,
    length_norm: LengthNorm,
    constant_length: int,
    temperature: float,
    seed: int,
    together: int = 1,
) -> TrainingBatch:
    """Cut sequences into mini-batches (at random, by `seed`), ranks and packs, with normalised weights.

    `together`: so many consecutive sequences stay in one pack, in their order (2: a chosen and a rejected answer). No
    sequences make a batch of no mini-batches.
    """
    assert len(sequences) % together == 0, f"{len(sequences)} sequences do not divide into units of {together}"
    order = np.random.default_rng(seed).permutation(len(sequences) // together)
    numbered = list(enumerate(sequences))
    pieces = [
        [numbered[unit * together : (unit + 1) * together] for unit in part]
        for part in np.array_split(order, mini_batches)
    ]
    return TrainingBatch(
        packs=tuple(
            _split(units, ranks, micro_batch_tokens, length_norm, constant_length) for units in pieces if units
        ),
        temperature=temperature,
        num_sequences=len(sequences),
        num_tokens=sum(len(sequence.token_ids) for sequence in sequences),
        num_targets=sum(sequence.num_targets for sequence in sequences),
    )


_Unit = list[tuple[int, Sequence]]
"""Sequences that stay together, each with its number."""


def _split(
    units: list[_Unit], ranks: int, budget: int, length_norm: LengthNorm, constant_length: int
) -> tuple[tuple[Pack, ...], ...]:
    """Balance units over ranks (longest first to the least loaded), then fill packs up to the budget."""
    sequences = [sequence for unit in units for _, sequence in unit]
    total_targets = sum(sequence.num_targets for sequence in sequences)

    def weight(sequence: Sequence) -> float:
        match length_norm:
            case "sequence":
                return 1 / (len(sequences) * sequence.num_targets)
            case "token":
                return 1 / total_targets
            case "constant":
                return 1 / (len(sequences) * constant_length)

    shares: list[list[_Unit]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for unit in sorted(units, key=_num_tokens, reverse=True):
        rank = loads.index(min(loads))
        shares[rank].append(unit)
        loads[rank] += _num_tokens(unit)
    per_rank = [[_pack(part, weight) for part in _fill(share, budget)] for share in shares]
    # Forward passes are collective under ZeRO-3, so a rank with less work runs empty packs.
    most = max(len(packs) for packs in per_rank)
    empty = _empty_pack(len(units[0]))
    return tuple(tuple(packs + [empty] * (most - len(packs))) for packs in per_rank)


def _num_tokens(unit: _Unit) -> int:
    return sum(len(sequence.token_ids) for _, sequence in unit)


def _fill(units: list[_Unit], budget: int) -> list[_Unit]:
    """Consecutive runs of at most `budget` tokens; a longer unit stands alone."""
    parts: list[_Unit] = []
    used = budget
    for unit in units:
        if used + _num_tokens(unit) > budget:
            parts.append([])
            used = 0
        parts[-1].extend(unit)
        used += _num_tokens(unit)
    return parts


def _pack(members: _Unit, weight: Callable[[Sequence], float]) -> Pack:
    sequences = [sequence for _, sequence in members]
    lengths = np.array([len(sequence.token_ids) for sequence in sequences], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    counts = [sequence.num_targets for sequence in sequences]
    spans = [
        np.arange(start + sequence.first_target - 1, start + length - 1)
        for start, length, sequence in zip(starts, lengths, sequences, strict=True)
    ]
    return Pack(
        token_ids=np.concatenate([sequence.token_ids for sequence in sequences]),
        position_ids=np.concatenate([np.arange(length) for length in lengths]),
        lengths=lengths,
        rows=np.array([row for row, _ in members], dtype=np.int64),
        target_positions=np.concatenate(spans),
        targets=np.concatenate([sequence.token_ids[sequence.first_target :] for sequence in sequences]),
        segments=np.repeat(np.arange(len(sequences)), counts),
        weights=np.repeat([weight(sequence) for sequence in sequences], counts).astype(np.float32),
        advantages=np.repeat([sequence.advantage for sequence in sequences], counts).astype(np.float32),
        rollout_logprobs=np.concatenate(
            [
                np.zeros(count, np.float32) if sequence.rollout_logprobs is None else sequence.rollout_logprobs
                for sequence, count in zip(sequences, counts, strict=True)
            ]
        ).astype(np.float32),
    )


def _empty_pack(together: int) -> Pack:
    """Sequences of two tokens with weight 0: takes part in the collectives, adds nothing."""
    first, zeros = 2 * np.arange(together), np.zeros(together, np.float32)
    return Pack(
        token_ids=np.zeros(2 * together, np.int64),
        position_ids=np.tile(np.arange(2), together),
        lengths=np.full(together, 2),
        rows=np.full(together, -1),
        target_positions=first,
        targets=np.zeros(together, np.int64),
        segments=np.arange(together),
        weights=zeros,
        advantages=zeros,
        rollout_logprobs=zeros,
    )
