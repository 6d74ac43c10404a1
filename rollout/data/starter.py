"""What is said of a program behind the question that asks for it: the code that it begins with, or how it is run."""

from collections.abc import Mapping
from typing import Any

from rollout.data.columns import found_values
from rollout.data.json_text import read_json

_TESTS = ("input_output", "tests")
"""Columns of tests, which may name the function that they call."""
_NAMES = ("fn_name", "metadata.func_name", "metadata.fn_name")
"""Columns beside them that may; of LiveCodeBench it is in `metadata`."""


def starter_text(code: Any, values: Mapping[str, Any]) -> str:
    """The text; `code`: of the starter column, `values`: column → value of the whole row."""
    if isinstance(code, str) and code.strip():
        return f"\n\nThe program begins with this code and completes it:\n\n```python\n{code.rstrip()}\n```"
    if name := called_name(values):
        return (
            f"\n\nThe program defines the function `{name}`, which is called with its arguments and returns the result."
        )
    return "\n\nThe program reads its input from standard input and prints its output."


def called_name(values: Mapping[str, Any]) -> str:
    """The function that the tests of a row call; empty where they run the program."""
    for column in _TESTS:
        held = _tests(values.get(column))
        if isinstance(held, Mapping) and _is_name(held.get("fn_name")):
            return str(held["fn_name"])
    for column in _NAMES:
        for name in found_values(values, column):
            if _is_name(name):
                return str(name)
    return ""


def _tests(held: Any) -> Any:
    """Tests that may be JSON text. One that names no function is not read: it may be megabytes."""
    if not isinstance(held, str) or '"fn_name"' not in held:
        return held
    try:
        return read_json(held)
    except (ValueError, RecursionError):  # said where the tests are read
        return None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()
