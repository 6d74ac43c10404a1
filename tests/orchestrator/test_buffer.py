"""Admission, staleness, order and the account of the bounded buffer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.buffer import Buffer
from rewards.types import ScoredGroup
from rollout.errors import InputError
from tests.factories import completion, scored_group


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(work(), 5))


def good(version: int = 0, name: str = "") -> ScoredGroup:
    return scored_group([1.0, 0.0], versions=version, group_id=name)


def flat(version: int = 0) -> ScoredGroup:
    return scored_group([1.0, 1.0], versions=version)


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def fill(buffer: Buffer, limit: int = 1000) -> list[int]:
    """Admit until the buffer makes the caller wait."""
    numbers: list[int] = []
    while len(numbers) < limit:
        task = asyncio.create_task(buffer.admit())
        await settle()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return numbers
        numbers.append(task.result())
    return numbers


async def step(buffer: Buffer, numbers: list[int], version: int) -> list[ScoredGroup]:
    """Sample the groups at `version`, train one batch."""
    for number in numbers:
        await buffer.put(number, good(version))
    return await buffer.take(version)


def account(buffer: Buffer) -> int:
    counts = buffer.counts()
    assert counts["count/taken"] == counts["count/trained"] + counts["count/in_flight"] + counts["count/dropped"]
    assert counts["count/dropped"] == sum(v for k, v in counts.items() if k.startswith("count/dropped_"))
    assert all(count >= 0 for count in counts.values())
    return counts["count/taken"]


# --- Admission


@pytest.mark.parametrize("max_staleness", [0, 1, 4])
@pytest.mark.parametrize("engine_version", [0, 3])
def test_a_group_is_admitted_while_its_batch_can_be_fresh_enough(max_staleness: int, engine_version: int) -> None:
    async def work() -> None:
        buffer = Buffer(3, max_staleness, False)
        await buffer.published(engine_version)
        # i < (engine version + max_staleness + 1) · groups_per_step
        assert await fill(buffer) == list(range(3 * (engine_version + max_staleness + 1)))

    run(work)


def test_on_policy_nothing_is_sampled_before_the_publish() -> None:
    async def work() -> None:
        buffer = Buffer(2, 0, False)
        assert await fill(buffer) == [0, 1]
        await buffer.put(0, good())
        assert await fill(buffer) == []
        await buffer.put(1, good())
        assert await fill(buffer) == []
        await buffer.take(0)
        assert await fill(buffer) == []  # taken and trained, but the engines still hold the old weights
        await buffer.published(1)
        assert await fill(buffer) == [2, 3]

    run(work)


def test_a_waiting_producer_is_woken_by_the_publish() -> None:
    async def work() -> None:
        buffer = Buffer(1, 0, False)
        await buffer.put(await buffer.admit(), good())
        waiting = asyncio.create_task(buffer.admit())
        await buffer.take(0)
        await settle()
        assert not waiting.done()
        await buffer.published(1)
        assert await waiting == 1

    run(work)


# --- Order


def test_a_batch_is_taken_in_the_order_of_admission() -> None:
    async def work() -> None:
        buffer = Buffer(2, 1, False)
        assert await fill(buffer) == [0, 1, 2, 3]
        for number in (3, 1, 0, 2):
            await buffer.put(number, good(name=str(number)))
        assert [group.group.group_id for group in await buffer.take(0)] == ["0", "1"]
        assert [group.group.group_id for group in await buffer.take(1)] == ["2", "3"]
        assert buffer.num_trained == 4

    run(work)


def test_take_waits_for_a_whole_batch() -> None:
    async def work() -> None:
        buffer = Buffer(2, 0, False)
        await fill(buffer)
        taking = asyncio.create_task(buffer.take(0))
        await buffer.put(1, good())
        await settle()
        assert not taking.done()
        await buffer.put(0, good())
        assert len(await taking) == 2

    run(work)


# --- Drops


def test_a_group_too_old_is_dropped_when_the_batch_is_taken() -> None:
    async def work() -> None:
        buffer = Buffer(1, 1, False)
        assert await fill(buffer) == [0, 1]
        for version in (0, 1):  # number 0 is slow; two others are trained meanwhile
            await buffer.put(version + 1, good(version))
            assert len(await buffer.take(version)) == 1
            await buffer.published(version + 1)
            assert await fill(buffer) == [version + 2]
        await buffer.put(0, good(0))  # its tokens are two versions old now
        await buffer.put(3, good(2, "fresh"))
        assert [group.group.group_id for group in await buffer.take(2)] == ["fresh"]
        assert buffer.dropped == {"stale": 1}
        assert account(buffer) == 4

    run(work)


def test_one_old_token_makes_a_group_stale() -> None:
    async def work() -> None:
        buffer = Buffer(1, 1, False)
        await fill(buffer)
        mixed = [completion(versions=(2, 2, 2)), completion(versions=(0, 1, 2))]
        await buffer.put(0, scored_group([1, 0], completions=mixed))
        await buffer.put(1, scored_group([1, 0], completions=mixed[:1] * 2, group_id="young"))
        assert [group.group.group_id for group in await buffer.take(2)] == ["young"]
        assert buffer.dropped == {"stale": 1}

    run(work)


def test_after_a_stale_drop_take_goes_on_waiting_and_a_place_is_free() -> None:
    async def work() -> None:
        buffer = Buffer(1, 0, False)
        await buffer.published(1)
        assert await fill(buffer) == [0, 1]
        await buffer.put(0, good(0))
        taking = asyncio.create_task(buffer.take(1))
        assert await fill(buffer) == [2]
        assert not taking.done()
        await buffer.put(2, good(1))
        assert len(await taking) == 1

    run(work)


def test_dynamic_sampling_replaces_groups_without_signal() -> None:
    async def work() -> None:
        buffer = Buffer(2, 0, True)
        assert await fill(buffer) == [0, 1]
        await buffer.put(0, flat())
        assert await fill(buffer) == [2]
        await buffer.put(1, good(name="1"))
        await buffer.put(2, good(name="2"))
        assert [group.group.group_id for group in await buffer.take(0)] == ["1", "2"]
        assert buffer.dropped == {"no_signal": 1}
        assert await fill(buffer) == []

    run(work)


def test_without_dynamic_sampling_groups_without_signal_train() -> None:
    async def work() -> None:
        buffer = Buffer(1, 0, False)
        await fill(buffer)
        await buffer.put(0, flat())
        assert not (await buffer.take(0))[0].has_signal
        assert not buffer.dropped

    run(work)


@pytest.mark.parametrize("dynamic_sampling", [False, True])
@pytest.mark.parametrize(("sampled", "scored", "reason"), [(2, 0, "unscored"), (2, 1, "unscored"), (0, 0, "failed")])
def test_a_group_without_two_scores_is_dropped(dynamic_sampling: bool, sampled: int, scored: int, reason: str) -> None:
    async def work() -> None:
        buffer = Buffer(1, 0, dynamic_sampling)
        await fill(buffer)
        whole = scored_group([1.0] * sampled, num_errors=2)
        await buffer.put(0, replace(whole, completions=whole.completions[:scored], scores=whole.scores[:scored]))
        assert buffer.dropped == {reason: 1}
        assert await fill(buffer) == [1]

    run(work)


# --- The account


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(1, 3),
    st.integers(0, 2),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(["admit", "put", "flat", "errors", "take", "publish"]), st.integers(0, 99))),
)
def test_the_counts_add_up_at_every_moment(
    groups_per_step: int, max_staleness: int, dynamic_sampling: bool, events: list[tuple[str, int]]
) -> None:
    async def work() -> None:
        buffer = Buffer(groups_per_step, max_staleness, dynamic_sampling)
        engine = learner = taken = 0
        flying: dict[int, int] = {}  # number → version that samples it
        for event, which in events:
            if event == "admit":
                for number in await fill(buffer, limit=1):
                    assert number == taken
                    taken += 1
                    flying[number] = engine
            elif event == "publish":
                engine = learner
                await buffer.published(engine)
            elif event == "take":
                if buffer.num_waiting >= groups_per_step and learner - engine <= max_staleness:
                    taking = asyncio.create_task(buffer.take(learner))
                    await settle()
                    if taking.done():
                        batch = taking.result()
                        assert len(batch) == groups_per_step
                        assert min(c.oldest_version for g in batch for c in g.completions) >= learner - max_staleness
                        learner += 1
                    else:
                        taking.cancel()
                        await asyncio.gather(taking, return_exceptions=True)
            elif flying:
                number = sorted(flying)[which % len(flying)]
                version = flying.pop(number)
                rewards = {"put": [1.0, 0.0], "flat": [0.0, 0.0], "errors": [0.5]}[event]
                await buffer.put(number, scored_group(rewards, versions=version))
            assert account(buffer) == taken
            assert buffer.num_in_flight == len(flying)
            assert buffer.num_trained == learner * groups_per_step
            live = buffer.num_in_flight + buffer.num_waiting
            assert live <= (max_staleness + 1) * groups_per_step

    asyncio.run(work())


# --- Failure


def test_a_failure_wakes_everyone_who_waits() -> None:
    async def work() -> None:
        buffer = Buffer(1, 0, False)
        await fill(buffer)
        waiting = [asyncio.create_task(call) for call in (buffer.admit(), buffer.take(0), buffer.admit())]
        await settle()
        first, second = RuntimeError("replica 0 died"), RuntimeError("and the other")
        await buffer.fail(first)
        await buffer.fail(second)
        assert await asyncio.gather(*waiting, return_exceptions=True) == [first, first, first]
        with pytest.raises(RuntimeError, match="replica 0 died"):
            await buffer.admit()

    run(work)


def test_a_failure_comes_before_a_batch_that_is_ready() -> None:
    async def work() -> None:
        buffer = Buffer(1, 0, False)
        await fill(buffer)
        await buffer.put(0, good())
        await buffer.fail(RuntimeError("broken"))
        with pytest.raises(RuntimeError, match="broken"):
            await buffer.take(0)

    run(work)


# --- Resume


def test_a_resumed_buffer_hands_out_what_it_owes_first() -> None:
    import json

    async def work() -> None:
        buffer = Buffer(2, 1, True)
        assert await fill(buffer) == [0, 1, 2, 3]
        await buffer.put(0, good())
        await buffer.put(2, flat())
        await buffer.put(1, good())
        await buffer.take(0)
        await buffer.put(3, good())  # waiting
        assert await fill(buffer) == [4]  # in the place of the dropped one, in flight
        state = json.loads(json.dumps(buffer.state()))
        assert state == {"admitted": 5, "trained": 2, "dropped": {"no_signal": 1}, "owed": [3, 4]}

        resumed = Buffer(2, 1, True)
        resumed.restore(state, engine_version=1)
        assert account(resumed) == 5
        assert resumed.counts() == buffer.counts()
        assert resumed.num_in_flight == 2
        assert resumed.state() == state  # a crash right after the resume owes the same
        assert await fill(resumed) == [3, 4, 5, 6]
        assert resumed.state()["owed"] == [3, 4, 5, 6]
        assert account(resumed) == 7
        await step(resumed, [3, 4], 1)
        assert account(resumed) == 7
        assert resumed.num_trained == 4

    run(work)


def test_on_policy_a_resumed_buffer_admits_the_next_batch_exactly() -> None:
    async def work() -> None:
        buffer = Buffer(2, 0, False)
        await step(buffer, await fill(buffer), 0)
        resumed = Buffer(2, 0, False)
        resumed.restore(buffer.state(), engine_version=1)
        assert buffer.state()["owed"] == []
        assert await fill(resumed) == [2, 3]

    run(work)


def test_what_would_be_too_old_for_the_next_batch_goes_first() -> None:
    """As after a restart, when groups that were owed come back behind those that waited."""

    async def work() -> None:
        buffer = Buffer(2, 1, False)
        state = {"admitted": 4, "trained": 0, "dropped": {}, "owed": [0, 1, 2, 3]}
        buffer.restore(state, 1, waiting={number: good(0, str(number)) for number in (1, 3)})
        for number in (await buffer.admit(), await buffer.admit()):
            await buffer.put(number, good(1, str(number)))
        assert [group.group.group_id for group in await buffer.take(1)] == ["1", "3"]
        assert buffer.batch == [1, 3]
        assert [group.group.group_id for group in await buffer.take(2)] == ["0", "2"]
        assert not buffer.dropped

    run(work)


def test_nothing_is_admitted_that_no_batch_will_train() -> None:
    async def work() -> None:
        buffer = Buffer(2, 3, False, steps=2)
        numbers = await fill(buffer)
        assert numbers == [0, 1, 2, 3]
        for version in range(2):
            await step(buffer, numbers[2 * version : 2 * version + 2], version)
        assert buffer.counts() == {"count/taken": 4, "count/trained": 4, "count/in_flight": 0, "count/dropped": 0}

    run(work)


def test_what_is_dropped_is_replaced_up_to_the_last_batch() -> None:
    async def work() -> None:
        buffer = Buffer(2, 0, True, steps=1)
        assert await fill(buffer) == [0, 1]
        await buffer.put(0, flat())
        assert await fill(buffer) == [2]
        assert buffer.drops() == [(0, "no_signal")]
        assert buffer.drops() == []

    run(work)


class Journal:
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def add(self, number: int, group: ScoredGroup) -> None:
        self.heard.append((number, group.group.group_id))

    def drop(self, number: int, reason: str) -> None:
        self.heard.append((number, reason))


def test_the_journal_hears_of_every_group_that_came_back() -> None:
    async def work() -> None:
        journal = Journal()
        buffer = Buffer(1, 1, True, journal=journal)
        for _ in range(2):
            await buffer.admit()
        await buffer.put(1, good(0, "one"))
        await buffer.put(0, flat())
        await buffer.put(await buffer.admit(), scored_group([1.0]))
        assert journal.heard == [(1, "one"), (0, "no_signal"), (2, "unscored")]

    run(work)


def test_a_restored_buffer_owes_what_is_neither_back_nor_dropped() -> None:
    async def work() -> None:
        buffer = Buffer(2, 2, True)
        state = {"admitted": 5, "trained": 2, "dropped": {"no_signal": 1}, "owed": [3, 4]}
        buffer.restore(state, 1, waiting={4: good(1), 7: good(1)}, dropped={5: "unscored"})
        assert buffer.num_admitted == 8
        assert buffer.dropped == {"no_signal": 1, "unscored": 1}
        assert buffer.drops() == [(5, "unscored")]
        assert [await buffer.admit(), await buffer.admit()] == [3, 6]
        assert account(buffer) == 8

    run(work)


def test_sampling_without_any_signal_says_so_and_ends() -> None:
    told: list[str] = []

    async def work() -> None:
        buffer = Buffer(2, 0, True, max_no_signal=3, tell=told.append)
        while True:
            await buffer.put(await buffer.admit(), flat())

    with pytest.raises(InputError, match=r"loop\.max_no_signal = 3"):
        run(work)
    assert [text.split(":")[0] for text in told] == ["no signal"] * 3
    assert "in 6 groups in a row, of rubric default (6)" in told[2]


def test_one_group_with_signal_begins_the_count_anew() -> None:
    async def work() -> None:
        buffer = Buffer(1, 0, True, max_no_signal=3)
        for _ in range(4):
            for _ in range(2):
                await buffer.put(await buffer.admit(), flat())
            await buffer.put(await buffer.admit(), good())
            await buffer.take(0)
            await buffer.published(0)
            buffer.num_admitted = buffer.dropped.total()
        assert buffer.dropped == {"no_signal": 8}

    run(work)
