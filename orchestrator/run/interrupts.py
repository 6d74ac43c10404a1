"""SIGTERM and Ctrl-C of a run: both end it alike, once, and not in the middle of what must not be cut."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Ending:
    """Handler of SIGTERM. Who asks a second time wants the same end, which is under way."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, *_: object) -> None:
        if self._asked:
            return
        self._asked = True
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # inherited by what a script starts in the background
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which `rayzero stop`, `ray job stop` and schedulers send, ends the block as Ctrl-C does. Blocks may be nested."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or isinstance(before, _Ending):
        yield
        return
    signal.signal(signal.SIGTERM, _Ending())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block, also where what runs in it sets handlers of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = [each for each in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(each))]
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in numbers}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if came:
        signal.raise_signal(came[0])
