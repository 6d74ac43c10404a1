"""The tests of a task, in the forms of the usual data sets.

`parse_task` takes the fields of a task:
- `tests`: a list of `{"input", "output"}` (standard input and output) or of `{"assert"}`; an entry may also be
  `{"input", "output", "testtype": "functional"}` with `fn_name` beside `tests` (LiveCodeBench);
- `tests` or `input_output`: `{"inputs", "outputs"}`, with `fn_name` for calls (APPS, TACO); JSON text is understood;
- `public_test_cases` and `private_test_cases`, with the function's name in `metadata` (LiveCodeBench as it is published);
- `test_list`, with `test_setup_code` and `test_imports` (MBPP);
- `prompt`, `entry_point` and `test`, a text that defines `check(candidate)` (HumanEval).
A task may set `time_limit_s` (of one test), `memory_mb` (of the whole run) and `tolerance` (of the numbers that come out).

Solutions that are called by `fn_name` find the usual imports (`List`, `heapq`, …), as they do where such tasks come from.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.code.outline import outline
from rewards.code.packed_tests import unpacked
from rewards.code.program import preamble_of
from rewards.code.solution import Asked
from rewards.sandbox.types import Assertions, Limits, Tolerance
from rollout.data.json_text import integer, integer_text
from rollout.errors import InputError

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


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTask:
    """The tests of one task; exactly one of `pairs` and `calls` holds some."""

    pairs: Sequence[tuple[bytes, bytes]] = ()
    """Standard input and expected standard output of each test."""
    calls: Assertions | None = None
    prompt: str = ""
    """Prompt of a HumanEval task: the program begins with it where the response leaves that out."""
    preamble: str = ""
    """Imports that come before the program."""
    limits: Limits = field(default_factory=Limits)
    tolerance: Tolerance = field(default_factory=Tolerance)
    """How far printed and returned numbers may be off."""

    @property
    def asked(self) -> Asked:
        """What the tests need of the program, by which it is found among the blocks of a response."""
        if self.calls is None:
            return Asked(reads=any(given.strip() for given, _ in self.pairs))
        around = outline(self.calls.setup)
        names = {self.calls.entry_point} - {""}
        for test in self.calls.tests:
            names |= {test["function"]} if "function" in test else outline(test["code"]).free
        given = outline(self.preamble)
        return Asked(
            names=frozenset(names if self.calls.entry_point else names - around.defined - around.imported),
            given=frozenset(given.imported | given.defined | around.imported),
        )

    @property
    def total(self) -> int:
        return len(self.calls.tests) if self.calls else len(self.pairs)


def parse_task(
    fields: Mapping[str, Any], defaults: Limits | None = None, tolerance: Tolerance | None = None
) -> CodeTask:
    """The tests in the fields of a task; `defaults` and `tolerance` where it sets none.

    Raises:
        InputError: the fields hold no tests, or tests of no known form.
    """
    if fields.get("tolerance") is not None:
        tolerance = read_tolerance(fields["tolerance"])
    task = _tests_of(fields, _limits(fields, defaults or Limits()))
    return task if tolerance is None else dataclasses.replace(task, tolerance=tolerance)


def read_tolerance(value: Any) -> Tolerance:
    """One number for both parts: an answer is right within it absolutely or relatively. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"tolerance = {value!r}: a number from 0 to below 1 is needed, such as 1e-6")
    return Tolerance(relative=float(value), absolute=float(value))


def _tests_of(fields: Mapping[str, Any], limits: Limits) -> CodeTask:
    if "test" in fields and "entry_point" in fields:
        return _check_function(fields, limits)
    if "test_list" in fields:
        setup = "\n".join([*fields.get("test_imports", ()), fields.get("test_setup_code", "")])
        codes = [{"code": _text(code, "test_list")} for code in _list(fields["test_list"], "test_list")]
        return CodeTask(calls=Assertions(setup=setup, tests=codes), limits=limits)
    if "tests" not in fields and ("public_test_cases" in fields or "private_test_cases" in fields):
        return _published_live(fields, limits)
    tests = _decode(fields.get("tests", fields.get("input_output")))
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
        setup=f"{preamble_of(prompt, entry_point)}\n{test}\n",
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


def _published_live(fields: Mapping[str, Any], limits: Limits) -> CodeTask:
    tests: list[Any] = []
    for name in ("public_test_cases", "private_test_cases"):
        held = fields.get(name) or "[]"
        tests += _part(_from_json(unpacked(held, name), name) if isinstance(held, str) else held, name)
    metadata = _decode(fields.get("metadata") or {})
    if not isinstance(metadata, dict):
        raise InputError(f"metadata: an object is needed, not {type(metadata).__name__}")
    return _list_of_tests(_list(tests, "public_test_cases"), {"fn_name": metadata.get("func_name")}, limits)


def _part(tests: Any, name: str) -> list[Any]:
    if not isinstance(tests, list):
        raise InputError(f"{name}: a list is needed, not {type(tests).__name__}")
    return tests


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
            "arguments": _arguments(given),
            "expected": [output, output[0]] if wrapped else [output],
        }
        for given, output in zip(inputs, outputs, strict=True)
    ]
    return CodeTask(calls=Assertions(tests=calls), preamble=_imports(fn_name), limits=limits)


def _arguments(given: Any) -> list[Any]:
    """Arguments of one call; it may take none."""
    return [] if given == [] else _list(given, "inputs")


def _imports(under_test: str) -> str:
    return f"{_IMPORTS}globals().pop({under_test!r}, None)\n"


def _function_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"fn_name = {name!r}: tests that call a function need its name")
    return name


def _stream(value: Any) -> bytes:
    """Some data sets hold lines, not text."""
    if isinstance(value, list):
        value = "\n".join(integer_text(line) if type(line) is int else str(line) for line in value)
    return _text(value, "input and output").encode("utf-8", "surrogatepass")


def _decode(tests: Any) -> Any:
    return _from_json(tests, "tests") if isinstance(tests, str) else tests


def _from_json(text: str, name: str) -> Any:
    try:
        return json.loads(text, parse_int=integer)
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
