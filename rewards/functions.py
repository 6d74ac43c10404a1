"""The reward functions that a rubric can name: those that ship, and the user's own.

The user's own is a plain function `(prompt, completion, reference, **args) → float or dict`, sync or async; of a dict
the entry `value` counts and the others are reported. It runs in a process that can be killed. A group function gets the
list of all completions of a group and returns a list of floats.
"""

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from rewards.argument_types import check_types
from rewards.models.scorers import check_scorer
from rewards.resources import Resources
from rewards.types import FunctionScore, FunctionSpec, Sample
from rollout.errors import InputError, did_you_mean

SCORER_TIMEOUT_S = 600.0
"""Longest wait for a model, its queue included; a judge has a shorter deadline of its own."""

MOVED = {
    "rewards.format_tags": "rewards.text.format_tags",
    "rewards.language": "rewards.text.language",
    "rewards.length": "rewards.text.length",
    "rewards.readability": "rewards.text.readability",
    "rewards.repetition": "rewards.text.repetition",
    "rollout.tasks.manners": "rollout.data.tasks.manners",
}
"""Old → new name of every module of ours that has moved and holds a function that a recipe could name as its own."""

Probe = tuple[Sample, Sample]
"""A right answer and a wrong one."""


class RewardFunction(Protocol):
    """One reward function, ready to score."""

    probe: Probe | None
    """A right and a wrong answer to try the function on; None where nothing is known of what it should say."""

    async def score(self, sample: Sample) -> FunctionScore: ...


class PureFunction:
    """A function that ships: quick, linear in the length of the completion, and without resources."""

    def __init__(self, spec: FunctionSpec, function: Callable[..., Any], probe: Probe | None) -> None:
        self.probe = probe
        self._function = function
        self._takes = check_arguments(spec, function)
        self._args = dict(spec.args)
        if spec.args:
            # What the function itself says of their values is known before a completion is.
            self._call(Sample(prompt="", completion="", num_tokens=1))

    async def score(self, sample: Sample) -> FunctionScore:
        return score_of(self._call(sample))

    def _call(self, sample: Sample) -> Any:
        known = {"tokens": sample.num_tokens, "finished": sample.finished}
        args = {name: value for name, value in known.items() if name in self._takes} | self._args
        return self._function(sample.prompt, sample.completion, sample.answer, **args)


class UserFunction:
    """The user's own, in a process that can be killed."""

    probe: Probe | None = None

    def __init__(self, spec: FunctionSpec, resources: Resources) -> None:
        self._spec = spec
        self._resources = resources

    async def score(self, sample: Sample) -> FunctionScore:
        outcome = await user_call(self._spec, self._resources, sample.prompt, sample.completion, sample.answer)
        if outcome.kind != "ok":
            return FunctionScore(status="error", error=outcome.error)
        return score_of(outcome.value)


class ModelFunction:
    """A reward model or a judge, which all workers share. Its outage is an error."""

    probe: Probe | None = None

    def __init__(self, spec: FunctionSpec, resources: Resources) -> None:
        """Raises InputError when the arguments are not those of such a model."""
        check_scorer(spec)
        self._spec = spec
        self._resources = resources

    async def score(self, sample: Sample) -> FunctionScore:
        scorer = await self._resources.scorer(self._spec)
        call = scorer.score(sample.prompt, sample.completion, sample.answer)
        given = dict(await asyncio.wait_for(call, SCORER_TIMEOUT_S))
        resolution = given.pop("resolution", 0.0)
        return replace(score_of(given), resolution=resolution)


def current_name(name: str) -> str:
    """The name of a reward function as it is now: of one of ours whose module has moved, with its new module."""
    origin, _, function = name.rpartition(":")
    return f"{MOVED[origin]}:{function}" if origin in MOVED else name


def check_name(name: str) -> None:
    """Raises InputError, which says the new name, for a function of ours whose module has moved."""
    current = current_name(name)
    if current != name:
        raise InputError(f"reward function {name!r} has moved; its name is now {current!r}")


def user_call(spec: FunctionSpec, resources: Resources, prompt: str, completion: "str | list[str]", answer: str) -> Any:
    """Awaitable outcome of a user's function."""
    return resources.pool.call(
        spec.name, [prompt, completion, answer], spec.args, deadline_s=resources.settings.function_timeout_s
    )


def score_of(value: Any) -> FunctionScore:
    """What a plain function returned, as a score; an error when it is neither a number nor a table with `value`."""
    metrics: Mapping[str, Any] = {}
    if isinstance(value, Mapping):
        metrics = {str(name): each for name, each in value.items() if name != "value"}
        value = value.get("value")
    if isinstance(value, bool):
        value = float(value)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return FunctionScore(status="error", error=f"returned {value!r:.200}, which is not a number")
    figures = {name: float(each) for name, each in metrics.items() if isinstance(each, int | float)}
    return FunctionScore(value=float(value), metrics=figures)


def check_arguments(spec: FunctionSpec, function: Callable[..., Any]) -> set[str]:
    """Names that the function takes beside prompt, completion and reference. Raises InputError for one it does not."""
    known = set(list(inspect.signature(function).parameters)[3:])
    for name in spec.args:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it takes {', '.join(sorted(known)) or 'none'}"
            raise InputError(f"reward function {spec.name!r} has no argument {name!r}{hint}")
    for name, parameter in list(inspect.signature(function).parameters.items())[3:]:
        if parameter.default is parameter.empty and name not in spec.args:
            raise InputError(f"reward function {spec.name!r} needs the argument {name!r}")
    check_types(spec, function)
    return known
