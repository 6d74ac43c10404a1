"""What is measured on held-out preference pairs, of a reward model or of the reward that a policy stands for.

With the margin m = score(chosen) − score(rejected), the Bradley–Terry model says that chosen is better with probability σ(m).

    accuracy            share of pairs in the right order; equal scores count one half
    log-loss            mean of −log σ(m); log 2 for a model that cannot tell
    calibration error   Σ_b n_b / n · |right share − mean confidence| over equal bins b of the confidence σ(|m|), which is the
                        probability of the order that the model holds for the right one (Guo et al. 2017, arXiv:1706.04599)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 10
"""Number of bins that the confidences from ½ to 1 fall into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """Figures of one set and one model."""

    set: str
    pairs: int
    accuracy: float
    log_loss: float
    """Mean loss of a pair in nats."""
    calibration_error: float
    margin_mean: float
    bins: tuple[tuple[float, float, int], ...]
    """Calibration: (mean confidence, right share, pairs) of every bin that holds some, the least confident first."""

    def record(self) -> dict[str, Any]:
        """The result as metrics.jsonl holds it."""
        return {
            "set": self.set,
            "pairs": self.pairs,
            "accuracy": self.accuracy,
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
            "margin_mean": self.margin_mean,
            "bins": [list(each) for each in self.bins],
        }


def measure(name: str, margins: np.ndarray) -> PairResult:
    """Figures of a set from its margins. `margins`: [P] score of chosen − score of rejected, at least one."""
    right = np.where(margins == 0, 0.5, margins > 0)
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    bins = []
    places = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    for place in range(BINS):
        inside = places == place
        if inside.any():
            bins.append((float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum())))
    return PairResult(
        set=name,
        pairs=len(margins),
        accuracy=float(right.mean()),
        log_loss=float(np.logaddexp(0, -margins).mean()),
        calibration_error=sum(count * abs(share - sure) for sure, share, count in bins) / len(margins),
        margin_mean=float(margins.mean()),
        bins=tuple(bins),
    )
