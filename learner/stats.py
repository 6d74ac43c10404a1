"""Figures of one batch: what each rank counts, and how packs and ranks are put together."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStats:
    """Figures of one batch on one rank."""

    figures: dict[str, float]
    """Sums over `count` tokens (pairs, where the objective compares pairs) and extremes, to be put together by `merge_figures`."""
    parts: dict[str, float]
    """This rank's share of the loss, by part, averaged over the mini-batches; shares and parts add up."""
    grad_norm: float
    """Global norm before clipping, mean over the mini-batches; the same on every rank."""
    lr: float
    """Learning rate of the last optimizer step."""
    seconds: float
    """Seconds that this rank took."""
    optimizer_steps: int
    """Optimizer steps since the stage began."""
    model_flops: float
    """FLOPs that the objective asks for on this rank's share (learner/throughput.py)."""
    peak_flops: float
    """FLOPs a second that the device reaches in matrix products: the best that was seen (learner/peak.py)."""
    memory_peak: int
    """Bytes, at most, during this call."""
    weights: str = ""
    """Digest of the weights that this rank's optimizer holds after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStats:
    """Figures of one batch over all ranks."""

    means: dict[str, float]
    """Mean of each figure of the loss (learner/losses/) over trained tokens, or over pairs where the objective compares pairs.
    Empty when nothing trained."""
    extremes: dict[str, float]
    """Smallest (`*_min`) and largest (`*_max`) values over trained tokens: ratio_min, ratio_max, mismatch_max."""
    count: int
    """Tokens, or pairs, that trained."""
    loss: float
    """Value of the objective, averaged over the mini-batches."""
    parts: dict[str, float]
    """Terms that the loss is the sum of, by name."""
    grad_norm: float
    """Global norm before clipping, mean over the mini-batches."""
    lr: float
    """Learning rate of the last optimizer step."""
    seconds: float
    """Seconds that the slowest rank took."""
    optimizer_steps: int
    """Optimizer steps since the stage began."""
    mfu: float
    """Model FLOPs utilisation: share of the measured matrix-multiply peak of all ranks (learner/peak.py), at most 1."""
    memory_peak: int
    """Bytes that the rank with most of them held at most."""
    weights: str = ""
    """Digest of all weights after it: of equal ranks it is equal if and, but for chance, only if the weights are."""


def train_stats(ranks: Sequence[RankStats]) -> TrainStats:
    """The figures of all ranks of one batch as one."""
    figures = merge_figures(rank.figures for rank in ranks)
    parts = merge_figures(rank.parts for rank in ranks)
    count = figures.pop("count", 0.0)
    seconds = max(rank.seconds for rank in ranks)
    return TrainStats(
        # Empty packs have figures too, which are of nothing.
        means={name: total / count for name, total in figures.items() if count and not is_extreme(name)},
        extremes={name: value for name, value in figures.items() if count and is_extreme(name)},
        count=int(count),
        loss=sum(parts.values()),
        parts=parts,
        grad_norm=ranks[0].grad_norm,
        lr=ranks[0].lr,
        seconds=seconds,
        optimizer_steps=ranks[0].optimizer_steps,
        mfu=sum(rank.model_flops for rank in ranks) / seconds / sum(rank.peak_flops for rank in ranks),
        memory_peak=max(rank.memory_peak for rank in ranks),
        weights=hashlib.blake2b("".join(rank.weights for rank in ranks).encode(), digest_size=8).hexdigest(),
    )


def merge_figures(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Figures of several packs or ranks: `*_min` the smallest, `*_max` the largest, everything else summed."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            if name not in total:
                total[name] = value
            elif is_extreme(name):
                total[name] = (min if name.endswith("_min") else max)(total[name], value)
            else:
                total[name] += value
    return total


def is_extreme(name: str) -> bool:
    """Whether a figure is a smallest or largest value and not a sum."""
    return name.endswith(("_min", "_max"))
