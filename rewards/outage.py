"""What becomes of scoring while a judge, a reward model, a server or the sandbox is down. Plain Python, no Ray.

An error says nothing by itself: of the row, of the completion, or of what scores it (but that no process or no sandbox can be
had, which holds for all). So whatever was scored last is scored again. If that fails too, what scores it is down: an outage. Then nothing new is generated, nothing is dropped; what was scored
before is tried with growing pauses, and once it is scored again, so is all that waited. If it is scored, the error is the
completion's own: it is tried once more, since the outage may just have ended, and then it stays unscored.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from rewards.types import Unavailable
from rollout.errors import ServiceError
from rollout.waits import waiting

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Seconds between two tries of what is down: they double from the first to the longest."""

Ask = Callable[[], Awaitable[tuple[T, str, bool]]]
"""Scores something: what came of it; why that is no score (empty: it is one); and whether that holds for whatever is scored just now.
It may raise ServiceError for such a reason, `Unavailable` for one that holds for all."""

Found = Literal["works", "was down", "unknown"]
"""What is found out of what scores: that it works, that it was down and is back, or nothing, since it never scored before."""


class Outages:
    """What scores, by name, and whether it is down. Used from one event loop."""

    def __init__(self, patience_s: float, tell: Callable[[str], None], check: Callable[[], None]) -> None:
        """
        Args:
            patience_s: longest outage; 0: an error is taken as it is, and nothing waits.
            tell: told when an outage begins and ends.
            check: raises what no waiting mends.
        """
        self._patience_s = patience_s
        self._tell = tell
        self._check = check
        self._worked: dict[str, Ask[object]] = {}
        self._looks: dict[str, asyncio.Task[Found]] = {}
        self._down: dict[str, asyncio.Event] = {}
        self._waiting = 0

    @property
    def down(self) -> list[str]:
        """Names of what is down now."""
        return sorted(self._down)

    async def clear(self) -> None:
        """Wait until nothing is down."""
        while self._down:
            await next(iter(self._down.values())).wait()

    async def persist(self, name: str, ask: Ask[T], again: Ask[T]) -> T:
        """What `ask` says in the end.

        Args:
            name: what scores.
            again: what `ask` does, on nobody's account: to find out later whether `name` works.

        Raises:
            ServiceError: as `ask` did, or the outage did not end.
        """
        last = False
        while True:
            said, error, for_all, problem = await _try(ask)
            if not error:
                self._worked[name] = again
                assert not isinstance(said, _Nothing)
                return said
            self._check()
            found: Found = "unknown"
            if self._patience_s > 0:
                found = await self._look(name, error, again if for_all else None)
            if found == "unknown" or (found == "works" and last):
                if problem is not None:
                    raise problem
                assert not isinstance(said, _Nothing)
                return said
            last = found == "works"

    async def _look(self, name: str, error: str, none_works: Ask[object] | None) -> Found:
        """Find out whether `name` works now; where it does not, wait until it does.

        `none_works`: what failed, where it failed for a reason that holds for all.
        """
        if name not in self._worked and none_works is None:
            return "unknown"
        self._waiting += 1
        try:
            # A look that was under way may have been before the failure.
            if name in self._looks and await asyncio.shield(self._looks[name]) == "was down":
                return "was down"
            if name not in self._looks:
                look = self._looks[name] = asyncio.create_task(
                    self._examine(name, error, none_works), name=f"outage of {name}"
                )
                look.add_done_callback(lambda done: (self._looks.pop(name, None), done.cancelled() or done.exception()))
            return await asyncio.shield(self._looks[name])
        finally:
            self._waiting -= 1

    async def _examine(self, name: str, error: str, none_works: Ask[object] | None) -> Found:
        async def down() -> str:
            _, why, for_all, _ = await _try(none_works or self._worked[name])
            # What failed for a reason that holds for all may have one of its own, too.
            return why if for_all or none_works is None else ""

        why = await down()
        if not why:
            return "works"
        self._down[name] = asyncio.Event()
        self._tell(
            f"{name} is down ({error}): nothing is dropped and nothing new is generated; it is tried again for up to "
            f"{self._patience_s:.0f} s (rewards.outage_s)"
        )
        began, pause = time.monotonic(), FIRST_PAUSE_S
        try:
            with waiting(f"{name}, which is down ({error})", self._patience_s):
                while why:
                    self._check()
                    down_s = time.monotonic() - began
                    if down_s > self._patience_s:
                        raise ServiceError(
                            f"{self._waiting} scores waited {down_s:.0f} s for {name}, which did not come back "
                            f"(rewards.outage_s = {self._patience_s:g}): {why}"
                        )
                    await asyncio.sleep(min(pause, max(0.05, self._patience_s - down_s)))
                    pause = min(2 * pause, LONGEST_PAUSE_S)
                    why = await down()
        finally:
            self._down.pop(name).set()
        self._tell(
            f"{name} is back after {time.monotonic() - began:.0f} s; {self._waiting} scores that waited are made now"
        )
        return "was down"


class _Nothing:
    """Nothing was said."""


async def _try(ask: Ask[T]) -> tuple[T | _Nothing, str, bool, ServiceError | None]:
    """(what was said, why it is no score, whether that holds for all, what was raised)."""
    try:
        said, error, for_all = await ask()
    except ServiceError as problem:
        return _Nothing(), str(problem) or "it failed", isinstance(problem, Unavailable), problem
    return said, error, for_all, None
