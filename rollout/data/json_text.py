"""JSON as data files hold it: a number keeps the digits that it was written with, however many they are.

Python reads and writes integers of at most 4,300 digits as text (its limit for untrusted input); a `Decimal` has no such limit.
"""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


class WrittenFloat(float):
    """A JSON number with a point or an exponent that prints as it was written."""

    text: str

    def __new__(cls, text: str) -> "WrittenFloat":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


class ValueText(str):
    """Text of a column whose value is no text: digits of a number, or JSON; empty for a missing one."""

    __slots__ = ()


def read_json(text: str, *, finite: bool = False) -> Any:
    """What a JSON text says; with `finite`, no number in it is beyond the floats.

    Raises ValueError, RecursionError for what is no JSON text; NaN and infinities are none.
    """
    return json.loads(text, parse_float=_finite if finite else WrittenFloat, parse_int=integer, parse_constant=_refuse)


def integer(text: str) -> int:
    """An integer of however many digits. Raises ValueError for other texts."""
    try:
        return int(text)
    except ValueError:
        if not text.removeprefix("-").isdecimal():
            raise
        return int(Decimal(text))


def integer_text(value: int) -> str:
    """All digits of an integer."""
    try:
        return str(value)
    except ValueError:
        return format(Decimal(value), "f")


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """JSON text of a value; what JSON does not know is written as its text."""
    try:
        return json.dumps(value, ensure_ascii=ascii_only, default=str)
    except ValueError:  # an integer of many digits in it
        return _written(value, ascii_only)


def _written(value: Any, ascii_only: bool) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return integer_text(value)
    if isinstance(value, Mapping):
        names = (json.dumps(str(name), ensure_ascii=ascii_only) for name in value)
        pairs = zip(names, value.values(), strict=True)
        return "{" + ", ".join(f"{name}: {_written(each, ascii_only)}" for name, each in pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(each, ascii_only) for each in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only, default=str)


def _finite(text: str) -> WrittenFloat:
    number = WrittenFloat(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is too large a number; write it as text")
    return number


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value; write null")


DECODER = json.JSONDecoder(parse_float=WrittenFloat, parse_int=integer, parse_constant=_refuse)
"""Reads as `read_json` does, a value at the beginning of a text (`raw_decode`)."""
