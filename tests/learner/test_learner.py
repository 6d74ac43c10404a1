"""Ranks that die are formed anew with the weights that they had. The ranks are a list of what was done to them."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from learner.batch import TrainingBatch
from learner.learner import Learner, Once
from learner.service import LearnerGroup, RanksLost
from learner.spec import LearnerSpec
from rollout.errors import InputError, ServiceError

Deaths = set[tuple[int, str]]
"""(incarnation, what it was asked) at which ranks die."""


class Ranks:
    """One incarnation: its weights are what was done to them."""

    def __init__(self, number: int, deaths: Deaths) -> None:
        self.number, self._deaths = number, deaths
        self.weights: list[str] = []
        self.closed = False

    async def _do(self, verb: str, what: str = "") -> None:
        assert not self.closed
        await asyncio.sleep(0)
        if (self.number, what or verb) in self._deaths:
            raise RanksLost(f"`{verb}` died")
        if what:
            self.weights.append(what)

    async def open(self, spec: Any) -> int:
        await self._do("open", f"open {spec}")
        return 7

    async def plan(self, total: int, warmup: int) -> None:
        await self._do("plan", f"plan {total}")

    async def train(self, batch: Any, objective: str) -> str:
        await self._do("train", f"{objective} {batch.temperature:g}")
        return f"trained on {self.number}"

    async def load(self, folder: Path) -> None:
        self.weights = [self.weights[0]]
        await self._do("load", f"load {folder}")

    async def save(self, folder: Path, state: dict[str, Any]) -> None:
        await self._do("save")

    async def export(self, folder: Path, tokenizer: str) -> None:
        await self._do("export")

    async def close(self) -> None:
        self.closed = True


class Bench:
    """A learner over such ranks."""

    def __init__(self, *deaths: tuple[int, str]) -> None:
        self.deaths, self.groups, self.told = set(deaths), list[Ranks](), list[str]()
        self.rooms = 0
        self.learner = asyncio.run(Learner.start(self._begin, self._room, self.told.append))

    async def _begin(self) -> LearnerGroup:
        self.groups.append(Ranks(len(self.groups), self.deaths))
        return cast(LearnerGroup, self.groups[-1])

    async def _room(self) -> None:
        self.rooms += 1

    def run(self, *work: Callable[[Learner], Coroutine[Any, Any, Any]]) -> Any:
        async def all_of_it() -> Any:
            for one in work:
                result = await one(self.learner)
            return result

        return asyncio.run(all_of_it())

    @property
    def weights(self) -> list[str]:
        return self.groups[-1].weights


def opened(learner: Learner) -> Coroutine[Any, Any, Any]:
    return learner.open(cast(LearnerSpec, "m"))


def batch(number: int) -> TrainingBatch:
    return TrainingBatch(packs=(), temperature=number, num_sequences=0, num_tokens=0, num_targets=0)


def trained(number: int) -> Callable[[Learner], Coroutine[Any, Any, Any]]:
    return lambda learner: learner.train(Once(batch(number), lambda: batch(number)), "grpo")


def saved(folder: str) -> Callable[[Learner], Coroutine[Any, Any, Any]]:
    async def save(learner: Learner) -> None:
        await learner.save(Path(folder), {})
        learner.saved(Path(folder))

    return save


def test_a_death_in_a_batch_costs_that_batch_alone() -> None:
    bench = Bench((0, "grpo 3"))
    assert bench.run(opened, trained(1), trained(2), trained(3)) == "trained on 1"
    assert bench.weights == ["open m", "grpo 1", "grpo 2", "grpo 3"]
    assert bench.told == ["`train` died; new ranks take over"]
    assert bench.groups[0].closed
    assert not bench.groups[1].closed
    assert bench.rooms == bench.learner.losses == 1


def test_what_is_in_a_checkpoint_is_not_trained_again() -> None:
    bench = Bench((0, "grpo 4"))
    bench.run(opened, trained(1), trained(2), saved("c"), trained(3), trained(4))
    assert bench.weights == ["open m", "load c", "grpo 3", "grpo 4"]


def test_a_plan_holds_after_a_checkpoint_too() -> None:
    bench = Bench((0, "grpo 2"))
    bench.run(opened, lambda one: one.plan(10, 1), trained(1), saved("c"), trained(2))
    assert bench.weights == ["open m", "load c", "plan 10", "grpo 2"]


@pytest.mark.parametrize("verb", ["save", "export"])
def test_what_only_reads_weights_is_asked_again(verb: str) -> None:
    bench = Bench((0, verb))
    ask = {"save": saved("c"), "export": lambda one: one.export(Path("x"), "")}[verb]
    bench.run(opened, trained(1), ask)
    assert bench.weights == ["open m", "grpo 1"]


def test_a_death_in_the_middle_of_restoring_is_one_more_death() -> None:
    bench = Bench((0, "grpo 2"), (1, "grpo 1"))
    bench.run(opened, trained(1), trained(2))
    assert bench.weights == ["open m", "grpo 1", "grpo 2"]
    assert bench.learner.losses == 2


def test_two_deaths_at_one_batch_end_the_run_with_the_reason() -> None:
    bench = Bench((0, "grpo 2"), (1, "grpo 2"))
    with pytest.raises(ServiceError, match="lost twice at the same point"):
        bench.run(opened, trained(1), trained(2))
    assert len(bench.groups) == 2


def test_deaths_at_different_batches_do_not() -> None:
    bench = Bench(*((number, f"grpo {number + 1}") for number in range(5)))
    bench.run(opened, *(trained(number) for number in range(1, 7)))
    assert bench.weights == ["open m", *(f"grpo {number}" for number in range(1, 7))]


def test_no_room_for_others_is_no_mistake_of_the_users() -> None:
    bench = Bench((0, "grpo 1"))

    async def begin() -> LearnerGroup:
        raise InputError("learner.ranks = 2 needs 2 CPUs: lower it")

    bench.learner._begin = begin
    with pytest.raises(ServiceError, match=r"no other ranks could be had: learner\.ranks = 2"):
        bench.run(opened, trained(1))


def test_a_mistake_is_no_death() -> None:
    bench = Bench()

    async def wrong(_: LearnerGroup) -> None:
        raise InputError("no reference was opened")

    with pytest.raises(InputError, match="no reference"):
        bench.run(opened, lambda one: one.attempt("train", wrong))
    assert len(bench.groups) == 1


def test_a_batch_is_not_kept_when_it_can_be_made_again() -> None:
    made: list[int] = []
    one = batch(1)

    def again() -> TrainingBatch:
        made.append(1)
        return batch(1)

    once = Once(one, again)
    assert once() is one
    assert not made
    assert once() is not one
    assert made == [1]


def test_who_asks_while_ranks_take_over_waits_for_their_weights_and_they_take_over_once() -> None:
    """As when a replica is given weights while something else is asked of the ranks."""
    bench = Bench()

    async def work(learner: Learner) -> list[Any]:
        await learner.open(cast(LearnerSpec, "model"))
        await learner.train(cast(Any, lambda: batch(1)), "grpo")
        lost = asyncio.Event()
        seen = []

        async def ask(ranks: Any) -> list[str]:
            if ranks.number == 0:
                await lost.wait()
                raise RanksLost("gone")
            seen.append((ranks.number, list(ranks.weights)))
            return list(ranks.weights)

        asked = [asyncio.ensure_future(learner.attempt(f"verb{i}", ask)) for i in range(3)]
        await asyncio.sleep(0)
        lost.set()
        await asyncio.sleep(0)
        asked.append(asyncio.ensure_future(learner.attempt("late", ask)))
        await asyncio.gather(*asked)
        return seen

    seen = bench.run(work)
    assert len(bench.groups) == 2
    assert {number for number, _ in seen} == {1}
    assert len({tuple(weights) for _, weights in seen}) == 1
    assert len(seen[0][1]) == 2, "opened and trained, before anybody asks"


def test_other_ranks_take_over_with_the_same_weights() -> None:
    bench = Bench()

    async def reform(learner: Learner) -> None:
        await learner.reform(bench._begin, cast(LearnerSpec, "wide"))

    bench.run(opened, trained(1), saved("c"), reform, trained(2))
    assert bench.groups[0].closed
    assert bench.weights == ["open wide", "load c", "grpo 2"]


def test_ranks_that_cannot_be_had_leave_those_that_were() -> None:
    bench = Bench()

    async def begin() -> LearnerGroup:
        raise InputError("learner.ranks = 9 needs 9 CPUs")

    async def reform(learner: Learner) -> None:
        with pytest.raises(InputError, match="9 CPUs"):
            await learner.reform(begin, cast(LearnerSpec, "wide"))

    bench.run(opened, trained(1), saved("c"), reform, trained(2))
    assert bench.weights == ["open m", "load c", "grpo 2"]
