"""Busy time of overlapping phases, on a clock that the test turns."""

import asyncio
from collections.abc import Iterator

import pytest

from orchestrator import clock as module
from orchestrator.clock import BusyClock, PhaseClocks


class Hands:
    """Stands in for `time`; moves only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hands]:
    hands = Hands()
    monkeypatch.setattr(module, "time", hands)
    return hands


def test_overlapping_blocks_count_once(hands: Hands) -> None:
    clock = BusyClock()
    assert clock.seconds == 0
    with clock.running():
        hands.now += 1
        with clock.running():
            hands.now += 2
        hands.now += 4
        assert clock.seconds == 7  # the stretch now running included
    hands.now += 8
    assert clock.seconds == 7
    with clock.running():
        hands.now += 16
    assert clock.seconds == 23


def test_a_block_that_raises_ends(hands: Hands) -> None:
    clock = BusyClock()

    def fail() -> None:
        with clock.running():
            hands.now += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    hands.now += 5
    assert clock.seconds == 1


def test_blocks_of_several_tasks_are_a_union(hands: Hands) -> None:
    clock = BusyClock()

    async def hold(turns: int) -> None:
        with clock.running():
            for _ in range(turns):
                await asyncio.sleep(0)

    async def turn() -> None:
        for _ in range(5):
            hands.now += 1
            await asyncio.sleep(0)

    async def work() -> None:
        await asyncio.gather(hold(3), hold(1), turn())

    asyncio.run(work())
    assert clock.seconds == 3


def test_a_synchronous_step(hands: Hands) -> None:
    clocks = PhaseClocks()
    with clocks.wait.running(), clocks.produce.running():
        with clocks.generate.running():
            hands.now += 4
        with clocks.score.running():
            hands.now += 1
    with clocks.training():
        hands.now += 3
    with clocks.publish.running():
        hands.now += 2
    with clocks.save.running():
        hands.now += 0.25
    hands.now += 0.5
    assert clocks.step() == {
        "time/start_s": 0,
        "time/evaluate_s": 0,
        "time/generate_s": 4,
        "time/score_s": 1,
        "time/train_s": 3,
        "time/publish_s": 2,
        "time/save_s": 0.25,
        "time/wait_s": 5,
        "time/overlap_s": 0,
        "time/step_s": 10.75,
        "time/idle_s": 0.5,
    }


def test_generation_during_training_is_overlap_and_not_idle(hands: Hands) -> None:
    clocks = PhaseClocks()
    with clocks.produce.running(), clocks.generate.running():
        hands.now += 2
        with clocks.training():
            hands.now += 3
    hands.now += 1
    with clocks.training():
        hands.now += 4
    figures = clocks.step()
    assert figures["time/generate_s"] == 5
    assert figures["time/train_s"] == 7
    assert figures["time/overlap_s"] == 3
    assert figures["time/step_s"] == 10
    assert figures["time/idle_s"] == 1


def test_every_step_starts_anew(hands: Hands) -> None:
    clocks = PhaseClocks()
    with clocks.training():
        hands.now += 3
    clocks.step()
    with clocks.produce.running():
        hands.now += 1
        assert clocks.step()["time/step_s"] == 1  # in the middle of generation
        hands.now += 2
    figures = clocks.step()
    assert figures["time/step_s"] == 2
    assert figures["time/train_s"] == 0
    assert figures["time/idle_s"] == 0


def test_starts_and_evaluations_are_told_apart_from_the_step(hands: Hands) -> None:
    waited = BusyClock()
    with waited.running():
        hands.now += 100  # before the stage
    clocks = PhaseClocks(waited)
    with waited.running():
        hands.now += 20
    with clocks.beside(clocks.evaluate):
        hands.now += 7
        with clocks.produce.running():
            hands.now += 1
    with clocks.training():
        hands.now += 3
    figures = clocks.step()
    assert (figures["time/start_s"], figures["time/evaluate_s"]) == (20, 8)
    assert (figures["time/step_s"], figures["time/train_s"], figures["time/idle_s"]) == (3, 3, 0)


def test_what_is_going_on_and_for_how_long(hands: Hands) -> None:
    clocks = PhaseClocks()
    assert clocks.going_on() == {}
    with clocks.training(), clocks.generate.running():
        hands.now += 3
        assert clocks.going_on() == {"generate": 3, "train": 3}
        assert clocks.step_seconds == 3
        clocks.step()
        hands.now += 1
        assert clocks.going_on() == {"generate": 1, "train": 1}
        assert clocks.step_seconds == 1
    assert clocks.going_on() == {}
