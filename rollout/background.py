"""Tasks in the background: whoever starts them owns them, and what one of them raises is raised to somebody."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from rollout.errors import ServiceError


class Tasks:
    """The background tasks of one owner. They end with it."""

    def __init__(self, what: str, failed: Callable[[ServiceError], None] = lambda _: None) -> None:
        """`what`: whose tasks they are, at the start of a message. `failed`: told of the first failure, once."""
        self._what = what
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: ServiceError | None = None
        """What the first task that failed has raised; None: none has."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str = "") -> None:
        """Begin a task. None of them is meant to fail: one that does is a defect, or a failure that nobody has thought of."""
        task = asyncio.create_task(work, name=f"{self._what}: {name or getattr(work, '__name__', '')}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def check(self) -> None:
        """Raises ServiceError when a task has failed."""
        if self.failure is not None:
            raise ServiceError(str(self.failure)) from self.failure

    def cancel(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is None or self.failure is not None:
            return
        text = str(problem) if isinstance(problem, ServiceError) else f"{type(problem).__name__}: {problem}"
        self.failure = ServiceError(f"{task.get_name()}: {text}")
        self.failure.__cause__ = problem
        self._failed(self.failure)
