"""`/dev/stdin` and the other paths of the standard streams: without a /proc there is nothing that they could lead to.

`open`, `os.open` and `os.stat` answer for them with the streams' own descriptors, so a program gets there what it has already
and nothing else. Programs that it starts, and C code, do not find these paths.
"""

import builtins
import io
import os
from collections.abc import Callable
from typing import Any

_PATHS = {
    path: number
    for number, name in enumerate(("stdin", "stdout", "stderr"))
    for path in (f"/dev/{name}", f"/dev/fd/{number}", f"/proc/self/fd/{number}")
}


class _Answering:
    """A function as before, but for the paths of standard streams. No descriptor: a class may hold it as it may a builtin."""

    def __init__(self, usual: Callable[..., Any], answer: Callable[..., Any]) -> None:
        self.__name__ = self.__qualname__ = usual.__name__
        self.__doc__ = usual.__doc__
        self._usual = usual
        self._answer = answer

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        number = _number_of(arguments[0]) if arguments and not isinstance(arguments[0], int) else None
        if number is None or keywords.get("dir_fd") is not None:
            return self._usual(*arguments, **keywords)
        return self._answer(number, *arguments, **keywords)


def _number_of(path: Any) -> int | None:
    """The descriptor that a path stands for."""
    try:
        return _PATHS.get(os.fsdecode(path))
    except (TypeError, ValueError):
        return None


def arm() -> None:
    """From here on the paths lead to the streams. Before other modules take `open` for their own."""
    usual_open, usual_stat = io.open, os.stat

    def open_stream(number: int, *arguments: Any, **keywords: Any) -> Any:
        return usual_open(*arguments, **{"opener": lambda path, flags: os.dup(number)} | keywords)

    builtins.open = io.open = _Answering(usual_open, open_stream)
    os.open = _Answering(os.open, lambda number, *_, **__: os.dup(number))
    os.stat = _Answering(usual_stat, lambda number, *_, **__: os.fstat(number))
