"""A full disk is waited for: what could not be written is written when there is room. Everything else that fails is raised.

Whoever writes waits here, and with it the loop: nothing piles up in memory meanwhile but what a step has made.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rollout.errors import StorageError, told
from rollout.waits import waiting

T = TypeVar("T")

PATIENCE_S = 3600.0
"""Longest wait for room, in seconds; then the run ends, and can be continued."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


async def with_room(write: Callable[[], Awaitable[T]], say: Callable[[str], None]) -> T:
    """What `write` gives, tried again while the disk is full.

    Args:
        write: leaves nothing half written where it fails.
        say: told when the wait begins and when it ends.

    Raises:
        StorageError: there was no room for `PATIENCE_S`, or something else is wrong with the files.
    """
    began, pause = 0.0, FIRST_PAUSE_S
    while True:
        try:
            written = await write()
        except (OSError, StorageError) as failure:
            problem = failure if isinstance(failure, StorageError) else told(failure)
            if not (isinstance(problem, StorageError) and problem.is_full):
                raise problem from failure
            began = began or time.monotonic()
            if pause == FIRST_PAUSE_S:
                say(f"{problem}; the run waits for room, for up to {PATIENCE_S / 60:.0f} min, and goes on then")
            waited = time.monotonic() - began
            if waited > PATIENCE_S:
                text = f"waited {waited:.0f} s for room: {problem}"
                raise StorageError(text, problem.path, problem.number) from failure
        else:
            if began:
                say(f"there is room again after {time.monotonic() - began:.0f} s; the run goes on")
            return written
        with waiting(f"room at {problem.path or 'a full disk'}", PATIENCE_S):
            await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


async def write_with_room(write: Callable[[], T], say: Callable[[str], None]) -> T:
    """`with_room` of a function that blocks, in a thread."""
    return await with_room(lambda: asyncio.to_thread(write), say)
