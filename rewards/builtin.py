"""The reward functions that ship, by name. Each carries a right and a wrong answer to try it on before a run."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from rewards.code.score import Scoring, parse_task, score_code
from rewards.functions import ModelFunction, Probe, PureFunction, RewardFunction, UserFunction, check_arguments
from rewards.math.verdict import judge
from rewards.models.scorers import KINDS
from rewards.resources import Resources
from rewards.text.format_tags import format_tags
from rewards.text.language import language_consistency
from rewards.text.length import soft_overlong
from rewards.text.readability import readability
from rewards.text.repetition import repetition
from rewards.text.response import opens_thought
from rewards.types import FunctionSpec, Judgement, Sample, ScoreStatus
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
        self._resources = resources

    async def judge(self, sample: Sample) -> Judgement:
        if not sample.answer:
            return Judgement(status="error", error="there is no reference answer")
        verdict = await judge(
            sample.completion,
            sample.answer,
            self._resources.pool,
            pattern=self._pattern,
            in_thought=sample.prompt.rstrip().endswith("<think>"),
            deadline_s=self._deadline_s,
        )
        extracted = verdict.extracted or ""
        if verdict.status == "error":
            return Judgement(status="error", error=verdict.error, extracted=extracted)
        status: ScoreStatus = "timeout" if verdict.status == "timeout" else "ok"
        return Judgement(value=verdict.value, status=status, extracted=extracted)


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
        scoring = spec.args.get("scoring", "all")
        if scoring not in ("all", "fraction"):
            raise InputError(f"reward function {spec.name!r}: scoring = {scoring!r}; it is 'all' or 'fraction'")
        self._scoring: Scoring = scoring
        self._resources = resources

    async def judge(self, sample: Sample) -> Judgement:
        try:
            task = parse_task(_decoded(sample.fields), self._resources.limits)
        except InputError as problem:
            return Judgement(status="error", error=str(problem))
        sandbox, thinking = await self._resources.sandbox(), opens_thought(sample.prompt)
        result = await score_code(sandbox, sample.completion, task, self._scoring, thinking=thinking)
        return Judgement(
            value=result.value,
            status=result.status,
            error=result.error,
            metrics={"passed_share": result.passed / result.total, "unsupported": float(result.unsupported)},
            extracted=result.program,
        )


def _code_arguments(prompt: str, completion: str, reference: str, scoring: Scoring = "all") -> None:
    """What `code_tests` takes."""


_NESTED = ("tests", "input_output", "test_list", "test_imports", "time_limit_s", "memory_mb")


def _decoded(fields: Mapping[str, str]) -> dict[str, Any]:
    """Columns that hold more than text, out of their JSON. Raises InputError."""
    decoded: dict[str, Any] = {name: value for name, value in fields.items() if value}
    for name in _NESTED:
        if name in decoded:
            try:
                decoded[name] = json.loads(decoded[name])
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


def _said(text: str, tokens: int = 1) -> Sample:
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
    "format": _pure(format_tags, _said(_THOUGHT.format("1+1")), _said("2")),
    "language_consistency": _pure(
        language_consistency,
        _said(_THOUGHT.format(_SENTENCE)),
        _said(_THOUGHT.format(f"{_SENTENCE} 我们把两个数字加起来")),
    ),
    "length": _pure(soft_overlong, _said("2", 0), _said("2", 10**12), with_arguments=True),
    "readability": _pure(readability, _said(_THOUGHT.format(_SENTENCE)), _said(_THOUGHT.format(_LOOP))),
    "repetition": _pure(repetition, _said(_THOUGHT.format(_SENTENCE)), _said(_THOUGHT.format(_LOOP))),
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
    if ":" not in spec.name:
        raise InputError(
            f"unknown reward function {spec.name!r}{did_you_mean(spec.name, BUILTIN)}; built in: {', '.join(BUILTIN)}; "
            "your own: path/to/file.py:function or package.module:function"
        )
    return UserFunction(spec, resources)
