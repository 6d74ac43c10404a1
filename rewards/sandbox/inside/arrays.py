"""NumPy's values between a test and the program under test, where the recipe allows numpy.

Numbers of numpy become Python's; arrays of numbers arrive as arrays with a copy of the content. Anything else of numpy's (an
array of objects, a subclass) stays where it is, as any object.
"""

import functools
import sys
from typing import Any

_NUMBERS = "biufc"
"""Kinds of numpy's types whose bytes are the value."""


def plain(value: Any) -> Any:
    """A number of numpy's as Python has it, an array without items as the list it is; any other value as it is.

    An empty array would compare with whatever it is held against as equal: there is nothing in it that differs.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value).__module__ != "numpy":
        return value
    if type(value) is numpy.ndarray and value.dtype.kind in _NUMBERS and not value.size:
        return value.tolist()
    return value.item() if isinstance(value, numpy.generic) else value


def pack(value: Any) -> list[Any] | None:
    """Type, shape and content of an array of numbers; None for any other value."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or value.dtype.kind not in _NUMBERS:
        return None
    return [value.dtype.str, list(value.shape), value.tobytes().hex()]


def unpack(kind: str, shape: list[int], content: str) -> Any:
    """The array. Raises ValueError or TypeError on what `pack` would not have written."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise ValueError("there is no numpy")
    dtype = numpy.dtype(str(kind))
    if dtype.kind not in _NUMBERS or dtype.fields is not None:
        raise ValueError(f"an array of {kind}")
    data = bytes.fromhex(content)
    if dtype.kind == "b":
        data = bytes(map(bool, data))  # another byte would be neither true nor false
    array = numpy.frombuffer(data, dtype).reshape([int(length) for length in shape]).copy()
    if not array.size:
        raise ValueError("an array without items")
    return array


def tell_empty_apart() -> None:
    """In the tests' own numpy: nothing is close to something, though every item of it is."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return
    usual = numpy.isclose

    @functools.wraps(usual)
    def isclose(a: Any, b: Any, *arguments: Any, **keywords: Any) -> Any:
        if (numpy.size(a) == 0) != (numpy.size(b) == 0):
            return numpy.False_
        return usual(a, b, *arguments, **keywords)

    numpy.isclose = usual.__wrapped__.__globals__["isclose"] = isclose  # by the latter, `allclose` and others call it
