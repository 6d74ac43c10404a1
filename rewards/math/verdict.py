"""Verdicts on math answers: whether what a response commits itself to equals the reference.

`rewards.math.extract` finds the answer. Most answers are decided at once and exactly (`rewards.math.exact`); the rest are
`needs_symbolic`, and `verdict` sends them to sympy in a process that is killed at its deadline (`rewards.math.symbolic`,
`rewards.processes`). Equal means equal: no rounding, no tolerance. A response that states several different answers is
wrong, unless together they are the list asked for. Nothing that a model writes is ever evaluated as code.

The exact part is by hand: math-verify alone accepts 85 of 400 wrong pairs and is sixty times slower (CONTRIBUTING.md, "Tried and
dropped"). It serves the symbolic part.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rewards.math.compare import Decision
from rewards.math.exact import MAX_LENGTH, compare_all
from rewards.math.extract import final_answer, find_answers
from rewards.processes.pool import KillablePool, Outcome
from rollout.data.thoughts import ANSWER_OPEN

SYMBOLIC = "rewards.math.symbolic"
"""The module that a pool for `verdict` preloads."""

VerdictStatus = Literal["correct", "wrong", "no_answer", "needs_symbolic", "timeout", "error"]

_CACHE_SIZE = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said of one response."""

    status: VerdictStatus
    """`needs_symbolic` only from `decide`; `timeout` (too slow to decide: not right) and `error` only from `verdict`."""
    extracted: str | None
    """The final answer as the response spells it; None without one."""
    seconds: float = 0.0
    """Wall time that the verdict took, waiting for the pool included."""
    error: str = ""
    """Why there is no verdict, when `status == "error"`."""

    @property
    def value(self) -> float:
        """1.0 for a right answer, else 0.0. Not defined for an `error`."""
        return 1.0 if self.status == "correct" else 0.0


def decide(response: str, reference: str, pattern: str | None = None, *, prompt: str = "") -> Verdict:
    """The verdict of the exact rungs alone; `needs_symbolic` where they cannot say.

    Args:
        response: the whole completion.
        reference: the right answer, as the data set spells it: `1,234`, `033`, `27.0`, LaTeX, a sentence with a box.
        pattern, prompt: where the answer is, as for `rewards.math.extract.find_answers`.
    """
    return _decide(response, reference, pattern, prompt)[0]


async def verdict(
    response: str,
    reference: str,
    pool: KillablePool,
    *,
    pattern: str | None = None,
    prompt: str = "",
    deadline_s: float = 2.0,
) -> Verdict:
    """The verdict, with sympy for what the exact rungs leave open.

    Args:
        pool: that preloads `SYMBOLIC`.
        deadline_s: for the symbolic rung.

    Raises:
        ServiceError: the pool cannot start a process.
    """
    began = time.perf_counter()
    exact, answers, gold = _decide(response, reference, pattern, prompt)
    if exact.status != "needs_symbolic":
        return exact
    status, error = await _symbolic(answers, gold, pool, deadline_s)
    return Verdict(status=status, extracted=exact.extracted, seconds=time.perf_counter() - began, error=error)


# --- Steps


def _decide(response: str, reference: str, pattern: str | None, prompt: str) -> tuple[Verdict, tuple[str, ...], str]:
    began = time.perf_counter()
    answers = find_answers(response, pattern, prompt=prompt)
    gold = gold_answer(reference)
    if not answers:
        none = Verdict(status="no_answer", extracted=None, seconds=time.perf_counter() - began)
        return none, answers, gold
    # Long texts are compared as they are; keeping them would only fill the cache.
    short = sum(map(len, answers)) + len(gold) <= MAX_LENGTH
    decision = (_compare if short else compare_all)(answers, gold)
    status: VerdictStatus = "needs_symbolic" if decision is None else "correct" if decision else "wrong"
    return Verdict(status=status, extracted=answers[-1], seconds=time.perf_counter() - began), answers, gold


@lru_cache(maxsize=_CACHE_SIZE)
def _compare(answers: tuple[str, ...], gold: str) -> Decision:
    return compare_all(answers, gold)


@lru_cache(maxsize=_CACHE_SIZE)
def gold_answer(reference: str) -> str:
    """The answer in a reference, which may be a whole worked solution: its box, or what follows `####`; else all of it."""
    if "\\boxed" in reference or "####" in reference or ANSWER_OPEN in reference:
        return final_answer(reference) or reference
    return reference


_proved: dict[tuple[tuple[str, ...], str], bool] = {}
"""What sympy has said before, by (answers, gold); the oldest leave first."""


async def _symbolic(
    answers: tuple[str, ...], gold: str, pool: KillablePool, deadline_s: float
) -> tuple[VerdictStatus, str]:
    key = (answers, gold)
    if key not in _proved:
        outcome = await _ask(pool, answers, gold, deadline_s)
        if outcome.kind == "crashed":
            # It may have been the process and not the input: once more, in a fresh one.
            outcome = await _ask(pool, answers, gold, deadline_s)
        if outcome.kind != "ok":
            return ("timeout", "") if outcome.kind == "timeout" else ("error", outcome.error)
        if len(_proved) >= _CACHE_SIZE:
            del _proved[next(iter(_proved))]
        _proved[key] = bool(outcome.value)
    return ("correct" if _proved[key] else "wrong"), ""


async def _ask(pool: KillablePool, answers: tuple[str, ...], gold: str, deadline_s: float) -> Outcome:
    return await pool.call(f"{SYMBOLIC}:equivalent", [list(answers), gold], deadline_s=deadline_s)
