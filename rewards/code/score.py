"""Programs judged by tests: the program of a response, the tests of a task, and what share of them it passes.

Tests come in the forms of the usual data sets. `parse_task` takes the fields of a task:
- `tests`: a list of `{"input", "output"}` (standard input and output) or of `{"assert"}`; an entry may also be
  `{"input", "output", "testtype": "functional"}` with `fn_name` beside `tests` (LiveCodeBench);
- `tests` or `input_output`: `{"inputs", "outputs"}`, with `fn_name` for calls (APPS, TACO); JSON text is understood;
- `test_list`, with `test_setup_code` and `test_imports` (MBPP);
- `prompt`, `entry_point` and `test`, a text that defines `check(candidate)` (HumanEval).
A task may set `time_limit_s` (of one test) and `memory_mb` (of the whole run).

Outputs are compared line by line without trailing blanks and without empty lines at the end; a non-zero exit status fails
whatever was printed. Programs under assertions are imported, not run as `__main__`, and values compare as Python compares
them; an object that a function returns where the test means a number, a text or a list is no such value, whatever it answers
(rewards/sandbox/inside/proxies.py). A test that is a comparison without `assert` counts as one. Solutions that are called by `fn_name`
find the usual imports (`List`, `heapq`, …), as they do where such tasks come from. Everything runs in the sandbox, the tests apart from the program (see `rewards/sandbox/pool.py`).
"""

import ast
import dataclasses
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import AssertionResult, Assertions, BrokenTests, Limits, Run, SandboxFault, TestOutcome
from rewards.types import ScoreStatus
from rollout.errors import InputError

Scoring = Literal["all", "fraction"]
"""`all`: 1 when every test passes, else 0, and the first failure ends the run; `fraction`: the share that passes."""

