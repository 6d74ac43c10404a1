"""Tests out of the fields of tasks."""

from typing import Any

import pytest

from rewards.code.tasks import parse_task
from rewards.sandbox.types import Limits, Tolerance
from rollout.errors import InputError


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "tests: a list with at least one test is needed"),
        ({"tests": []}, "at least one"),
        ({"tests": [1]}, "each must be an object"),
        ({"tests": [{"input": "1"}]}, "all must hold input and output, or all assert"),
        ({"tests": [{"input": "1", "output": "1"}, {"assert": "assert 1"}]}, "all must hold"),
        ({"tests": [{"input": 1, "output": "1"}]}, "text is needed, not int"),
        ({"tests": "[{"}, "not JSON"),
        ({"tests": {"inputs": ["1"], "outputs": []}}, "outputs: a list"),
        ({"tests": {"inputs": ["1"], "outputs": ["1", "2"]}}, "1 inputs, but 2 outputs"),
        ({"tests": {"inputs": [[1]], "outputs": [1], "fn_name": "a b"}}, "fn_name = 'a b'"),
        ({"tests": [{"input": "1", "output": "1", "testtype": "functional"}]}, "fn_name = None"),
        ({"test": "x", "entry_point": "a.b"}, "entry_point = 'a.b'"),
        ({"tests": [{"assert": "assert 1"}], "time_limit_s": 0}, "time_limit_s = 0: a number above 0"),
        ({"tests": [{"assert": "assert 1"}], "memory_mb": "many"}, "memory_mb = 'many'"),
        ({"tests": [{"assert": "assert 1"}], "memory_mb": True}, "memory_mb = True"),
        (
            {"tests": [{"input": "", "output": ""}], "tolerance": "tiny"},
            "tolerance = 'tiny': a number from 0 to below 1",
        ),
        ({"tests": [{"input": "", "output": ""}], "tolerance": -1}, "tolerance = -1"),
        ({"tests": [{"input": "", "output": ""}], "tolerance": 1}, "tolerance = 1"),
        ({"tests": [{"input": "", "output": ""}], "tolerance": float("nan")}, "tolerance = nan"),
    ],
)
def test_tasks_without_usable_tests_are_input_errors(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_task(fields)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_sets_its_own_limits() -> None:
    fields = {"tests": [{"input": "", "output": ""}], "time_limit_s": 100, "memory_mb": 64.5}
    limits = parse_task(fields, Limits(test_s=1, total_s=10, processes=3)).limits
    assert limits == Limits(test_s=100, total_s=100, memory_mb=64, processes=3)


def test_a_task_sets_its_own_tolerance() -> None:
    fields: dict[str, Any] = {"tests": [{"input": "", "output": ""}]}
    assert parse_task(fields).tolerance == Tolerance()
    assert parse_task(fields, tolerance=Tolerance(0.1, 0.2)).tolerance == Tolerance(0.1, 0.2)
    assert parse_task(fields | {"tolerance": None}, tolerance=Tolerance(0.1, 0.2)).tolerance == Tolerance(0.1, 0.2)
    assert parse_task(fields | {"tolerance": 1e-6}, tolerance=Tolerance(0.1, 0.2)).tolerance == Tolerance(1e-6, 1e-6)
