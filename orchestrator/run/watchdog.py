"""A thread that notices when the event loop of a run stands: then no limit of any wait runs out, and nobody else would say so."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

LIMIT_S = 30.0
"""Seconds that the loop may stand."""
TICK_S = 1.0
STACKS = "stacks.txt"
"""File in a run's folder with the stacks of the last time that the loop stood."""
_OURS = Path(__file__).parents[2]
_LONGEST = 1 << 20


class Watchdog:
    """Watches the loop that it is entered in. One that stands is told of once, with a file of all stacks, and again when it goes on."""

    def __init__(self, folder: Path, tell: Callable[[str], None], limit_s: float = LIMIT_S) -> None:
        """`folder`: where the stacks are written. `tell`: is called in the thread."""
        self._file, self._tell = folder / STACKS, tell
        self._limit_s = limit_s
        self._turns = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._turn()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        self._ended.set()
        self._next.cancel()

    def _turn(self) -> None:
        self._turns += 1
        self._next = self._loop.call_later(min(TICK_S, self._limit_s / 4), self._turn)

    def _watch(self) -> None:
        tick = min(TICK_S, self._limit_s / 4)
        seen, stood, since = self._turns, 0.0, 0.0
        while not self._ended.wait(tick):
            if self._turns == seen:
                # Time in which this thread was awake: a process that was stopped as a whole has not stood.
                stood += tick
                if stood >= self._limit_s and not since:
                    since = time.monotonic() - stood
                    self._say()
                continue
            if since:
                self._tell(f"the event loop goes on, after {time.monotonic() - since:.0f} s")
            seen, stood, since = self._turns, 0.0, 0.0

    def _say(self) -> None:
        place = _place(sys._current_frames().get(self._watched))
        # Said first: where it is the run's folder that stands, writing there stands too.
        self._tell(
            f"the event loop has not turned for {self._limit_s:.0f} s, so no wait can run out: it is {place}; all stacks are "
            f"in {self._file}"
        )
        try:
            text = "\n\n".join(
                f"{name}\n{stack}" for name, stack in (thread_stacks() | task_stacks(self._loop)).items()
            )
            self._file.write_text(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n\n{text[:_LONGEST]}\n", encoding="utf-8")
        except (OSError, RuntimeError) as problem:
            self._tell(f"{self._file}: {problem}")


def thread_stacks() -> dict[str, str]:
    """Thread → its stack, outermost call first, of all threads of this process but the one that asks."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        f"thread {names.get(ident, ident)}": "".join(traceback.format_stack(frame)).rstrip()
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    }


def task_stacks(loop: asyncio.AbstractEventLoop) -> dict[str, str]:
    """Task → where it waits, outermost call first, of all tasks of a loop; equal ones together, with their number."""
    found: dict[str, list[str]] = {}
    for task in asyncio.all_tasks(loop):
        stack = "\n".join(_chain(task))
        found.setdefault(stack, []).append(task.get_name())
    return {
        f"task {names[0]}" + (f" and {len(names) - 1} others" if len(names) > 1 else ""): stack
        for stack, names in sorted(found.items(), key=lambda each: len(each[1]))
    }


def _chain(task: "asyncio.Task[object]") -> list[str]:
    """A task's coroutines, each awaited by the one before; `get_stack` tells of the outermost alone."""
    lines: list[str] = []
    coroutine: object = task.get_coro()
    while coroutine is not None and len(lines) < 50:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            lines.append(f"  {frame.f_code.co_qualname} ({_short(frame.f_code.co_filename)}:{frame.f_lineno})")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return lines


def _place(frame: FrameType | None) -> str:
    """Where a thread is: the innermost call, and the innermost of ours where that is another."""
    calls = traceback.extract_stack(frame) if frame else None
    if not calls:
        return "nobody knows where"
    ours = next((call for call in reversed(calls) if _is_ours(Path(call.filename))), calls[-1])
    words = f"in {calls[-1].name} ({_short(calls[-1].filename)}:{calls[-1].lineno})"
    if ours is not calls[-1]:
        words += f", called by {ours.name} ({_short(ours.filename)}:{ours.lineno})"
    return words


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(_OURS)) if _is_ours(path) else "/".join(path.parts[-2:])


def _is_ours(path: Path) -> bool:
    return path.is_relative_to(_OURS) and "site-packages" not in path.parts
