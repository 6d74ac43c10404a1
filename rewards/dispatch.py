"""Which reward worker scores which completion next: the queue, the batches, one retry elsewhere. Plain Python, no Ray.

A completion waits in one queue until a worker has room for it, and goes to the least busy one. A completion that comes back
with status `error` is tried once more, on another worker where there is one. When a worker dies, whatever it had not answered
is suspect of it: each of these goes alone to a worker that does nothing else, so that it can only harm itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rewards.error_budget import ErrorBudget
from rewards.types import Sample, Score
from rollout.errors import ServiceError

DEPTH = 64
"""Completions that one worker is given at a time; the others wait where any worker can take them."""
BATCH = 32
"""Completions of one call to a worker."""


@dataclass(eq=False)
class Worker:
    """One reward worker, as the queue sees it."""

    actor: Any
    """Handle that the worker is called through; the queue does not look into it."""
    name: str = ""
    """Name of its actor."""
    place: str = ""
    """Id of the node that it was meant for; empty: any."""
    where: Any = None
    """Answer on its way: id of the node that it lives on."""
    outstanding: int = 0
    """Completions that it has been given and has not answered. `DEPTH` for one that has a suspect for itself."""
    down: bool = False
    """Whether it died and has not come back yet."""
    died: float = 0.0
    """Time at which it died, in terms of time.monotonic; of use while it is down."""
    moved: float = 0.0
    """Time at which it last answered a completion, or was given one while it had none, in terms of time.monotonic."""
    gone: str = ""
    """Why it has not come back for so long that nobody should wait for it alone; empty while it may."""


@dataclass(eq=False)
class Request:
    """One completion to be scored."""

    rubric: str
    sample: Sample
    budget: ErrorBudget
    """Error budget that its score counts in."""
    result: "asyncio.Future[Score]"
    asked: float = field(default_factory=time.perf_counter)
    """Time at which it was asked for, in terms of time.perf_counter."""
    failed_on: Worker | None = None
    """Worker of its first try, once that has failed."""
    suspect: bool = False
    """Whether its worker died: it goes alone next time."""


@dataclass(eq=False)
class Batch:
    """Completions that one worker is given at a time."""

    worker: Worker
    requests: list[Request]
    share: int
    """Part of the worker's `DEPTH` that it takes."""
    began: float = field(default_factory=time.perf_counter)
    """Time at which it was handed out, in terms of time.perf_counter."""


