"""A rubric: weighted reward functions that score a completion, and those that need the whole group.

    reward = Σ weight · value      over the functions whose gate is open

A function that has a `gate` counts only where the gated function's value is 1 or more: style counts only if the answer
is right. Functions of a rubric run side by side.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence

from rewards.builtin import build_function
from rewards.functions import RewardFunction, UserFunction, check_name, may_see_group
from rewards.resources import Resources
from rewards.types import FunctionScore, FunctionSpec, GroupScore, RubricSpec, Sample, Score, Unavailable
from rollout.errors import InputError, ServiceError

DIGITS = 12
"""Digits of a reward; beyond them is the rounding of its sum."""

SILENT = "no reward function of the rubric says anything of this completion"


class Rubric:
    """The reward functions of one scenario."""

    def __init__(self, name: str, functions: RubricSpec, resources: Resources) -> None:
        """Raises InputError when a reward function does not exist, has moved, or does not take its arguments."""
        for spec in functions:
            check_name(spec.name)
        self.name = name
        self.functions = tuple(functions)
        self._all: list[tuple[FunctionSpec, RewardFunction]] = [
            (spec, build_function(spec, resources)) for spec in functions
        ]

    async def score(self, sample: Sample) -> Score:
        """The functions that see one completion, and all of them where it is alone. Status `error` when any of them could
        not score it, or all say nothing of it; never a value then."""
        began = time.perf_counter()
        try:
            asked = [each for each in self._all if sample.alone or not await self._sees_group(each[1])]
        except Unavailable as problem:
            seconds = time.perf_counter() - began
            return Score(value=0.0, status="error", breakdown={}, seconds=seconds, error=str(problem), unavailable=True)
        found = await asyncio.gather(*(self._score_by(spec, function, sample) for spec, function in asked))
        breakdown: dict[str, float] = {}
        metrics: dict[str, float] = {}
        seconds_of: dict[str, float] = {}
        error, status, extracted, reason = "", "ok", "", ""
        for (spec, _), (given, seconds) in zip(asked, found, strict=True):
            seconds_of[spec.label] = seconds
            extracted, reason = extracted or given.extracted, reason or given.reason
            if given.status == "error":
                error, status = error or f"{spec.label}: {given.error}", "error"
                continue
            if given.status == "timeout" and status == "ok":
                status = "timeout"
            if given.silent:
                continue
            breakdown[spec.label] = given.value
            metrics |= {f"{spec.label}.{name}": value for name, value in given.metrics.items()}
        if not (error or breakdown) and len(asked) == len(self._all):
            error, status = SILENT, "error"
        return Score(
            value=0.0 if error else total(self.functions, breakdown),
            status=status,  # type: ignore[arg-type]
            breakdown=breakdown,
            seconds=time.perf_counter() - began,
            error=error,
            unavailable=any(given.unavailable for given, _ in found),
            metrics=metrics,
            seconds_of=seconds_of,
            extracted=extracted,
            reason=reason,
            resolution=math.fsum(
                abs(spec.weight) * given.resolution for (spec, _), (given, _) in zip(asked, found, strict=True)
            ),
        )

    async def score_group(self, samples: Sequence[Sample]) -> list[GroupScore]:
        """What the functions that see the whole group say of each completion.

        Raises:
            ServiceError: such a function failed. There is no reward for anyone then.
        """
        scores = [GroupScore() for _ in samples]
        asked = [(spec, function) for spec, function in self._all if await self._sees_group(function)]
        for spec, function in asked:
            assert isinstance(function, UserFunction)
            for score, given in zip(scores, await function.score_all(samples), strict=True):
                if given.status == "error":
                    raise ServiceError(f"{spec.label}: {given.error}")
                if not given.silent:
                    score.values[spec.label] = given.value
                    score.metrics.update({f"{spec.label}.{name}": value for name, value in given.metrics.items()})
        return scores

    async def _sees_group(self, function: RewardFunction) -> bool:
        return isinstance(function, UserFunction) and await function.sees_group()

    async def check(self, sample: Sample) -> None:
        """Exercise every function once, so that a verifier that does not work is known before anything is sampled.

        Those that ship must tell a known right answer from a known wrong one. The user's own must return a number for
        `sample`.

        Raises:
            InputError: a function of the user's fails.
            ServiceError: one that ships does.
        """
        for spec, function in self._all:
            if await self._sees_group(function):
                continue
            probe = getattr(function, "probe", None)
            if probe is not None:
                right, wrong = [await function.score(each) for each in probe]
                if "error" in (right.status, wrong.status):
                    raise ServiceError(
                        f"reward function {spec.name!r} does not work here: {right.error or wrong.error}"
                    )
                if not right.value > wrong.value:
                    raise ServiceError(
                        f"reward function {spec.name!r} gives a right answer {right.value:g} and a wrong one "
                        f"{wrong.value:g} with the arguments {dict(spec.args)}"
                    )
                continue
            given, _ = await self._score_by(spec, function, sample)
            if given.status == "error":
                raise InputError(f"reward function {spec.name!r} fails: {given.error}")
        if any(may_see_group(spec) for spec in self.functions):
            try:
                await self.score_group([sample, sample])
            except ServiceError as problem:
                raise InputError(f"reward function {problem}") from None

    async def _score_by(
        self, spec: FunctionSpec, function: RewardFunction, sample: Sample
    ) -> tuple[FunctionScore, float]:
        began = time.perf_counter()
        # The one boundary where a reward function may fail: it is recorded with its name, and never scores 0.
        try:
            given = await function.score(sample)
        except Exception as problem:  # noqa: BLE001
            down = isinstance(problem, Unavailable)
            text = str(problem) if down else f"{type(problem).__name__}: {problem}"
            given = FunctionScore(status="error", error=text, unavailable=down)
        if given.status != "error" and not math.isfinite(given.value):
            given = FunctionScore(status="error", error=f"returned {given.value}")
        return given, time.perf_counter() - began


def total(functions: RubricSpec, breakdown: Mapping[str, float]) -> float:
    """The weighted sum over what has been scored so far and whose gate is open.

    Rounded to 12 digits of its largest part: 0.1 + 0.2 and 0.3 are one reward, in whatever order parts are added.
    """
    parts = [
        spec.weight * breakdown[spec.label]
        for spec in functions
        if spec.label in breakdown and (not spec.gate or breakdown.get(spec.gate, 0.0) >= 1)
    ]
    largest = max(map(abs, parts), default=0.0)
    if not 0 < largest < math.inf:
        return float(sum(parts))
    return round(math.fsum(parts), DIGITS - math.ceil(math.log10(largest)))
