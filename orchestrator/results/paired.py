"""Is B better than A, and how sure: tests on the same problems answered by both.

p is the chance of a difference at least as large, in either direction, if there were none. Small p: hardly chance.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.results.bootstrap import Estimate, estimate

Test = Literal["exact", "bootstrap"]
SURE = 0.05
"""A difference with a smaller p is told as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A figure of B less that of A, on the same problems."""

    estimate: Estimate
    p: float
    test: Test
    """`exact`: sign test on the problems that one of two runs has right and the other wrong; `bootstrap`: of means."""
    more: int
    """Problems on which B has more."""
    less: int
    """Problems on which B has less; on the others both have the same."""

    @property
    def sure(self) -> bool:
        """Whether the difference is unlikely to be chance."""
        return self.p < SURE


def sign_test(more: int, less: int) -> float:
    """Two-sided p of the exact sign test: min(1, 2 · P(X ≤ min(more, less))), X ~ Binomial(more + less, ½).

    For right and wrong answers it is McNemar's test in its exact form (McNemar 1947, Psychometrika 12, 153–157; the sign test:
    Dixon and Mood 1946, Journal of the American Statistical Association 41, 557–566).
    """
    n = more + less
    below = sum(math.comb(n, i) for i in range(min(more, less) + 1))
    return min(1.0, 2 * below / 2**n)


def bootstrap_p(drawn: np.ndarray) -> float:
    """Two-sided p of resampled differences, [B]: twice the share that does not lie on the greater side of zero, one added to both
    counts so that it is never 0 (Davison and Hinkley 1997, Bootstrap Methods and their Application, section 4.2)."""
    known = drawn[~np.isnan(drawn)]
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return float(min(1.0, 2 * (beyond + 1) / (len(known) + 1)))


def is_binary(*sides: np.ndarray) -> bool:
    """Whether there is one run on each side, [1, P], and every value is right (1) or wrong (0), or missing."""
    return all(len(side) == 1 and bool(np.isin(side[~np.isnan(side)], (0.0, 1.0)).all()) for side in sides)


def difference(
    a: np.ndarray, b: np.ndarray, drawn_a: np.ndarray, drawn_b: np.ndarray, *, exact: bool = False
) -> Difference:
    """B against A.

    Args:
        a, b: [R, P] values by run and problem, NaN where there is none, on the same problems in both.
        drawn_a, drawn_b: [B] means of both over the same resamples.
        exact: the sign test says how sure it is, as for answers that are right or wrong.
    """
    each_a, each_b = (side[:, ~np.isnan(side).any(axis=0)].mean(axis=0) for side in (a, b))
    apart = each_b - each_a
    # Means of seeds that are equal may differ in the last digit.
    more, less = (int((sign * apart > 1e-9).sum()) for sign in (1, -1))
    drawn = drawn_b - drawn_a
    drawn = np.where(np.abs(drawn) < 1e-12, 0.0, drawn)
    return Difference(
        estimate=estimate(float(apart.mean()), drawn),
        p=sign_test(more, less) if exact else bootstrap_p(drawn),
        test="exact" if exact else "bootstrap",
        more=more,
        less=less,
    )
