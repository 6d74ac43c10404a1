"""The table of open waits, and what a limit that runs out says."""

import asyncio

import pytest

from rollout.actors import within
from rollout.background import Tasks
from rollout.errors import ServiceError
from rollout.waits import acting, acting_as, open_waits, waiting


def test_waits_are_open_while_they_last_with_who_and_what() -> None:
    @acting_as("publish")
    async def publish() -> None:
        await within(asyncio.sleep(0.05), 5, "replica 0 to load")

    async def run() -> None:
        with acting("arithmetic"):
            both = asyncio.gather(publish(), within(asyncio.sleep(0.05), 9, "a rank"))
        await asyncio.sleep(0.01)
        assert [(wait.who, wait.what, wait.limit_s) for wait in open_waits()] == [
            ("arithmetic, publish", "replica 0 to load", 5),
            ("arithmetic", "a rank", 9),
        ]
        await both

    asyncio.run(run())
    assert open_waits() == []


def test_a_limit_that_runs_out_names_both_sides() -> None:
    async def run() -> None:
        with acting("arithmetic, publish"):
            await within(asyncio.sleep(5), 0.05, "replica 0 to load")

    with pytest.raises(ServiceError, match=r"^arithmetic, publish: timed out after 0 s waiting for replica 0 to load$"):
        asyncio.run(run())
    assert open_waits() == []


def test_progress_puts_the_limit_off_and_is_never_taken_back() -> None:
    with waiting("a rank", 10.0) as wait:
        wait.since = wait.last = wait.last - 30.0
        assert wait.left_s < -19
        assert wait.ran_out() == "timed out after 10 s waiting for a rank"
        wait.moved(ago_s=4.0)
        assert 5.9 < wait.left_s <= 6.0
        wait.moved(ago_s=20.0)
        assert 5.9 < wait.left_s <= 6.0
        assert wait.ran_out() == "timed out after 10 s waiting for a rank, 30 s in all"


def test_what_a_background_task_raises_is_told_once_and_raised_to_whoever_looks() -> None:
    told: list[str] = []

    async def run() -> None:
        background = Tasks("pool", lambda problem: told.append(str(problem)))

        async def fails(problem: Exception) -> None:
            raise problem

        async def stays() -> None:
            await asyncio.Event().wait()

        background.spawn(stays())
        background.check()
        background.spawn(fails(KeyError("odd")), "sending")
        background.spawn(fails(ServiceError("second")), "sending")
        await asyncio.sleep(0.01)
        with pytest.raises(ServiceError, match="pool: sending: KeyError: 'odd'"):
            background.check()
        background.cancel()
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert told == ["pool: sending: KeyError: 'odd'"]