_IMPORTS = """
import bisect, collections, functools, heapq, itertools, math, random, re, string
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, cmp_to_key, lru_cache, reduce
from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest
from itertools import accumulate, chain, combinations, count, groupby, pairwise, permutations, product, zip_longest
from math import ceil, comb, floor, gcd, inf, isqrt, lcm, log, log2, perm, sqrt
from typing import *
""".lstrip()
"""What such tasks take for granted: their solutions are methods of a class that is handed in without imports."""
_PYTHON = re.compile(r"[{.]*py(?:thon)?[\d.]*(?:[^\w.-].*)?", re.IGNORECASE)
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})([^`]*)")
_LATE_FENCE = re.compile(r"[^`]*?()(`{3,})(py(?:thon)?[\d.]*\s*)", re.IGNORECASE)
"""Behind words of its line; only where it says that it is Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTask:
    """The tests of one task; exactly one of `pairs` and `calls` holds some."""

    pairs: Sequence[tuple[bytes, bytes]] = ()
    """Standard input and expected standard output of each test."""
    calls: Assertions | None = None
    prompt: str = ""
    """HumanEval's: the program begins as it does where the response leaves that out."""
    preamble: str = ""
    """Imports that come before the program."""
    limits: Limits = field(default_factory=Limits)

    @property
    def total(self) -> int:
        return len(self.calls.tests) if self.calls else len(self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    outcome: TestOutcome
    reason: str = ""
    """A few words on a failure; empty for a pass."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeResult:
    """What the tests say of one response."""

    status: ScoreStatus
    """`timeout`: at least one test took too long; `error`: the sandbox or the tests failed, nothing is known of the
    program."""
    value: float
    passed: int
    total: int
    tests: tuple[CaseResult, ...]
    """Those that were run, in order; fewer than `total` after an early exit."""
    program: str
    """What was taken from the response."""
    seconds: float
    error: str = ""

    @property
    def unsupported(self) -> int:
        """Tests that ask something of the program's objects that cannot be asked across processes. Not passed."""
        return sum(test.outcome == "unsupported" for test in self.tests)


async def score_code(
    sandbox: Sandbox, response: str, task: CodeTask, scoring: Scoring = "all", *, thinking: bool = False
) -> CodeResult:
    """Judge a response. A fault of the sandbox is tried once more, with a fresh worker, before it is an `error`.

    So are tests that are no Python, define no `check`, or import what is not there: no program could pass them.
    `thinking`: the prompt opened the thinking part of the response.
    """
    began = time.perf_counter()
    program = program_of(response, thinking=thinking)
    if task.prompt and task.calls:
        program = _completed(task.prompt, task.calls.entry_point, program)
    error = ""
    for _ in range(2):
        try:
            tests = await _run(sandbox, program, task, stop=scoring == "all")
            break
        except BrokenTests as problem:
            return _error(program, task, began, str(problem))
        except SandboxFault as problem:
            error = str(problem)
    else:
        return _error(program, task, began, error)
    passed = sum(test.outcome == "pass" for test in tests)
    return CodeResult(
        status="timeout" if any(test.outcome == "timeout" for test in tests) else "ok",
        value=float(passed == task.total) if scoring == "all" else passed / task.total,
        passed=passed,
        total=task.total,
        tests=tests,
        program=program,
        seconds=time.perf_counter() - began,
    )


def _error(program: str, task: CodeTask, began: float, error: str) -> CodeResult:
    return CodeResult(
        status="error",
        value=0.0,
        passed=0,
        total=task.total,
        tests=(),
        program=program,
        seconds=time.perf_counter() - began,
        error=error,
    )


async def _run(sandbox: Sandbox, program: str, task: CodeTask, stop: bool) -> tuple[CaseResult, ...]:
    program = _with_preamble(task.preamble, program)
    if task.calls:
        ended = await sandbox.run_tests(program, dataclasses.replace(task.calls, stop=stop), task.limits)
        return tuple(_from_result(result) for result in ended)
    results: list[CaseResult] = []

    def go_on(index: int, run: Run) -> bool:
        results.append(_compare(run, task.pairs[index][1]))
        return results[-1].outcome == "pass" or not stop

    runs = await sandbox.run_inputs(program, [given for given, _ in task.pairs], task.limits, go_on)
    # A text that does not compile is reported for all inputs at once.
    results += [_compare(run, b"") for run in runs[len(results) :]]
    return tuple(results[:1] if stop and results and results[0].outcome != "pass" else results)


def _from_result(result: AssertionResult) -> CaseResult:
    return CaseResult(outcome=result.outcome, reason=result.reason, seconds=result.seconds)


def _compare(run: Run, expected: bytes) -> CaseResult:
    if run.outcome in ("timeout", "memory"):
        return CaseResult(outcome="timeout" if run.outcome == "timeout" else "memory", seconds=run.seconds)
    if run.outcome == "exited" and run.code == 0:
        if same_output(run.stdout, expected):
            return CaseResult(outcome="pass", seconds=run.seconds)
        return CaseResult(outcome="fail", reason="wrong output", seconds=run.seconds)
    how = {
        "exited": f"exit status {run.code}",
        "signal": f"ended by signal {run.code}",
        "output": "too much output",
        "broken": "does not compile",
    }[run.outcome]
    return CaseResult(outcome="fail", reason=f"{how}: {run.reason}" if run.reason else how, seconds=run.seconds)


def same_output(printed: bytes, expected: bytes) -> bool:
    """Equal line by line without trailing blanks, and without empty lines at the end."""
    return _lines(printed) == _lines(expected)


def _lines(text: bytes) -> list[bytes]:
    return [line.rstrip() for line in text.rstrip().split(b"\n")]


# --- The program of a response


def program_of(response: str, *, thinking: bool = False) -> str:
    """The last Python fence after the thinking part, else the last fence there, else everything there.

    `thinking`: the prompt opened the thinking part, so that the response only closes it.
    """
    _, closed, after = response.rpartition("</think>")
    if not closed and (thinking or "<think>" in _before_fences(response)):
        return ""  # it never came to an answer
    reply = after if closed else response
    blocks = _fences(reply)
    for language, text in reversed(blocks):
        if _PYTHON.fullmatch(language):
            return text
    if blocks:
        return blocks[-1][1]
    start, end = reply.rfind("<answer>"), reply.rfind("</answer>")
    return reply[start + len("<answer>") : end] if 0 <= start < end else reply


def _before_fences(text: str) -> str:
    """A program may well hold the word `<think>`."""
    return text[: min(len(text) if at < 0 else at for at in (text.find("```"), text.find("~~~")))]


def _fences(text: str) -> list[tuple[str, str]]:
    """Language and content of every fenced block; one that nobody closed goes to the end. Linear in the text."""
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    content: list[str] = []
    for line in text.split("\n"):
        bare = line.strip().removeprefix("<answer>").removesuffix("</answer>")
        fence = _FENCE.fullmatch(line if len(bare) == len(line.strip()) else bare)
        if opened is None:
            opened, content = fence or _LATE_FENCE.fullmatch(line.rstrip()), []
        elif fence and _closes(fence, opened):
            blocks.append((opened[3].strip(), "\n".join(content)))
            opened = None
        else:
            content.append(line.removeprefix(opened[1]))
    if opened is not None:
        blocks.append((opened[3].strip(), _until_late_close(content, opened[2])))
    return blocks


def _closes(fence: re.Match[str], opened: re.Match[str]) -> bool:
    same = fence[2][0] == opened[2][0] and len(fence[2]) >= len(opened[2]) and not fence[3].strip()
    return same and len(fence[1]) < len(opened[1]) + 4  # deeper, it belongs to the program: a docstring with a fence


def _until_late_close(content: list[str], mark: str) -> str:
    """A block without a closing line: up to a line that has the mark at its end."""
    for index, line in enumerate(content):
        stripped = line.rstrip().removesuffix("</answer>").rstrip()
        if stripped.endswith(mark):
            return "\n".join([*content[:index], stripped.removesuffix(mark)])
    return "\n".join(content)


def _completed(prompt: str, entry_point: str, code: str) -> str:
    """HumanEval: `code` is the function, after which the prompt's imports and helpers are still needed, or its body."""
    defines = re.search(
        rf"^(?:(?:async\s+)?def|class)\s+{re.escape(entry_point)}\b|^{re.escape(entry_point)}\s*=", code, re.M
    )
    if not defines:
        return prompt + code
    preamble = _preamble(prompt, entry_point)
    return _with_preamble(preamble, code)


def _with_preamble(preamble: str, code: str) -> str:
    if not preamble.strip():
        return code
    future = re.compile(r"^from __future__ import .*$", re.M)  # has to come first
    return "\n".join([*future.findall(code), preamble + future.sub("", code)])


def _preamble(prompt: str, entry_point: str) -> str:
    """What stands in the prompt before the function that is asked for; nothing where that is no Python."""
    start = re.search(rf"^(?:@.*\n)*(?:(?:async\s+)?def|class)\s+{re.escape(entry_point)}\b", prompt, re.M)
    preamble = prompt[: start.start()] if start else ""
    try:
        ast.parse(preamble)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return preamble


# --- The tests of a task


def parse_task(fields: Mapping[str, Any], defaults: Limits | None = None) -> CodeTask:
    """Raises InputError when the fields hold no tests, or tests of no known form."""
    limits = _limits(fields, defaults or Limits())
    if "test" in fields and "entry_point" in fields:
        return _check_function(fields, limits)
    if "test_list" in fields:
        setup = "\n".join([*fields.get("test_imports", ()), fields.get("test_setup_code", "")])
        codes = [{"code": _text(code, "test_list")} for code in _list(fields["test_list"], "test_list")]
        return CodeTask(calls=Assertions(setup=setup, tests=codes), limits=limits)
    tests = _decoded(fields.get("tests", fields.get("input_output")))
    if isinstance(tests, dict):
        return _parallel_lists(tests, fields.get("fn_name"), limits)
    return _list_of_tests(_list(tests, "tests"), fields, limits)


def _limits(fields: Mapping[str, Any], defaults: Limits) -> Limits:
    changes: dict[str, Any] = {}
    for key, name in (("time_limit_s", "test_s"), ("memory_mb", "memory_mb")):
        if fields.get(key) is None:
            continue
        value = fields[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{key} = {value!r}: a number above 0 is needed")
        changes[name] = float(value) if name == "test_s" else max(1, int(value))
    if changes.get("test_s", 0) > defaults.total_s:
        changes["total_s"] = changes["test_s"]
    return dataclasses.replace(defaults, **changes)


def _check_function(fields: Mapping[str, Any], limits: Limits) -> CodeTask:
    entry_point, test = _text(fields["entry_point"], "entry_point"), _text(fields["test"], "test")
    if not entry_point.isidentifier():
        raise InputError(f"entry_point = {entry_point!r}: the name of a function is needed")
    prompt = _text(fields.get("prompt", ""), "prompt")
    calls = Assertions(
        setup=f"{_preamble(prompt, entry_point)}\n{test}\n",
        entry_point=entry_point,
        tests=[{"code": f"check({entry_point})"}],
    )
    return CodeTask(calls=calls, prompt=prompt, limits=limits)


def _list_of_tests(tests: list[Any], fields: Mapping[str, Any], limits: Limits) -> CodeTask:
    if not all(isinstance(test, dict) for test in tests):
        raise InputError("tests: each must be an object with input and output, or with assert")
    if all("assert" in test for test in tests):
        codes = [{"code": _text(test["assert"], "assert")} for test in tests]
        return CodeTask(calls=Assertions(setup=_text(fields.get("setup", ""), "setup"), tests=codes), limits=limits)
    if not all("input" in test and "output" in test for test in tests):
        raise InputError("tests: all must hold input and output, or all assert")
    if any(test.get("testtype") == "functional" for test in tests):
        name = _function_name(fields.get("fn_name"))
        calls = [
            {
                "function": name,
                "arguments": [_from_json(line, "input") for line in _text(test["input"], "input").split("\n") if line],
                "expected": [_from_json(_text(test["output"], "output"), "output")],
            }
            for test in tests
        ]
        return CodeTask(calls=Assertions(tests=calls), preamble=_imports(name), limits=limits)
    pairs = [(_stream(test["input"]), _stream(test["output"])) for test in tests]
    return CodeTask(pairs=pairs, limits=limits)


def _parallel_lists(tests: dict[str, Any], fn_name: Any, limits: Limits) -> CodeTask:
    inputs, outputs = _list(tests.get("inputs"), "inputs"), _list(tests.get("outputs"), "outputs")
    if len(inputs) != len(outputs):
        raise InputError(f"tests: {len(inputs)} inputs, but {len(outputs)} outputs")
    fn_name = tests.get("fn_name", fn_name)
    if not fn_name:
        return CodeTask(pairs=[(_stream(a), _stream(b)) for a, b in zip(inputs, outputs, strict=True)], limits=limits)
    # These data sets wrap a result in a list of one, most of the time; where all are, both readings count.
    wrapped = all(isinstance(output, list) and len(output) == 1 for output in outputs)
    calls = [
        {
            "function": _function_name(fn_name),
            "arguments": _list(given, "inputs"),
            "expected": [output, output[0]] if wrapped else [output],
        }
        for given, output in zip(inputs, outputs, strict=True)
    ]
    return CodeTask(calls=Assertions(tests=calls), preamble=_imports(fn_name), limits=limits)


def _imports(under_test: str) -> str:
    return f"{_IMPORTS}globals().pop({under_test!r}, None)\n"


def _function_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"fn_name = {name!r}: tests that call a function need its name")
    return name


def _stream(value: Any) -> bytes:
    """Some data sets hold lines, not text."""
    if isinstance(value, list):
        value = "\n".join(map(str, value))
    return _text(value, "input and output").encode("utf-8", "surrogatepass")


def _decoded(tests: Any) -> Any:
    return _from_json(tests, "tests") if isinstance(tests, str) else tests


def _from_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{name}: not JSON: {problem}") from problem


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name}: text is needed, not {type(value).__name__}")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{name}: a list with at least one test is needed")
    return list(value)
