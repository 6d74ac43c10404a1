"""What is measured on held-out preference pairs, of a reward model or of the reward that a policy stands for.

With the margin m = score(chosen) − score(rejected), the Bradley–Terry model says that chosen is better with probability σ(m).

    accuracy            share of pairs in the right order; equal scores count one half
    log-loss            mean of −log σ(m); log 2 for a model that cannot tell
    calibration error   Σ_b n_b / n · |right share − mean confidence| over equal bins b of the confidence σ(|m|), which is the
                        probability of the order that the model holds for the right one (Guo et al. 2017, arXiv:1706.04599)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.data.pairs import Pair, pair_batch
from orchestrator.loop.context import StageContext
from orchestrator.results.words import percent

BINS = 10
"""Of confidences from ½ to 1."""
PAIRS_AT_A_TIME = 1024
"""Of one call to the learner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """One set, one model."""

    set: str
    pairs: int
    accuracy: float
    log_loss: float
    """Nats a pair."""
    calibration_error: float
    margin_mean: float
    bins: tuple[tuple[float, float, int], ...]
    """(mean confidence, right share, pairs) of every bin that holds some, the least confident first."""

    def record(self) -> dict[str, Any]:
        """As metrics.jsonl holds it."""
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
    """`margins`: [P] score of chosen − score of rejected, at least one."""
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


async def judge_pairs(
    context: StageContext, sets: Mapping[str, Sequence[Pair]], step: int, label: str
) -> list[PairResult]:
    """Every set by the weights that the learner holds; recorded and printed."""
    learner = await context.services.learner()
    results = []
    for name, pairs in sets.items():
        with context.clocks.evaluate.running():
            scores = [
                await learner.scores(pair_batch(pairs[first : first + PAIRS_AT_A_TIME], context.stage, seed=0))
                for first in range(0, len(pairs), PAIRS_AT_A_TIME)
            ]
        chosen, rejected = np.concatenate(scores).reshape(-1, 2).T
        result = measure(name, chosen - rejected)
        context.store.record("eval", context.stage.name, step=step, label=label, **result.record())
        context.display.line(
            f"{name} {label} {context.stage.name} (step {step}): {percent(result.accuracy)} of {result.pairs} pairs in "
            f"order, log-loss {result.log_loss:.3f}, calibration error {percent(result.calibration_error)}"
        )
        results.append(result)
    return results
