"""The open waits of this process: who waits for whom, since when, and for how long at most. Plain Python.

    with acting("publish of version 7"):
        with waiting("replica 1 to load", limit_s=600) as wait:
            …; wait.moved()

Every wait for something outside of this process is entered here while it lasts, so that a run that stands can say why
(`rayzero status RUN --debug`), and so that a limit that runs out names both sides.
"""

import math
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_who: ContextVar[str] = ContextVar("who", default="")
_open: dict[int, "Wait"] = {}


@dataclass(slots=True, eq=False)
class Wait:
    """One wait that has not ended."""

    who: str
    """Who waits; empty: nobody said."""
    what: str
    """What is waited for, as in "waiting for …"."""
    limit_s: float
    """Longest time without progress, in seconds; infinite: it ends with something else that has a limit."""
    since: float = field(default_factory=time.monotonic)
    """`time.monotonic()` of its begin."""
    last: float = field(default_factory=time.monotonic)
    """`time.monotonic()` of the last progress; of its begin, where none is told."""

    def moved(self, ago_s: float = 0.0) -> None:
        """What is waited for has made progress, so many seconds ago."""
        self.last = max(self.last, time.monotonic() - ago_s)

    @property
    def idle_s(self) -> float:
        """Seconds without progress."""
        return time.monotonic() - self.last

    @property
    def left_s(self) -> float:
        """Seconds until its limit runs out."""
        return self.limit_s - self.idle_s

    def ran_out(self) -> str:
        """The message when the limit has run out: who waited for whom."""
        who = f"{self.who}: " if self.who else ""
        moved = self.last - self.since > 0.5 * self.limit_s
        whole = f", {time.monotonic() - self.since:.0f} s in all" if moved else ""
        return f"{who}timed out after {self.limit_s:.0f} s waiting for {self.what}{whole}"


@contextmanager
def acting(who: str) -> Iterator[None]:
    """Whatever is waited for in this block, and in tasks that are begun in it, is waited for by `who`, as a part of who acts
    already: `arithmetic, publish of version 7`."""
    already = _who.get()
    before = _who.set(f"{already}, {who}" if already else who)
    try:
        yield
    finally:
        _who.reset(before)


def acting_as(who: str) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """`acting` for the whole of an async function."""

    def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(function)
        async def named(*args: P.args, **kwargs: P.kwargs) -> T:
            with acting(who):
                return await function(*args, **kwargs)

        return named

    return decorate


@contextmanager
def waiting(what: str, limit_s: float = math.inf) -> Iterator[Wait]:
    """An entry in the table while the block lasts. Whoever waits sees to the limit."""
    wait = Wait(_who.get(), what, limit_s)
    _open[id(wait)] = wait
    try:
        yield wait
    finally:
        del _open[id(wait)]


def open_waits() -> list[Wait]:
    """The waits that have not ended, the oldest first."""
    return sorted(_open.copy().values(), key=lambda wait: wait.since)
