"""The reward functions that ship, by name. Each carries a right and a wrong answer to try it on before a run."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from rewards.code.score import Scoring, score_code
from rewards.code.tasks import parse_task, read_tolerance
from rewards.functions import (
    ModelFunction,
    Probe,
    PureFunction,
    RewardFunction,
    UserFunction,
    check_arguments,
    is_url,
)
from rewards.math.extract import check_pattern
from rewards.math.verdict import verdict
from rewards.models.reward_server import ServerFunction
from rewards.models.scorers import KINDS
from rewards.resources import Resources
from rewards.text.format_tags import format_tags
from rewards.text.language import language_consistency
from rewards.text.length import soft_overlong
from rewards.text.readability import readability
from rewards.text.repetition import repetition
from rewards.types import FunctionScore, FunctionSpec, Sample, ScoreStatus
from rollout.data.json_text import integer
from rollout.errors import InputError, did_you_mean


class Accuracy:
    """1 where the final answer equals the reference (rewards/math/verdict.py), else 0."""

    # Only algebra can tell these two apart, so the whole ladder is tried.
    probe: Probe | None = (
        Sample(prompt="", completion="\\boxed{(x+1)^2}", answer="x^2+2x+1"),
        Sample(prompt="", completion="\\boxed{(x+1)^2}", answer="x^2+2x+2"),
    )

    def __init__(self, spec: FunctionSpec, resources: Resources) -> None:
        check_arguments(spec, _accuracy_arguments)
        self._pattern: str | None = spec.args.get("pattern")
        self._deadline_s = float(spec.args.get("deadline_s", 2.0))
        if self._pattern:
            check_pattern(self._pattern)
        if not self._deadline_s > 0:
            raise InputError(f"reward function {spec.name!r}: deadline_s = {self._deadline_s:g} must be greater than 0")
        self._resources = resources

    async def score(self, sample: Sample) -> FunctionScore:
        if not sample.answer.strip():
            return FunctionScore(status="error", error="there is no reference answer")
        scores: list[FunctionScore] = []
        try:
            accepted = accepted_answers(sample.answer)
        except InputError as problem:
            return FunctionScore(status="error", error=str(problem))
        for reference in accepted:
            scores.append(await self._compare(sample, reference))
            if scores[-1].value == 1.0:
                break
        # Right by any; not known where one could not be looked at; too slow where one was.
        return max(scores, key=lambda score: (score.value, ("ok", "timeout", "error").index(score.status)))

    async def _compare(self, sample: Sample, reference: str) -> FunctionScore:
        found = await verdict(
            sample.completion,
            reference,
            self._resources.pool,
            pattern=self._pattern,
            prompt=sample.prompt,
            deadline_s=self._deadline_s,
        )
        extracted = found.extracted or ""
        if found.status == "error":
            return FunctionScore(status="error", error=found.error, extracted=extracted)
        status: ScoreStatus = "timeout" if found.status == "timeout" else "ok"
        return FunctionScore(value=found.value, status=status, extracted=extracted)


def accepted_answers(reference: str) -> list[str]:
    """The answers of which any is right: those of a JSON list of texts, or the reference alone.

    Raises:
        InputError: it is a JSON object, or a list of anything but texts alone or numbers alone: no answer, and no list of some.
    """
    if reference.lstrip()[:1] not in ("[", "{"):
        return [reference]
    try:
        held = json.loads(reference)
    except (ValueError, RecursionError):  # an interval or a set, say
        return [reference]
    if isinstance(held, list) and held and all(isinstance(each, str) for each in held):
        return held
    if isinstance(held, dict) or not _are_numbers(held):
        raise InputError(f"the reference is {reference:.60}, not an answer or a list of accepted ones")
    return [reference]


def _are_numbers(held: Any) -> bool:
    """Numbers in lists, such as an interval or a matrix; no list, no number."""
    if isinstance(held, list):
        return all(map(_are_numbers, held))
    return isinstance(held, int | float) and not isinstance(held, bool)


def _accuracy_arguments(
    prompt: str, completion: str, reference: str, pattern: str = "", deadline_s: float = 2.0
) -> None:
    """What `accuracy` takes."""


class CodeTests:
    """1 where the program of a response passes its tests (rewards/code/score.py); or the share of them it passes."""

    probe: Probe | None = (
        Sample(
            prompt="",
            completion="```python\nprint(int(input()) + 1)\n```",
            fields={"tests": '[{"input": "1", "output": "2"}]'},
        ),
        Sample(
            prompt="",
            completion="```python\nprint(int(input()) + 2)\n```",
            fields={"tests": '[{"input": "1", "output": "2"}]'},
        ),
    )

    def __init__(self, spec: FunctionSpec, resources: Resources) -> None:
        check_arguments(spec, _code_arguments)
        self._scoring: Scoring = spec.args.get("scoring", "all")
        tolerance = spec.args.get("tolerance")
        try:
            self._tolerance = None if tolerance is None else read_tolerance(tolerance)
        except InputError as problem:
            raise InputError(f"reward function {spec.name!r}: {problem}") from None
        self._resources = resources

    async def score(self, sample: Sample) -> FunctionScore:
        try:
            task = parse_task(_decode_fields(sample.fields), self._resources.limits, self._tolerance)
        except InputError as problem:
            return FunctionScore(status="error", error=str(problem))
        sandbox = await self._resources.sandbox()
        result = await score_code(sandbox, sample.completion, task, self._scoring, prompt=sample.prompt)
        return FunctionScore(
            value=result.value,
            status=result.status,
            error=result.error,
            metrics={
                "passed_share": result.passed / result.total,
                "unsupported": float(result.unsupported),
                "missing_package": float(result.lacks_package),
            },
            extracted=result.program,
            reason=result.reason,
        )


def _code_arguments(
    prompt: str, completion: str, reference: str, scoring: Scoring = "all", tolerance: float | None = None
) -> None:
    """What `code_tests` takes."""


_NESTED = ("tests", "input_output", "test_list", "test_imports", "time_limit_s", "memory_mb", "tolerance")


def _decode_fields(fields: Mapping[str, str]) -> dict[str, Any]:
    """Columns that hold more than text, out of their JSON. Raises InputError."""
    decoded: dict[str, Any] = {name: value for name, value in fields.items() if value}
    for name in _NESTED:
        if name in decoded:
            try:
                decoded[name] = json.loads(decoded[name], parse_int=integer)
            except (ValueError, RecursionError) as problem:
                raise InputError(f"{name}: not JSON: {problem}") from None
    return decoded


def _pure(
    function: Callable[..., Any], right: Sample, wrong: Sample, *, with_arguments: bool = False
) -> Callable[[FunctionSpec, Resources], RewardFunction]:
    """`with_arguments`: the probe holds whatever the arguments; else only without any."""

    def make(spec: FunctionSpec, resources: Resources) -> RewardFunction:
        return PureFunction(spec, function, (right, wrong) if with_arguments or not spec.args else None)

    return make


def _sample(text: str, tokens: int = 1) -> Sample:
    return Sample(prompt="1+1=", completion=text, answer="2", num_tokens=tokens)


def describe() -> list[tuple[str, str, str]]:
    """(name, arguments with their defaults, first sentence of the documentation) of every function that ships."""
    return [(name, ", ".join(_signature(name)), _summary(name)) for name in sorted(BUILTIN)]


def _signature(name: str) -> list[str]:
    if name in KINDS:
        return [
            each.name if each.default is each.default_factory is MISSING else f"{each.name}={each.default!r:.20}"
            for each in fields(KINDS[name][0])
            if each.default_factory is MISSING and each.name != "template"
        ]
    parameters = list(inspect.signature(DOCUMENTED[name]).parameters.values())[3:]
    return [
        each.name if each.default is each.empty else f"{each.name}={each.default!r}"
        for each in parameters
        if each.name not in ("tokens", "finished")
    ]


def _summary(name: str) -> str:
    source = KINDS[name][1] if name in KINDS else {"accuracy": Accuracy, "code_tests": CodeTests}.get(name)
    text = inspect.getdoc(source or DOCUMENTED[name]) or ""
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].rstrip(".")


_THOUGHT = "<think>{}</think><answer>2</answer>"
_LOOP = "so it is one more " * 200
_SENTENCE = "We add the two numbers one by one and then write down the sum of both of them."

BUILTIN: dict[str, Callable[[FunctionSpec, Resources], RewardFunction]] = {
    "accuracy": Accuracy,
    "code_tests": CodeTests,
    "format": _pure(format_tags, _sample(_THOUGHT.format("1+1")), _sample("2")),
    "language_consistency": _pure(
        language_consistency,
        _sample(_THOUGHT.format(_SENTENCE)),
        _sample(_THOUGHT.format(f"{_SENTENCE} 我们把两个数字加起来")),
    ),
    "length": _pure(soft_overlong, _sample("2", 0), _sample("2", 10**12), with_arguments=True),
    "readability": _pure(readability, _sample(_THOUGHT.format(_SENTENCE)), _sample(_THOUGHT.format(_LOOP))),
    "repetition": _pure(repetition, _sample(_THOUGHT.format(_SENTENCE)), _sample(_THOUGHT.format(_LOOP))),
    "reward_model": ModelFunction,
    "judge": ModelFunction,
}
"""Name → how it is made."""

DOCUMENTED: dict[str, Callable[..., Any]] = {
    "accuracy": _accuracy_arguments,
    "code_tests": _code_arguments,
    "format": format_tags,
    "language_consistency": language_consistency,
    "length": soft_overlong,
    "readability": readability,
    "repetition": repetition,
}
"""Name → where its arguments are declared."""


def build_function(spec: FunctionSpec, resources: Resources) -> RewardFunction:
    """The function that a rubric names.

    Raises:
        InputError: there is no such function, or it does not take these arguments.
    """
    if spec.name in BUILTIN:
        return BUILTIN[spec.name](spec, resources)
    if is_url(spec.name):
        return ServerFunction(spec)
    if ":" not in spec.name:
        raise InputError(
            f"unknown reward function {spec.name!r}{did_you_mean(spec.name, BUILTIN)}; built in: {', '.join(BUILTIN)}; "
            "your own: path/to/file.py:function or package.module:function; a reward server: its URL"
        )
    return UserFunction(spec, resources)
