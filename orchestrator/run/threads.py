"""Failures of threads that libraries start: in a line where they are the system's, with their traceback where they are a defect."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rollout.failures import as_expected


@contextmanager
def told_threads(tell: Callable[[str], None]) -> Iterator[None]:
    """In this block what a thread raises, on a full disk say, is told and not traced."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        expected = as_expected(failed.exc_value) if failed.exc_value else None
        if expected is None:
            before(failed)
        else:
            tell(f"{failed.thread.name if failed.thread else 'a thread'}: {expected}")

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
