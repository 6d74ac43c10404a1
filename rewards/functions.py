"""The reward functions that a rubric can name: those that ship, and the user's own.

The user's own is a plain function `(prompt, completion, reference, **args) → float or dict`, sync or async, or one in the
form of another trainer (rewards/processes/forms.py); of a dict the entry `value` counts and the others are reported. It
runs in a process that can be killed.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rewards.argument_types import check_types
from rewards.models.scorers import check_scorer
from rewards.processes.forms import WHOLE_GROUP, Refused, number
from rewards.resources import FORMS_MODULE, Resources
from rewards.types import FunctionScore, FunctionSpec, Sample
from rollout.data.json_text import ValueText, read_json
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
    """The user's own, in a process that can be killed. It may be written in the form of another trainer."""

    probe: Probe | None = None

    def __init__(self, spec: FunctionSpec, resources: Resources) -> None:
        self._spec = spec
        self._resources = resources
        self._form: OwnForm | None = None

    async def form(self) -> "OwnForm | FunctionScore":
        """How it is called; an error where that cannot be said. Asked for once."""
        if self._form is None:
            said = await self._ask("describe", [self._spec.form, self._spec.group])
            if isinstance(said, FunctionScore):
                return said
            name, columns = said["form"], said["columns"]
            whole = self._spec.group or name in WHOLE_GROUP
            self._form = OwnForm(name=name, columns=columns if columns is None else frozenset(columns), whole=whole)
        return self._form

    async def sees_group(self) -> bool:
        """Whether one call scores all completions of a group; False where the form cannot be said."""
        form = await self.form() if may_see_group(self._spec) else None
        return isinstance(form, OwnForm) and form.whole

    async def score(self, sample: Sample) -> FunctionScore:
        return (await self.score_all([sample]))[0]

    async def score_all(self, samples: Sequence[Sample]) -> list[FunctionScore]:
        """Scores of the completions of one prompt, in one call."""
        form = await self.form()
        if isinstance(form, FunctionScore):
            return [form] * len(samples)
        asked = {
            "prompt": samples[0].prompt,
            "question": samples[0].question,
            "reference": samples[0].answer,
            "completions": [sample.completion for sample in samples],
            "columns": _columns(samples[0], form.columns),
            "answer_column": samples[0].columns[1],
            "names": [*_columns(samples[0], None)],
            "messages": _messages(samples[0]),
        }
        spec = self._spec
        said = await self._ask("call", [form.name, spec.group, spec.entry, dict(spec.args), asked])
        if isinstance(said, FunctionScore):
            # A text that was taken for messages, or the other way round, fails so.
            if form.name.startswith("trl") and said.error.startswith(("TypeError", "AttributeError", "KeyError")):
                said = replace(said, error=f"{said.error} (called in the form {form.name!r}; `form` sets another)")
            return [said] * len(samples)
        return [
            FunctionScore(silent=True)
            if each is None
            else FunctionScore(value=each["value"], metrics={name: float(x) for name, x in each["metrics"].items()})
            for each in said["scores"]
        ]

    async def _ask(self, what: str, args: list[Any]) -> "dict[str, Any] | FunctionScore":
        deadline_s = self._resources.settings.function_timeout_s
        outcome = await self._resources.pool.call(
            self._spec.name, args, deadline_s=deadline_s, through=f"{FORMS_MODULE}:{what}"
        )
        error = outcome.error if outcome.kind != "ok" else outcome.value.get("problem", "")
        return FunctionScore(status="error", error=error) if error else outcome.value


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnForm:
    """How a function of the user's is called."""

    name: str
    """One of `FORMS`."""
    columns: frozenset[str] | None
    """Columns that it may read; None: all."""
    whole: bool
    """Whether one call scores all completions of a group."""


def _columns(sample: Sample, wanted: frozenset[str] | None) -> dict[str, tuple[str, bool]]:
    """Column → its text, and whether that is JSON of something else."""
    texts = {**dict(zip(sample.columns, (sample.question, sample.answer), strict=True)), **sample.fields}
    return {
        name: (text, isinstance(text, ValueText))
        for name, text in texts.items()
        if name and (wanted is None or name in wanted)
    }


def _messages(sample: Sample) -> list[Any]:
    """The prompt as the row has it, where that is a list of messages; else none."""
    held = sample.fields.get(sample.columns[0], "")
    if not isinstance(held, ValueText) or not held.startswith("["):
        return []
    messages: list[Any] = read_json(held)
    return messages


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


def origin_of(name: str) -> str:
    """File or module of a reward function of the user's; empty for one that ships and for the URL of a reward server."""
    return "" if is_url(name) else name.rpartition(":")[0]


def is_url(name: str) -> bool:
    """Whether a reward function is the URL of a reward server."""
    return name.startswith(("http://", "https://"))


def may_see_group(spec: FunctionSpec) -> bool:
    """Whether a function sees all completions of a group, as far as can be known without importing it."""
    return spec.group or (bool(origin_of(spec.name)) and spec.form in ("", *WHOLE_GROUP))


def score_of(value: Any) -> FunctionScore:
    """What a function of ours returned, as a score; an error when it is neither a number nor a table with `value`."""
    metrics: Mapping[str, Any] = {}
    if isinstance(value, Mapping):
        metrics = {str(name): each for name, each in value.items() if name != "value"}
        value = value.get("value")
    try:
        found = number(value)
    except Refused as problem:
        return FunctionScore(status="error", error=str(problem))
    figures = {name: float(each) for name, each in metrics.items() if isinstance(each, int | float)}
    return FunctionScore(value=found, metrics=figures)


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
