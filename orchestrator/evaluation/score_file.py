"""`rayzero score`: a rubric over a JSONL file of completions, without a cluster.

Lines go in chunks to one process a core, each with resources of its own (child processes, sandbox), and come back in order.
A line that cannot be read or scored is a line with status `error` and the reason; the others do not notice.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.checks.rewards import check_rewards
from orchestrator.config.explain import reason
from orchestrator.config.load import load_recipe, shipped_recipes
from orchestrator.config.recipe import Stage
from orchestrator.config.rubrics import resource_settings, rubrics_of, sandbox_settings
from orchestrator.config.sections.rewards import SHIPPED_RUBRICS, SandboxSection
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.trained_rewards import exports_in, with_stage_models
from orchestrator.plan import machine
from orchestrator.run.folder import find_run
from orchestrator.run.stubs import whole
from rewards.builtin import BUILTIN
from rewards.resources import Resources, ResourceSettings
from rewards.rubric import Rubric
from rewards.sandbox.packages import find_packages
from rewards.types import FunctionSpec, RubricSpec, Sample, Score
from rollout.data.columns import found_values
from rollout.data.json_text import json_text, read_json
from rollout.data.sources import answer_text, field_text
from rollout.errors import InputError, ServiceError, did_you_mean

Line = bytes | Mapping[str, Any]
"""A line of a file of JSON lines, or a row of another kind of file."""
CHUNK = 32
"""Lines that one process scores side by side."""
ALIASES = {"math": "accuracy", "answer-line": "accuracy", "code": "code_tests"}
"""Short names of rubrics that are one reward function."""
_SANDBOX = "sandbox."


def find_rubric(name: str, overrides: Sequence[str]) -> tuple[RubricSpec, ResourceSettings]:
    """A rubric by name: a reward function that ships, with `key=value` as its arguments and `sandbox.key=value`; or `RECIPE` or
    `RECIPE:RUBRIC`, with `key=value` as overrides of the recipe; a run in place of a recipe has the reward models that its
    stages trained.

    Raises:
        InputError: there is none, or its functions do not exist or do not take such arguments.
    """
    recipe, _, rubric = name.rpartition(":") if ":" in name else (name, "", "default")
    function = ALIASES.get(name, name)
    if function in BUILTIN:
        shipped = SHIPPED_RUBRICS[name][function].model_extra if name in ALIASES else {}
        args = {**(shipped or {})} | dict(_argument(each) for each in overrides if not each.startswith(_SANDBOX))
        spec = FunctionSpec(name=function, label=function, args=args)
        return (spec,), _sandbox_of([each.removeprefix(_SANDBOX) for each in overrides if each.startswith(_SANDBOX)])
    run = None if recipe in shipped_recipes() else find_run(Path(recipe))
    if run is None and recipe not in shipped_recipes() and not recipe.endswith(".toml"):
        known = [*ALIASES, *BUILTIN, *shipped_recipes()]
        raise InputError(
            f"unknown rubric {name!r}{did_you_mean(name, known)}\n"
            f"give one of {', '.join([*ALIASES, *BUILTIN])}, or a recipe's as RECIPE:RUBRIC, or a run's as RUN:RUBRIC"
        )
    loaded = load_recipe(f"{run}/" if run else recipe, overrides)
    stage = _scored_stage(loaded.stages)
    if rubric not in stage.rewards.rubrics:
        raise InputError(f"recipe {recipe} has no rubric {rubric!r}; it has: {', '.join(stage.rewards.rubrics)}")
    check_rewards(loaded, stage)
    models = exports_in(run, f"score with a run of the recipe: rayzero score RUN:{rubric} FILE")
    stage = with_stage_models(loaded, stage, lambda name: whole(models(name)), {rubric})
    return rubrics_of(stage)[rubric], resource_settings(stage)


def score_lines(
    lines: Iterable[Line],
    rubric: RubricSpec,
    settings: ResourceSettings,
    processes: int = 0,
    *,
    answer_column: str = "answer",
) -> Iterator[str]:
    """Yield one JSON line out for every line in, in order, as soon as it and those before it are done.

    Args:
        processes: that score; 0: one a core.
        answer_column: of the reference answers; a dotted name goes into a column.

    Raises:
        InputError: a reward function does not exist or does not take its arguments.
        ServiceError: a scoring process died.
    """
    Rubric("score", rubric, Resources(settings))  # a mistake is told once, here
    find_packages(settings.packages)
    count = processes or machine.cpu_count()
    # Spawned: a fork would copy this process's threads' locks, and its memory.
    executor = ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=_start, initargs=(rubric, settings, answer_column)
    )
    source = iter(lines)
    waiting: deque[Future[list[str]]] = deque()
    try:
        while True:
            while len(waiting) < 3 * count and (chunk := list(islice(source, CHUNK))):
                waiting.append(executor.submit(_score_chunk, chunk))
            if not waiting:
                return
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise ServiceError("a scoring process died; is there enough memory? `dmesg` may say") from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def summary(statuses: Mapping[str, int], mean: float | None, lacking: int = 0) -> str:
    """`1,000 scored: 997 ok, 2 timeout, 1 error; mean reward 0.412`.

    `lacking`: programs that asked for a package which is not in the sandbox.
    """
    parts = ", ".join(f"{statuses[status]:,} {status}" for status in ("ok", "timeout", "error") if statuses.get(status))
    tail = "" if mean is None else f"; mean reward {mean:.3f}"
    if lacking:
        tail += f"; {lacking:,} asked for packages that are not in the sandbox (sandbox.packages)"
    return f"{sum(statuses.values()):,} scored: {parts or 'nothing'}{tail}"


class Tally:
    """Counts and mean reward of the output lines."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.lacking = 0
        """Lines whose program asked for a package that is not in the sandbox."""
        self._sum = 0.0

    def add(self, line: str) -> None:
        record = read_json(line)
        self.statuses[record["status"]] += 1
        self.lacking += any(name.endswith(".missing_package") and on for name, on in record["breakdown"].items())
        self._sum += record["reward"] or 0.0

    @property
    def mean(self) -> float | None:
        """Mean reward of the lines that have one."""
        count = self.statuses["ok"] + self.statuses["timeout"]
        return self._sum / count if count else None


