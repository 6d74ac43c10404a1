"""How far the log-probabilities of the learner and of those that sampled are apart: whether they hold the same weights.

In bfloat16 the same weights differ too, now and then by much: at single tokens by 0.3 to 0.7, as others measured (TRL issue
6789, vLLM issue 18352), and the more tokens the larger the largest. Means and upper quantiles do not grow with their number, and
other weights move both: so those are judged, and the largest is only told.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

QUANTILE = 0.99
TAIL = 10.0
"""Times the tolerance of the mean that the quantile may reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobGap:
    """|learner − sampler| over tokens, in nats."""

    mean: float
    high: float
    """The 99th percentile."""
    largest: float
    tokens: int

    def within(self, tolerance: float) -> bool:
        """Whether this is what rounding makes of equal weights. `tolerance`: of the mean."""
        return self.mean <= tolerance and self.high <= TAIL * tolerance

    def __str__(self) -> str:
        return f"mean {self.mean:.2g}, 99th percentile {self.high:.2g}, largest {self.largest:.2g} of {self.tokens:,} tokens"


def logprob_gaps(
    packs: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], sampler: Sequence[int]
) -> dict[int, LogprobGap]:
    """Sampler → its gap.

    Args:
        packs: (sequence, learner's logprob, sampler's logprob) of targets, each [N].
        sampler: [S] of each sequence.
    """
    sequences, learner, sampled = (np.concatenate(parts) for parts in zip(*packs, strict=True))
    gaps = np.abs(learner.astype(np.float64) - sampled)
    owners = np.asarray(sampler)[sequences]
    return {int(owner): _gap(gaps[owners == owner]) for owner in np.unique(owners)}


def _gap(values: np.ndarray) -> LogprobGap:
    return LogprobGap(
        mean=float(values.mean()),
        high=float(np.quantile(values, QUANTILE)),
        largest=float(values.max()),
        tokens=len(values),
    )


def worst(gaps: Iterable[LogprobGap]) -> LogprobGap:
    """The largest of each figure over several samplers."""
    gaps = list(gaps)
    return LogprobGap(
        mean=max(gap.mean for gap in gaps),
        high=max(gap.high for gap in gaps),
        largest=max(gap.largest for gap in gaps),
        tokens=sum(gap.tokens for gap in gaps),
    )
