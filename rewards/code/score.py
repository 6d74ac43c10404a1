"""What share of its tests the program of a response passes.

Outputs are compared by their lines and tokens, numbers as numbers (`rewards/code/output.py`); a non-zero exit status fails
whatever was printed. Programs under assertions are imported, not run as `__main__`, and values compare as Python compares
them; an object that a function returns where the test means a number, a text or a list is no such value, whatever it answers
(`rewards/sandbox/inside/proxies.py`). A test that is a comparison without `assert` counts as one. Everything runs in the
sandbox, the tests apart from the program (`rewards/sandbox/pool.py`).

A program that asks for a package which is not in the sandbox has not passed, as one that is wrong: were it left out, to ask for
one would be a way out of every hard problem. It is counted apart, since the recipe may be to blame (`sandbox.packages`).
"""

import dataclasses
import time
from dataclasses import dataclass
from typing import Literal

from rewards.code.output import same_output
from rewards.code.program import complete, program_of, with_preamble
from rewards.code.tasks import CodeTask
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import AssertionResult, BrokenTests, Run, SandboxFault, TestOutcome, Tolerance
from rewards.types import ScoreStatus

Scoring = Literal["all", "fraction"]
"""`all`: 1 when every test passes, else 0, and the first failure ends the run; `fraction`: the share that passes."""


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
    """Results of the tests that were run, in order; fewer than `total` after an early exit."""
    program: str
    """The program that was taken from the response."""
    seconds: float
    error: str = ""

    @property
    def unsupported(self) -> int:
        """Tests that ask something of the program's objects that cannot be asked across processes. Not passed."""
        return sum(test.outcome == "unsupported" for test in self.tests)

    @property
    def reason(self) -> str:
        """Why the first test that did not pass did not; empty where all passed or nothing is known."""
        for number, test in enumerate(self.tests, 1):
            if test.outcome != "pass":
                words = test.reason or test.outcome
                lacks = f"{words}; sandbox.packages may name it" if test.outcome == "missing" else words
                return f"test {number} of {self.total}: {lacks}"
        return ""

    @property
    def lacks_package(self) -> bool:
        """Whether the program asked for a package that is not in the sandbox, and did not do without it."""
        return any(test.outcome == "missing" for test in self.tests)


async def score_code(
    sandbox: Sandbox, response: str, task: CodeTask, scoring: Scoring = "all", *, prompt: str = ""
) -> CodeResult:
    """Score a response. A fault of the sandbox is tried once more, with a fresh worker, before it is an `error`.

    Tests that are no Python, define no `check`, or import what is not there are an `error` too: no program could pass them.
    `prompt`: the response's, which may have opened the thought.
    """
    began = time.perf_counter()
    program = program_of(response, prompt=prompt, asked=lambda: task.asked)
    if task.prompt and task.calls:
        program = complete(task.prompt, task.calls.entry_point, program)
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
    program = with_preamble(task.preamble, program)
    if task.calls:
        calls = dataclasses.replace(task.calls, stop=stop, tolerance=task.tolerance)
        ended = await sandbox.run_tests(program, calls, task.limits)
        return tuple(_from_result(result) for result in ended)
    results: list[CaseResult] = []

    def go_on(index: int, run: Run) -> bool:
        results.append(_compare(run, task.pairs[index][1], task.tolerance))
        return results[-1].outcome == "pass" or not stop

    runs = await sandbox.run_inputs(program, [given for given, _ in task.pairs], task.limits, go_on)
    # A text that does not compile is reported for all inputs at once.
    results += [_compare(run, b"", task.tolerance) for run in runs[len(results) :]]
    return tuple(results[:1] if stop and results and results[0].outcome != "pass" else results)


def _from_result(result: AssertionResult) -> CaseResult:
    return CaseResult(outcome=result.outcome, reason=result.reason, seconds=result.seconds)


def _compare(run: Run, expected: bytes, tolerance: Tolerance) -> CaseResult:
    if run.outcome in ("timeout", "memory"):
        return CaseResult(outcome="timeout" if run.outcome == "timeout" else "memory", seconds=run.seconds)
    if run.outcome == "exited" and run.code == 0:
        if same_output(run.stdout, expected, tolerance):
            return CaseResult(outcome="pass", seconds=run.seconds)
        return CaseResult(outcome="fail", reason="wrong output", seconds=run.seconds)
    how = {
        "exited": f"exit status {run.code}",
        "signal": f"ended by signal {run.code}",
        "output": "too much output",
        "broken": "does not compile",
    }[run.outcome]
    missing = run.outcome == "exited" and run.reason.startswith("ModuleNotFoundError: ")
    return CaseResult(
        outcome="missing" if missing else "fail",
        reason=f"{how}: {run.reason}" if run.reason else how,
        seconds=run.seconds,
    )
