"""Which worker scores what: nothing is lost, and what kills a worker can only harm itself. Without Ray."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest

from rewards.dispatch import BATCH, DEPTH, Batch, Dispatcher, Request, Worker
from rewards.error_budget import ErrorBudget
from rewards.types import Sample, Score
from rollout.errors import ServiceError

OK = Score(value=1.0, status="ok", breakdown={}, seconds=0.1)
ERROR = Score(value=0.0, status="error", breakdown={}, seconds=0.1, error="it failed")


class Rig:
    """A dispatcher with workers called `a`, `b`, …, and the completions that were asked for."""

    def __init__(self, workers: int) -> None:
        self.dispatcher = Dispatcher()
        self.workers = [Worker(name) for name in "abcd"[:workers]]
        self.dispatcher.workers = list(self.workers)
        self.budget = ErrorBudget(1.0)
        self.asked: list[asyncio.Task[Score]] = []

    async def ask(self, number: int, prefix: str = "") -> None:
        """Ask for so many scores; the completions are `<prefix>0`, `<prefix>1`, …"""
        for i in range(number):
            sample = Sample(prompt="", completion=f"{prefix}{i}")
            self.asked.append(asyncio.create_task(self.dispatcher.score("r", sample, self.budget)))
        await asyncio.sleep(0)

    def take(self) -> Batch:
        batch = self.dispatcher.take()
        assert batch is not None
        return batch

    def take_all(self) -> list[Batch]:
        batches = []
        while batch := self.dispatcher.take():
            batches.append(batch)
        return batches

    def answer(self, batch: Batch, score: Score = OK) -> None:
        for request in batch.requests:
            self.dispatcher.settle(batch, request, score)
        self.dispatcher.release(batch)

    def die(self, batch: Batch) -> None:
        """The worker of a batch dies before it has answered anything, and stays down."""
        assert self.dispatcher.lost(batch.worker)
        self.dispatcher.release(batch)
        self.dispatcher.fail(batch, batch.requests, "it died")


def texts(requests: list[Request]) -> list[str]:
    return [request.sample.completion for request in requests]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


def test_the_least_busy_worker_is_next_and_ties_go_to_the_first() -> None:
    async def test() -> None:
        rig = Rig(2)
        await rig.ask(3)
        first = rig.take()
        assert first.worker is rig.workers[0]
        assert texts(first.requests) == ["0", "1", "2"]
        await rig.ask(1)
        assert rig.take().worker is rig.workers[1]
        await rig.ask(1)
        assert rig.take().worker is rig.workers[1]  # 1 of its completions is open, and 3 of the other's
        rig.answer(first)
        await rig.ask(1)
        assert rig.take().worker is rig.workers[0]

    run(test())


def test_a_call_takes_a_batch_at_most_and_a_worker_its_depth() -> None:
    async def test() -> None:
        rig = Rig(2)
        await rig.ask(3 * DEPTH)
        batches = rig.take_all()
        assert {len(batch.requests) for batch in batches} == {BATCH}
        assert [worker.outstanding for worker in rig.workers] == [DEPTH, DEPTH]
        assert rig.dispatcher.num_waiting == DEPTH
        rig.answer(batches[0])
        assert rig.take().worker is batches[0].worker
        assert rig.dispatcher.take() is None
        assert sum(len(batch.requests) for batch in batches) == 2 * DEPTH

    run(test())


def test_what_came_back_with_an_error_is_tried_once_more_elsewhere() -> None:
    async def test() -> None:
        rig = Rig(2)
        await rig.ask(1)
        first = rig.take()
        rig.answer(first, ERROR)
        second = rig.take()
        assert second.worker is not first.worker
        assert not rig.asked[0].done()
        rig.answer(second, ERROR)
        assert (await rig.asked[0]).error == "it failed"
        assert rig.dispatcher.take() is None

    run(test())


def test_the_only_worker_gets_its_own_errors_again() -> None:
    async def test() -> None:
        rig = Rig(1)
        await rig.ask(1)
        rig.answer(rig.take(), ERROR)
        rig.answer(rig.take())
        assert (await rig.asked[0]).value == 1.0

    run(test())


def test_an_error_counts_once_and_only_where_it_stays() -> None:
    async def test() -> None:
        rig = Rig(2)
        await rig.ask(2)
        batch = rig.take()
        rig.dispatcher.settle(batch, batch.requests[0], OK)
        rig.dispatcher.settle(batch, batch.requests[1], ERROR)
        rig.dispatcher.release(batch)
        rig.answer(rig.take(), ERROR)
        await asyncio.gather(*rig.asked)
        assert rig.budget.metrics()["rewards/error_share"] == 0.5

    run(test())


def test_a_suspect_has_an_idle_worker_for_itself() -> None:
    async def test() -> None:
        rig = Rig(3)
        await rig.ask(2, "suspect ")
        killed = rig.take()
        rig.die(killed)
        await rig.ask(2, "other ")
        batches = rig.take_all()
        # A suspect each for the two that are up; the others wait behind them, and so would any more of them.
        assert [texts(batch.requests) for batch in batches] == [["suspect 0"], ["suspect 1"]]
        assert [batch.worker.outstanding for batch in batches] == [DEPTH, DEPTH]
        assert killed.worker not in [batch.worker for batch in batches]
        rig.answer(batches[0])
        assert texts(rig.take().requests) == ["other 0", "other 1"]

    run(test())


def test_a_suspect_waits_for_a_worker_that_does_nothing_else() -> None:
    async def test() -> None:
        rig = Rig(2)
        await rig.ask(1, "suspect ")
        killed = rig.take()
        await rig.ask(1, "busy ")
        busy = rig.take()
        rig.die(killed)
        assert rig.dispatcher.take() is None
        rig.answer(busy)
        assert texts(rig.take().requests) == ["suspect 0"]

    run(test())


def test_a_batch_ends_before_a_suspect() -> None:
    async def test() -> None:
        rig = Rig(2)
        await rig.ask(1, "first ")
        killed = rig.take()
        await rig.ask(2, "plain ")
        rig.die(killed)
        await rig.ask(1, "last ")
        assert texts(rig.take().requests) == ["plain 0", "plain 1"]

    run(test())


def test_a_worker_that_is_down_gets_nothing_until_it_is_back() -> None:
    async def test() -> None:
        rig = Rig(1)
        assert rig.dispatcher.lost(rig.workers[0])
        assert not rig.dispatcher.lost(rig.workers[0])
        await rig.ask(1)
        upcoming = asyncio.create_task(rig.dispatcher.next())
        await asyncio.sleep(0.01)
        assert not upcoming.done()
        rig.dispatcher.back(rig.workers[0])
        rig.answer(await upcoming)
        assert (await rig.asked[0]).status == "ok"

    run(test())


def test_when_all_are_gone_whoever_waits_is_told() -> None:
    async def test() -> None:
        rig = Rig(2)
        for worker in rig.workers:
            rig.dispatcher.lost(worker)
        await rig.ask(2)
        rig.dispatcher.give_up(rig.workers[0], "killed")
        await asyncio.sleep(0)
        assert not any(task.done() for task in rig.asked)  # the other may come back
        waiting = asyncio.create_task(rig.dispatcher.up(0))
        rig.dispatcher.give_up(rig.workers[1], "killed too")
        for task in (*rig.asked, waiting, rig.dispatcher.score("r", Sample(prompt="", completion="late"), rig.budget)):
            with pytest.raises(ServiceError, match="no reward worker comes back: killed"):
                await task
        rig.dispatcher.back(rig.workers[1])
        assert rig.dispatcher.all_gone() == ""
        assert await rig.dispatcher.up(7) is rig.workers[1]

    run(test())


def test_group_functions_go_round_the_workers_that_are_up() -> None:
    async def test() -> None:
        rig = Rig(3)
        rig.dispatcher.lost(rig.workers[1])
        assert [(await rig.dispatcher.up(number)).actor for number in range(3)] == ["a", "c", "a"]

    run(test())


def test_a_worker_that_leaves_finishes_what_it_has_and_gets_nothing_more() -> None:
    async def test() -> None:
        rig = Rig(2)
        await rig.ask(DEPTH + 2)
        batches = rig.take_all()
        (leaving,) = rig.dispatcher.keep(1)
        assert leaving is rig.workers[1]
        waiting = asyncio.create_task(rig.dispatcher.wait_until_idle(leaving))
        await rig.ask(2 * DEPTH)
        for batch in batches:
            await asyncio.sleep(0)
            assert waiting.done() == (leaving.outstanding == 0)
            rig.answer(batch)
        await waiting
        assert {batch.worker.actor for batch in rig.take_all()} == {"a"}

    run(test())


def test_workers_that_come_take_from_the_same_queue() -> None:
    async def test() -> None:
        rig = Rig(1)
        await rig.ask(DEPTH + 1)
        rig.take_all()
        rig.dispatcher.workers.append(Worker("new"))
        assert rig.take().worker.actor == "new"

    run(test())


def test_a_caller_that_gave_up_is_no_failure() -> None:
    async def test() -> None:
        rig = Rig(1)
        await rig.ask(1)
        batch = rig.take()
        rig.asked[0].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await rig.asked[0]
        rig.answer(batch)
        assert rig.workers[0].outstanding == 0

    run(test())
