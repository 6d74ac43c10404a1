"""The outcomes of problems that an evaluation record keeps, as a value a problem for every figure.

Written by orchestrator/evaluation/outcomes.py; records of earlier versions have none.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from orchestrator.results.columns import Figure, Record
from orchestrator.results.estimators import MOST, cons_at_k, pass_at_k

LENGTH = Figure("tokens", "length", lambda record: record.get("length_mean"), "tokens", 1)
REFLECTIONS = Figure("reflections", "re-checks", lambda record: record.get("reflections"), places=2)
REWARD = Figure("reward", "reward", lambda record: record.get("reward"), better="higher")


def outcomes_of(record: Record) -> Record:
    """What a record keeps of every problem; empty: nothing."""
    kept = record.get("outcomes")
    return kept if isinstance(kept, dict) else {}


def fingerprint_of(record: Record) -> str:
    """Digest of the problems that a record is of; empty: not known."""
    return str(outcomes_of(record).get("fingerprint", ""))


def samples_of(record: Record) -> int:
    """Samples of each problem, with right ones told; 0: there are none."""
    kept = outcomes_of(record)
    return max(kept.get("n", ()), default=0) if "right" in kept else 0


def figures_of(k: int, *, votes: bool) -> list[Figure]:
    """Figures that are compared, the steadiest first: a mean over samples moves less by chance than one answer a problem.

    Args:
        k: samples that every side has of a problem.
        votes: the answers of every side can be compared with each other.
    """
    shown = []
    if k:
        shown.append(_share("pass@1", "pass@1"))
        if k > 1 and votes:
            # A vote that gains more is no better: where every sample is right it gains nothing.
            gain = Figure("gain", "gain by vote", lambda record: None, "%", 1)
            shown += [_share(f"cons@{k}", f"cons@{k}"), gain]
        if k > 1:
            shown.append(_share(f"pass@{k}", f"pass@{k}"))
    return [*shown, _share("greedy", "greedy"), _share("won", "win rate"), REWARD, LENGTH, REFLECTIONS]


def _share(key: str, head: str) -> Figure:
    return Figure(key, head, lambda record: record.get(key), "%", 1, "higher")


def values_of(record: Record, key: str) -> np.ndarray | None:
    """[P] the value of a figure for each problem, NaN where there is none; None: the record has no such figure.

    Keys: `greedy`, `pass@K`, `cons@K`, `gain` (cons@k of all samples less pass@1), `won`, `reward`, `tokens`, `reflections`.
    """
    kept = outcomes_of(record)
    if key == "gain":
        votes, single = values_of(record, f"cons@{samples_of(record)}"), values_of(record, "pass@1")
        return None if votes is None or single is None else votes - single
    name, at, k = key.partition("@")
    if not at:
        return _column(kept.get(key))
    if name == "pass" and samples_of(record):
        pairs = zip(kept["n"], kept["right"], strict=True)
        return _column([pass_at_k(n, right, int(k)) if n >= int(k) else None for n, right in pairs])
    if name == "cons" and "votes" in kept:
        # Of all samples also where they are more than a curve shows.
        return _column(kept["majority"]) if int(k) == samples_of(record) else consensus(record)[int(k) - 1]
    return None


def consensus(record: Record) -> np.ndarray:
    """[K, P] cons@k of each problem for k = 1 … K, the samples of a problem but at most 64; NaN where it has fewer than k.

    That of all samples is the vote that was held, in which the earliest sample wins a tie, as in the record's own figure.
    """
    kept = outcomes_of(record)
    most = min(samples_of(record), MOST)
    table = np.full((most, len(kept["n"])), math.nan)
    for problem, (n, (right, *others)) in enumerate(zip(kept["n"], kept["votes"], strict=True)):
        chances = cons_at_k(right, tuple(others), n - right - sum(others))
        table[: len(chances), problem] = chances[:most]
    held = _column(kept["majority"])
    if most == samples_of(record) and held is not None:
        table[-1] = held
    return table


def coverage(record: Record) -> np.ndarray:
    """[K, P] pass@k of each problem for k = 1 … K, as `consensus`."""
    most = min(samples_of(record), MOST)
    rows = [values_of(record, f"pass@{k}") for k in range(1, most + 1)]
    return np.array([row for row in rows if row is not None])


def _column(values: Iterable[Any] | None) -> np.ndarray | None:
    return None if values is None else np.array([math.nan if value is None else float(value) for value in values])