def _sandbox_of(overrides: Sequence[str]) -> ResourceSettings:
    """Settings of the sandbox without a recipe. Raises InputError."""
    try:
        return sandbox_settings(SandboxSection(**dict(_argument(each) for each in overrides)))
    except ValidationError as problem:
        first = problem.errors()[0]
        raise InputError(
            f"{_SANDBOX}{'.'.join(map(str, first['loc']))} = {first['input']!r}: {reason(first)}"
        ) from None


def _argument(override: str) -> tuple[str, Any]:
    import tomllib

    name, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"{override!r}: write an argument as key=value")
    try:
        return name, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return name, text


def _scored_stage(stages: Sequence[Stage]) -> Stage:
    """The last stage that learns from rewards, or else the last."""
    return next((stage for stage in reversed(stages) if kind_of(stage).is_rl), stages[-1])


# --- In a scoring process


class _Scorer:
    def __init__(self, rubric: RubricSpec, settings: ResourceSettings, answer_column: str) -> None:
        self.answer_column = answer_column
        self.loop = asyncio.new_event_loop()
        self.resources = Resources(settings)
        self.rubric = Rubric("score", rubric, self.resources)


_scorer: _Scorer | None = None


def _start(rubric: RubricSpec, settings: ResourceSettings, answer_column: str) -> None:
    import signal

    global _scorer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    _scorer = _Scorer(rubric, settings, answer_column)
    Finalize(None, _stop, exitpriority=10)


def _stop() -> None:
    assert _scorer is not None
    _scorer.loop.run_until_complete(_scorer.resources.close())


def _score_chunk(lines: list[Line]) -> list[str]:
    assert _scorer is not None
    return _scorer.loop.run_until_complete(_score_all(_scorer, lines))


async def _score_all(scorer: _Scorer, lines: list[Line]) -> list[str]:
    return list(await asyncio.gather(*(_score_line(scorer, line) for line in lines)))


async def _score_line(scorer: _Scorer, line: Line) -> str:
    record: Any = None
    try:
        record = _decoded(line) if isinstance(line, bytes) else line
        sample = sample_of(record, scorer.answer_column)
    except (ValueError, RecursionError) as problem:  # ValueError: not JSON, not UTF-8, or not what is needed
        score = Score(value=0.0, status="error", breakdown={}, seconds=0.0, error=f"malformed line: {problem}")
    else:
        score = await scorer.rubric.score(sample)
    return _result(record, score)


def _decoded(line: bytes) -> Any:
    """Raises ValueError, RecursionError: it is no JSON. NaN and infinities are none, and no output line could repeat them."""
    if not line.strip():
        raise ValueError("it is empty")
    return read_json(line.decode("utf-8-sig"), finite=True)


def sample_of(record: Any, answer_column: str = "answer") -> Sample:
    """The sample in a line of the file. Raises ValueError for one that holds no response."""
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    if not isinstance(record.get("response"), str):
        raise ValueError("it has no text under `response`")
    answer = next(found_values(record, answer_column), None)
    try:
        reference = "" if answer is None else answer_text(answer)
    except ValueError as problem:
        raise ValueError(f"`{answer_column}` {problem}") from None
    fields = {str(name): field_text(value) for name, value in record.items() if name not in ("id", "response")}
    return Sample(
        prompt=_prompt_text(record.get("prompt")),
        completion=record["response"],
        answer=reference,
        fields=fields,
        question=_prompt_text(record.get("prompt")),
        alone=True,
    )


def _prompt_text(prompt: Any) -> str:
    """A prompt as text; of messages what their users say, as in training."""
    if not isinstance(prompt, list) or not all(isinstance(message, dict) for message in prompt):
        return field_text(prompt)
    return "\n\n".join(field_text(message.get("content")) for message in prompt if message.get("role") == "user")


def _result(record: Any, score: Score) -> str:
    failed = score.status == "error"
    result: dict[str, Any] = {"id": record["id"]} if isinstance(record, dict) and "id" in record else {}
    result |= {
        "reward": None if failed else score.value,
        "status": score.status,
        "breakdown": dict(score.breakdown) | dict(score.metrics),
        "extracted": score.extracted or None,
    }
    if score.reason:
        result["reason"] = score.reason
    if score.error:
        result["error"] = score.error
    # ASCII only: a response may hold half a surrogate pair, which no UTF-8 file can.
    return json_text(result, ascii_only=True)
