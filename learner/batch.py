"""Scored groups → what the ranks compute on: flat packs of tokens with their share in the objective.

A sequence is a prompt and one completion. A pack is sequences laid end to end up to a token budget; attention does not
cross from one to the next (learner/model/attention.py). Sequences of one pack that have the same prompt share it: its tokens
stand there once, and are read by all of them. That always pays, since nothing is computed that would not be computed
apart; it saves (G − 1) · P of the G · (P + L) tokens of a group with prompts of P and completions of L tokens, so most where
prompts are long beside completions. What it costs is freedom to balance, so ranks decide how far to go (`_cut`).

The weights carry the whole normalisation of a mini-batch:

    sequence   w = 1 / (S · L_i)    mean over the tokens of completion i, then over the S completions (GRPO)
    token      w = 1 / Σ_i L_i      mean over all tokens (DAPO)
    constant   w = 1 / (S · C)      sum over a fixed length C: no preference for long or short (Dr. GRPO)

so the sum over any partition into packs and ranks is the same objective. So it is without completions whose share in it is zero
whatever the weights of the model (`make_batch`, `only_signal`): S and Σ L count them, and no pack has them.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from rewards.types import ScoredGroup

_LEAST_SHARED = 8
"""Tokens of the shortest prompt that is shared: a few tokens cost less than reading them from another place."""

LengthNorm = Literal["sequence", "token", "constant"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingSequence:
    """One prompt and completion to train on: T tokens, of which the last L (the completion) train."""

    token_ids: np.ndarray
    """[T] int64, prompt then completion."""
    first_target: int
    """Index of the first token that trains, ≥ 1."""
    advantage: float = 0.0
    """Advantage of the completion; 0 for supervised data."""
    rollout_logprobs: np.ndarray | None = None
    """[L] float32 log-probabilities that the sampler gave the targets; None for supervised data."""

    @property
    def prompt(self) -> bytes:
        """Key of the prompt, the same for sequences that may share it; empty: too short to be worth sharing."""
        return self.token_ids[: self.first_target].tobytes() if self.first_target >= _LEAST_SHARED else b""

    @property
    def num_targets(self) -> int:
        """L, the number of tokens that train."""
        return len(self.token_ids) - self.first_target


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pack:
    """One forward pass of one rank: K spans of tokens, T in all, that make S sequences with N targets.

    A span is a whole sequence, a prompt that several sequences share, or what one of those has after it.
    """

    token_ids: np.ndarray
    """[T] int64 tokens of all spans, end to end."""
    position_ids: np.ndarray
    """[T] int64 place of each token in its sequence."""
    lengths: np.ndarray
    """[K] int64 tokens of each span; sums to T."""
    prefixes: np.ndarray
    """[K] int64 which span is read before this one (the shared prompt); −1: none."""
    indices: np.ndarray
    """[S] int64 index of each sequence among those given to `make_batch`; −1 in an empty pack."""
    ends: np.ndarray
    """[S] int64 index into T of each sequence's last token."""
    target_positions: np.ndarray
    """[N] int64 index into T of the token that a target follows; the end of a shared prompt once for each of its sequences."""
    targets: np.ndarray
    """[N] int64 token ids that are to be predicted."""
    segments: np.ndarray
    """[N] int64 index into S: the sequence that the target belongs to."""
    weights: np.ndarray
    """[N] float32 share in the objective; 0 only in the empty pack of a rank without work."""
    advantages: np.ndarray
    """[N] float32 advantage of the target's completion."""
    rollout_logprobs: np.ndarray
    """[N] float32 log-probabilities that the sampler gave the targets; 0 for supervised data."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingBatch:
    """What the learner consumes at a time: one optimizer step a mini-batch."""

    packs: tuple[tuple[tuple[Pack, ...], ...], ...]
    """[mini-batch][rank][micro-batch]; every rank has the same number of micro-batches. Ranks that pass packs together
    (learner/model/sequence.py) are one here."""
    temperature: float
    """Temperature of the samples; the learner divides its logits by it."""
    num_sequences: int
    """Number of sequences in all packs."""
    num_skipped: int = 0
    """Number of sequences beside them that count in the normalisation and are in no pack, since they have no gradient."""
    num_tokens: int
    """Number of tokens of the sequences in packs, prompts included, also where a shared one is forwarded once."""
    num_targets: int
    """Number of tokens that train."""

    @property
    def skipped_share(self) -> float:
        """Share of the sequences of the objective that are in no pack."""
        total = self.num_sequences + self.num_skipped
        return self.num_skipped / total if total else 0.0

    @property
    def padding_share(self) -> float:
        """Share of empty packs in the tokens that pass through the model: 0 unless a rank has less work than another."""
        packs = [pack for mini in self.packs for rank in mini for pack in rank]
        forwarded = sum(len(pack.token_ids) for pack in packs)
        padding = sum(len(pack.token_ids) for pack in packs if not pack.weights.any())
        return padding / forwarded if forwarded else 0.0


def sequences_of(
    group: ScoredGroup, advantages: np.ndarray, *, overlong_filtering: bool = False
) -> list[TrainingSequence]:
    """The completions of a scored group, each with its advantage. `advantages`: [G'] of all of them, in order.

    overlong_filtering: without those that were cut at the token limit (DAPO, arXiv:2503.14476, section 3.4). What they
    would have been is unknown, so they do not train and have no share in the means over what trains; the advantages of the
    group are still made with them.
    """
    prompt = np.asarray(group.prompt.token_ids, dtype=np.int64)
    return [
        TrainingSequence(
            token_ids=np.concatenate([prompt, completion.token_ids.astype(np.int64)]),
            first_target=len(prompt),
            advantage=float(advantage),
            rollout_logprobs=completion.rollout_logprobs,
        )
        for completion, advantage in zip(group.completions, advantages, strict=True)
        if not (overlong_filtering and completion.finish_reason == "length")
    ]


def make_batch(
    sequences: Sequence[TrainingSequence],
    *,
    ranks: int,
    mini_batches: int,
    micro_batch_tokens: int,
    length_norm: LengthNorm,
    constant_length: int,
    temperature: float,
    seed: int,
    together: int = 1,
    only_signal: bool = False,
) -> TrainingBatch:
    """Cut sequences into mini-batches (at random, by `seed`), ranks and packs, with normalised weights.

    `together`: so many consecutive sequences stay in one pack, in their order (2: a chosen and a rejected answer). No
    sequences make a batch of no mini-batches.

    `only_signal`: units whose advantages are all exactly 0 are in no pack. Mini-batches and weights are those of the whole batch,
    to the last bit; a mini-batch of which nothing is left has an empty pack for each rank, so that its optimizer step is taken.
    For a loss that is a multiple of the advantage.
    """
    assert len(sequences) % together == 0, f"{len(sequences)} sequences do not divide into units of {together}"
    order = np.random.default_rng(seed).permutation(len(sequences) // together)
    numbered = list(enumerate(sequences))
    pieces = [
        [numbered[unit * together : (unit + 1) * together] for unit in part]
        for part in np.array_split(order, mini_batches)
    ]
    minis = [_mini_batch(units, length_norm, constant_length, only_signal) for units in pieces if units]
    packed = [sequence for mini in minis for unit in mini.units for _, sequence in unit]
    return TrainingBatch(
        packs=tuple(_split(mini, ranks, micro_batch_tokens, together) for mini in minis),
        temperature=temperature,
        num_sequences=len(packed),
        num_skipped=len(sequences) - len(packed),
        num_tokens=sum(len(sequence.token_ids) for sequence in packed),
        num_targets=sum(sequence.num_targets for sequence in packed),
    )


_Unit = list[tuple[int, TrainingSequence]]
"""Sequences that stay together, each with its number."""


_Weight = Callable[[TrainingSequence], float]
"""Share in the objective of each target of a sequence."""


class _MiniBatch(NamedTuple):
    """What one optimizer step trains on."""

    units: list[_Unit]
    """Those that are computed."""
    weight: _Weight
    """By all of its units, computed or not."""


def _mini_batch(units: list[_Unit], length_norm: LengthNorm, constant_length: int, only_signal: bool) -> _MiniBatch:
    sequences = [sequence for unit in units for _, sequence in unit]
    total_targets = sum(sequence.num_targets for sequence in sequences)

    def weight(sequence: TrainingSequence) -> float:
        match length_norm:
            case "sequence":
                return 1 / (len(sequences) * sequence.num_targets)
            case "token":
                return 1 / total_targets
            case "constant":
                return 1 / (len(sequences) * constant_length)

    computed = [unit for unit in units if not only_signal or any(sequence.advantage for _, sequence in unit)]
    return _MiniBatch(computed, weight)


def _split(mini: _MiniBatch, ranks: int, budget: int, together: int) -> tuple[tuple[Pack, ...], ...]:
    """Balance units over ranks (longest first to the least loaded), then fill packs up to the budget."""
    bins = _cut(mini.units, ranks, budget) or [[] for _ in range(ranks)]
    # Forward passes are collective under ZeRO-3, so a rank with less work runs empty packs.
    packs = [_pack(members, mini.weight) if members else _empty_pack(together) for members in bins]
    # From the fullest on, there and back over the ranks, so that the sums of the ranks are equal too.
    steps = [packs[first : first + ranks] for first in range(0, len(packs), ranks)]
    return tuple(zip(*(step if i % 2 == 0 else step[::-1] for i, step in enumerate(steps)), strict=True))


def _num_tokens(members: _Unit) -> int:
    """Number of tokens to forward: a prompt that sequences share counts once."""
    total, seen = 0, set()
    for _, sequence in members:
        total += sequence.num_targets if sequence.prompt in seen else len(sequence.token_ids)
        if sequence.prompt:
            seen.add(sequence.prompt)
    return total


def _cut(units: list[_Unit], ranks: int, budget: int) -> list[_Unit]:
    """Units → packs, a multiple of `ranks`, the fullest first.

    Units with the same prompt stay together, in pieces: large ones repeat few prompts, small ones balance better. The size
    that lets the ranks finish first is taken: where they wait for each other, a step lasts as long as its fullest pack.
    """
    mean = sum(map(_num_tokens, units)) / ranks
    sizes = {budget} | {min(budget, math.ceil(mean / parts)) for parts in (1, 2, 3, 4, 6, 8, 12, 16, 32)}
    candidates = [_balance(_pieces(units, size), ranks, budget) for size in sorted(sizes, reverse=True)]
    return min(candidates, key=lambda packs: sum(map(_num_tokens, packs[::ranks])))


def _pieces(units: list[_Unit], size: int) -> list[_Unit]:
    """Units with the same prompt, in pieces of up to `size` tokens; a larger unit is a piece by itself."""
    by_prompt: dict[object, list[_Unit]] = {}
    for unit in sorted(units, key=_num_tokens, reverse=True):
        by_prompt.setdefault(unit[0][1].prompt or id(unit), []).append(unit)
    pieces: list[_Unit] = []
    for same in by_prompt.values():
        shared = same[0][0][1].first_target
        used = math.inf
        for unit in same:
            cost = _num_tokens(unit)
            if used + cost - shared > size:
                pieces.append([])
                used = shared
            pieces[-1].extend(unit)
            used += cost - shared
    return pieces


def _balance(pieces: list[_Unit], ranks: int, budget: int) -> list[_Unit]:
    """Pieces → packs, a multiple of `ranks` and as few as the budget allows, the fullest first.

    Largest first, each to the pack with the least so far. A piece over the budget (one long sequence) stands alone.
    """
    costs = {id(piece): _num_tokens(piece) for piece in pieces}
    pieces = sorted(pieces, key=lambda piece: costs[id(piece)], reverse=True)
    alone = sum(cost > budget for cost in costs.values())
    least = alone + -(-sum(cost for cost in costs.values() if cost <= budget) // budget)
    for steps in range(-(-least // ranks), len(pieces) + 1):
        bins: list[_Unit] = [[] for _ in range(steps * ranks)]
        loads = [0] * len(bins)
        for piece in pieces:
            least_loaded = loads.index(min(loads))
            if loads[least_loaded] and loads[least_loaded] + costs[id(piece)] > budget:
                break
            bins[least_loaded].extend(piece)
            loads[least_loaded] += costs[id(piece)]
        else:
            return sorted(bins, key=_num_tokens, reverse=True)
    raise AssertionError("a pack for every piece is always enough")


class _Spans(NamedTuple):
    """Where the tokens of a pack's sequences stand, a shared prompt once."""

    token_ids: list[np.ndarray]
    """Token ids of each span."""
    firsts: list[int]
    """Position of each span's first token in its sequence."""
    prefixes: list[int]
    """Span that is read before each span; −1: none."""
    sources: list[int]
    """Span of the token before the first target of each sequence."""
    own: list[int]
    """Span of the last token of each sequence."""


def _lay_out(sequences: list[TrainingSequence]) -> _Spans:
    spans = _Spans([], [], [], [], [])

    def add(token_ids: np.ndarray, first: int = 0, prefix: int = -1) -> int:
        spans.token_ids.append(token_ids)
        spans.firsts.append(first)
        spans.prefixes.append(prefix)
        return len(spans.token_ids) - 1

    uses = Counter(sequence.prompt for sequence in sequences if sequence.prompt)
    shared: dict[bytes, int] = {}
    """Shared prompt → its span."""
    for sequence in sequences:
        first = sequence.first_target
        if uses[sequence.prompt] < 2:
            whole = add(sequence.token_ids)
            spans.sources.append(whole)
            spans.own.append(whole)
        else:
            if sequence.prompt not in shared:
                shared[sequence.prompt] = add(sequence.token_ids[:first])
            prefix = shared[sequence.prompt]
            spans.sources.append(prefix)
            spans.own.append(add(sequence.token_ids[first:], first, prefix))
    return spans


def _pack(members: _Unit, weight: _Weight) -> Pack:
    sequences = [sequence for _, sequence in members]
    spans = _lay_out(sequences)
    lengths = np.array([len(span) for span in spans.token_ids], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    ends = (starts + lengths - 1)[spans.own]
    counts = [sequence.num_targets for sequence in sequences]
    positions = [
        np.concatenate([[starts[source] + sequence.first_target - 1], np.arange(end - count + 1, end)])
        for sequence, source, end, count in zip(sequences, spans.sources, ends, counts, strict=True)
    ]
    return Pack(
        token_ids=np.concatenate(spans.token_ids),
        position_ids=np.concatenate(
            [np.arange(first, first + len(span)) for first, span in zip(spans.firsts, spans.token_ids, strict=True)]
        ),
        lengths=lengths,
        prefixes=np.array(spans.prefixes, dtype=np.int64),
        indices=np.array([index for index, _ in members], dtype=np.int64),
        ends=ends,
        target_positions=np.concatenate(positions),
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
        prefixes=np.full(together, -1),
        indices=np.full(together, -1),
        ends=first + 1,
        target_positions=first,
        targets=np.zeros(together, np.int64),
        segments=np.arange(together),
        weights=zeros,
        advantages=zeros,
        rollout_logprobs=zeros,
    )
