"""How far a figure may be off by the choice of problems, and of seeds: the bootstrap (Efron 1979, Annals of Statistics 7, 1–26).

A set's problems stand for all problems of their kind. Drawing as many again from them, with replacement, and taking the mean,
many times, shows how much the mean moves; the middle 95 % of these means are the interval (percentile bootstrap). Of two sides
the same problems are drawn at a time, so what is easy or hard for both drops out: the paired bootstrap (Koehn 2004, Statistical
Significance Tests for Machine Translation Evaluation, EMNLP). Of several runs of one recipe (seeds) runs are drawn too,
independently of the problems (Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1, 386–411).

Everything is seeded: the same files give the same figures.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4_000
LEVEL = 0.95
"""Share of the resampled means that an interval holds."""
CELLS = 4_000_000
"""Entries of the largest table in memory."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its interval."""

    value: float
    low: float
    high: float


def resampled_means(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Means of each row over the same resamples of the problems.

    Args:
        values: [M, P] by row and problem; NaN: none there, and the mean is over the others.

    Returns:
        [M, B] means, B = `resamples`; NaN where a resample has no value of the row.
    """
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    parts = []
    for weights in _weights(values.shape[1], seed, resamples):
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((filled @ weights.T) / (there.astype(float) @ weights.T))
    return np.concatenate(parts, axis=1)


def estimate(value: float, drawn: np.ndarray) -> Estimate:
    """A figure with the interval of its resamples, [B]."""
    rest = (1 - LEVEL) / 2
    low, high = np.nanquantile(drawn, (rest, 1 - rest))
    return Estimate(value, float(low), float(high))


def over_runs(means: np.ndarray, seed: int) -> np.ndarray:
    """[B] means over resamples of the runs, of [R, B] means of each run; with one run its own."""
    runs, count = means.shape
    if runs == 1:
        return means[0]
    weights = np.random.default_rng(seed).multinomial(runs, np.full(runs, 1 / runs), size=count)
    return np.asarray((weights.T * means).sum(axis=0) / runs)


def _weights(problems: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each problem is drawn, [B, P], in parts, B = `resamples` altogether."""
    rng = np.random.default_rng((seed, problems))
    size = max(1, CELLS // max(1, problems))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = rng.integers(problems, size=(count, problems)) + problems * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * problems).reshape(count, problems).astype(float)
