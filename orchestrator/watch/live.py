"""Watching a run until it is finished or Ctrl-C: a screen on a terminal, one plain block anywhere else."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.run.reading import RunCopy
from orchestrator.run.record import read_run
from orchestrator.watch.look import Watcher
from orchestrator.watch.signs import signs_for
from orchestrator.watch.view import fitted, view
from rollout.errors import InputError, ServiceError, visible

PLAIN_WIDTH = 100
"""Columns where there is no terminal and `COLUMNS` says nothing."""


def watch_run(run_dir: Path, *, once: bool = False, every_s: float = 2.0, copy: RunCopy | None = None) -> None:
    """Show a run, again every so many seconds while it goes on or may begin.

    Where the output is no terminal, or one that cannot move its cursor, it is shown once.

    Args:
        copy: what the folder is a copy of, brought anew before each look.

    Raises:
        InputError: it is shown once and the folder holds no run, or one that cannot be read.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # names in a recipe may have signs that the terminal lacks
    console = Console(highlight=False)
    if once or not sys.stdout.isatty() or console.is_dumb_terminal:
        _show_once(run_dir, copy)
        return
    watcher = Watcher(run_dir, copy)
    last: RenderableType = ""
    with (
        _asked_to_end() as asked,
        suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        while not asked:
            last, done = _picture(watcher, console)
            live.update(fitted(last, console), refresh=True)
            if done:
                break
            until = time.monotonic() + every_s
            while not asked and time.monotonic() < until:
                time.sleep(min(every_s, 0.1))  # a signal does not cut it short
    # The screen is gone with what stood on it.
    console.print(last)


def _show_once(run_dir: Path, copy: RunCopy | None) -> None:
    width = int(found) if (found := os.environ.get("COLUMNS", "")).isdecimal() else 0
    console = Console(highlight=False, force_terminal=False, no_color=True, color_system=None, legacy_windows=False)
    if width or not sys.stdout.isatty():
        console.width = max(40, width or PLAIN_WIDTH)
    look = Watcher(run_dir, copy).look()
    if look.run is None:
        read_run(run_dir)  # says what is missing
    with console.capture() as block:
        console.print(view(look, console.width, signs_for(console.encoding)))
    # Without the spaces that fill a line up.
    print("\n".join(line.rstrip() for line in block.get().splitlines()))


def _picture(watcher: Watcher, console: Console) -> tuple[RenderableType, bool]:
    """(what to show, whether nothing more will come)."""
    try:
        look = watcher.look()
    except (InputError, ServiceError) as problem:
        return Text(visible(str(problem)), style="red"), False
    return view(look, console.width, signs_for(console.encoding)), look.stands == "finished"


@contextmanager
def _asked_to_end() -> Iterator[list[int]]:
    """Has the signals that ask for the end, Ctrl-C and SIGTERM, which leave the terminal in the same way: with its cursor, and not in the other screen.

    An exception in the middle of whatever goes on may be swallowed there, by a finalizer say; a second signal raises one, since
    the terminal may hold up the process.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def end(number: int, _: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
