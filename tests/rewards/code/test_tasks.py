"""Tests out of the fields of tasks."""

import base64
import json
import pickle
import zlib
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


class Bomb:
    def __reduce__(self) -> Any:
        return print, ("run",)


def pack(value: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_the_published_tests_of_livecodebench_are_both_lists() -> None:
    public = json.dumps([{"input": "1", "output": "2", "testtype": "stdin"}])
    private = json.dumps([{"input": "3", "output": "4\u00e9", "testtype": "stdin"}])
    for held in (private, pack(private)):
        task = parse_task({"public_test_cases": public, "private_test_cases": held, "metadata": "{}"})
        assert task.pairs == [(b"1", b"2"), (b"3", "4\u00e9".encode())]


@pytest.mark.parametrize("value", [Bomb(), ["[]", "[]"], 7, ["[]"], {"a": "[]"}])
def test_nothing_of_a_pickle_but_a_text_is_read(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="private_test_cases: neither JSON nor packed tests: a pickle of"):
        parse_task({"public_test_cases": "[]", "private_test_cases": pack(value)})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["%%", "aGVsbG8=", base64.b64encode(zlib.compress(b"x" * 999)[:-6]).decode()])
def test_what_is_not_packed_is_told(text: str) -> None:
    with pytest.raises(InputError, match="private_test_cases: neither JSON nor packed tests"):
        parse_task({"public_test_cases": "[]", "private_test_cases": text})
