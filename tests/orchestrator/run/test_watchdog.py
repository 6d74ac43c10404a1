"""An event loop that stands is told of, with all stacks; one that is only busy is not."""

import asyncio
import time
from pathlib import Path

from orchestrator.run.watchdog import STACKS, Watchdog, task_stacks


def stand(seconds: float) -> None:
    time.sleep(seconds)


def test_a_loop_that_stands_is_told_with_its_place_and_all_stacks(tmp_path: Path) -> None:
    said: list[str] = []

    async def run() -> None:
        async def waits() -> None:
            await asyncio.Event().wait()

        others = [asyncio.create_task(waits(), name=f"waiter {i}") for i in range(3)]
        with Watchdog(tmp_path, said.append, limit_s=0.2):
            await asyncio.sleep(0.5)  # idle and turning
            assert said == []
            stand(0.6)
            await asyncio.sleep(0.2)
            stand(0.6)
            await asyncio.sleep(0.2)
        assert len(others) == 3

    asyncio.run(run())
    assert [line.split(",")[0] for line in said] == [
        "the event loop has not turned for 0 s",
        "the event loop goes on",
    ] * 2
    assert "it is in stand (" in said[0]
    assert "test_watchdog.py:" in said[0]
    stacks = (tmp_path / STACKS).read_text()
    assert "stand(0.6)" in stacks
    assert "and 2 others" in stacks
    assert "waits (" in stacks


def test_a_folder_that_is_gone_does_not_silence_it(tmp_path: Path) -> None:
    said: list[str] = []

    async def run() -> None:
        with Watchdog(tmp_path / "gone", said.append, limit_s=0.1):
            await asyncio.sleep(0.05)
            stand(0.4)

    asyncio.run(run())
    assert "has not turned" in said[0]
    assert "No such file" in said[1]


def test_a_task_is_told_down_to_what_it_awaits() -> None:
    async def run() -> None:
        async def inner() -> None:
            await asyncio.sleep(5)

        async def outer() -> None:
            await inner()

        task = asyncio.create_task(outer(), name="a task")
        await asyncio.sleep(0)
        (stack,) = [stack for name, stack in task_stacks(asyncio.get_running_loop()).items() if name == "task a task"]
        assert ["outer" in stack, "inner" in stack, "sleep" in stack] == [True] * 3
        task.cancel()

    asyncio.run(run())
