"""What k answers to a problem are worth, estimated from n ≥ k samples of it.

pass@k is the chance that one of k samples is right, cons@k the chance that the majority of k samples is. Both are means over
all choices of k from the n samples, worked out by counting: nothing is drawn, and no order of the samples matters.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

MOST = 64
"""Largest k that is worked out."""


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that at least one of k samples is right: 1 − C(n − c, k) / C(n, k), with c = `right` of n samples.

    The unbiased estimator of Chen et al. 2021, Evaluating Large Language Models Trained on Code (arXiv:2107.03374, section
    2.1). pass@1 is c / n.

    Raises:
        ValueError: not 1 ≤ k ≤ n, or not 0 ≤ right ≤ n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass@{k} of {n} samples, {right} right")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


@lru_cache(maxsize=65536)
def cons_at_k(right: int, others: tuple[int, ...], silent: int) -> tuple[float, ...]:
    """Chance that the right answer has most votes among k of n samples, for k = 1 … min(n, 64). Of t answers with equally many
    votes each wins with 1/t, as when the earliest of a random order does.

    cons@k is the majority vote of DeepSeek-R1 (arXiv:2501.12948, section 3; self-consistency, arXiv:2203.11171).

    Args:
        right: votes for the right answer.
        others: votes for each other answer.
        silent: samples without an answer, which vote for nothing.

    The count: with r votes for the right answer among k, no other answer may have more. Answers with fewer than r votes in all
    never do, and count with the silent ones, s together. Of the others, h_j votes each: Σ_r C(right, r) · [x^(k−r)] (1 + x)^s
    Σ_t [y^t] Π_j (Σ_{i<r} C(h_j, i) x^i + y C(h_j, r) x^r) / (t + 1), over C(n, k), where t are tied with the right one.
    """
    n = right + sum(others) + silent
    most = min(n, MOST)
    ways = np.zeros(most + 1)
    for votes in range(1, min(right, most) + 1):
        rivals = [held for held in others if held >= votes]
        harmless = n - right - sum(rivals)
        table = _behind(votes, rivals, most - votes)
        shared = (table / np.arange(1, len(table) + 1)[:, None]).sum(axis=0)
        quiet = np.array([math.comb(harmless, i) for i in range(most - votes + 1)], dtype=float)
        ways[votes:] += math.comb(right, votes) * np.convolve(shared, quiet)[: most - votes + 1]
    return tuple(float(ways[k]) / math.comb(n, k) for k in range(1, most + 1))


def _behind(votes: int, rivals: Sequence[int], draws: int) -> np.ndarray:
    """[T, draws + 1] ways to draw so many samples of `rivals`, none more than `votes` times, by how many are drawn as often."""
    table = np.zeros((1 + min(len(rivals), draws // votes), draws + 1))
    table[0, 0] = 1.0
    for held in rivals:
        after = table.copy()
        for drawn in range(1, min(votes - 1, draws) + 1):
            after[:, drawn:] += math.comb(held, drawn) * table[:, :-drawn]
        if draws >= votes:
            after[1:, votes:] += math.comb(held, votes) * table[:-1, :-votes]
        table = after
    return table