class Dispatcher:
    """The queue of completions and the workers that take from it. Used from one event loop."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self._waiting: deque[Request] = deque()
        self._changed = asyncio.Event()
        self._broken: ServiceError | None = None

    @property
    def num_waiting(self) -> int:
        """Completions that no worker has taken yet."""
        return len(self._waiting)

    # --- Workers

    def keep(self, replicas: int) -> list[Worker]:
        """Give nothing more to the workers beyond the first `replicas`, and return them."""
        leaving = self.workers[replicas:]
        del self.workers[replicas:]
        self._changed.set()
        return leaving

    async def wait_until_idle(self, worker: Worker) -> None:
        """Wait until a worker has answered all that it was given."""
        while worker.outstanding:
            await self._change()

    def lost(self, worker: Worker) -> bool:
        """A worker has died: it gets nothing until `back`. False when that was known already."""
        if worker.down:
            return False
        worker.down, worker.died = True, time.monotonic()
        return True

    def back(self, worker: Worker) -> None:
        """A worker that was down serves again."""
        worker.down, worker.gone = False, ""
        self._changed.set()

    def give_up(self, worker: Worker, reason: str) -> None:
        """A worker has not come back in time. When none is left to go on, whoever waits is told."""
        worker.gone = reason
        self._changed.set()
        problem = self.all_gone()
        while problem and self._waiting:
            self.refuse([self._waiting.popleft()], ServiceError(problem))

    def break_off(self, problem: ServiceError) -> None:
        """Nothing is handed out any more: whoever waits, or asks from now on, is told why."""
        self._broken = problem
        while self._waiting:
            self.refuse([self._waiting.popleft()], problem)
        self._changed.set()

    def all_gone(self) -> str:
        """Why nothing can be scored any more; empty while a worker is up or may come back."""
        if self.workers and all(worker.gone for worker in self.workers):
            return f"no reward worker comes back: {self.workers[0].gone}"
        return ""

    async def up(self, number: int) -> Worker:
        """The worker with this number, counted round, among those that are up; waits for one.

        Raises:
            ServiceError: all of them are gone.
        """
        while not (up := self._up()) or self._broken:
            self._check()
            if problem := self.all_gone():
                raise ServiceError(problem)
            await self._change()
        return up[number % len(up)]

    # --- Completions

    async def score(self, rubric: str, sample: Sample, budget: ErrorBudget) -> Score:
        """The score of one completion; status `error` when it could not be scored, twice.

        Raises:
            ServiceError: all workers are gone, or nothing is handed out any more.
        """
        self._check()
        if problem := self.all_gone():
            raise ServiceError(problem)
        request = Request(rubric, sample, budget, asyncio.get_running_loop().create_future())
        self._put(request)
        return await request.result

    async def next(self) -> Batch:
        """The next batch, once there is a completion and a worker with room for it."""
        while (batch := self.take()) is None:
            await self._change()
        return batch

    def take(self) -> Batch | None:
        """The next batch, from the front of the queue to the least busy worker; None when it has to wait."""
        if not self._waiting or (worker := self._free_worker(self._waiting[0])) is None:
            return None
        requests = [self._waiting.popleft()]
        if requests[0].suspect:
            share = DEPTH
        else:
            room = min(BATCH, DEPTH - worker.outstanding)
            while len(requests) < room and self._waiting and not self._waiting[0].suspect:
                requests.append(self._waiting.popleft())
            share = len(requests)
        if not worker.outstanding:
            worker.moved = time.monotonic()
        worker.outstanding += share
        return Batch(worker, requests, share)

    def release(self, batch: Batch) -> None:
        """The worker of a batch has room for others: it has answered, or died."""
        batch.worker.outstanding -= batch.share
        self._changed.set()

    def settle(self, batch: Batch, request: Request, score: Score) -> None:
        """Pass a score on; a first `error` is tried once more, on another worker where there is one."""
        if score.status == "error" and request.failed_on is None:
            request.failed_on = batch.worker
            self._put(request)
            return
        request.budget.add(score, batch.began - request.asked)
        if not request.result.done():  # its caller may have given up
            request.result.set_result(score)

    def fail(self, batch: Batch, requests: Iterable[Request], reason: str) -> None:
        """The worker of a batch died, or ended, without an answer to these requests."""
        for request in requests:
            request.suspect = True
            seconds = time.perf_counter() - batch.began
            self.settle(batch, request, Score(value=0.0, status="error", breakdown={}, seconds=seconds, error=reason))

    def refuse(self, requests: Iterable[Request], problem: ServiceError) -> None:
        """Raise a failure to whoever waits for these completions: it is none of theirs."""
        for request in requests:
            if not request.result.done():
                request.result.set_exception(problem)

    # --- Choice

    def _up(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.down]

    def _free_worker(self, request: Request) -> Worker | None:
        up = self._up()
        others = [worker for worker in up if worker is not request.failed_on]
        worker = min(others or up, key=lambda worker: worker.outstanding, default=None)
        if worker is None or (request.suspect and worker.outstanding):
            return None
        return worker if worker.outstanding < DEPTH else None

    def _check(self) -> None:
        if self._broken is not None:
            raise ServiceError(str(self._broken)) from self._broken

    def _put(self, request: Request) -> None:
        if self._broken is not None:
            self.refuse([request], self._broken)
            return
        self._waiting.append(request)
        self._changed.set()

    async def _change(self) -> None:
        """Wait until something has happened that may let a waiting completion, or a waiting caller, go on."""
        self._changed.clear()
        await self._changed.wait()
