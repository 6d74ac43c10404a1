"""Replicas that died are noticed before a publish and by who asks them for a group; one that is slow has not died."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rollout.errors import ServiceError
from rollout.service import TRIES, RolloutPool
from rollout.types import Completion, Prompt, RolloutGroup, Sampling


def pool_of(*answers: Any) -> RolloutPool:
    """One replica an answer: what it says its version is, an error that asking ends with, or None where it is silent."""

    def actor(answer: Any) -> Any:
        async def version() -> int:
            if answer is None:
                await asyncio.sleep(60)
            if isinstance(answer, Exception):
                raise answer
            return int(answer)

        return SimpleNamespace(version=SimpleNamespace(remote=version))

    return RolloutPool([actor(answer) for answer in answers], [], ["node"] * len(answers), 1, timeout_s=0.05)


def test_who_does_not_answer_serves_no_more() -> None:
    pool = pool_of(3, ServiceError("the actor died"), None, 3)
    asyncio.run(pool.roll_call())
    assert pool.serving == (0, 3)
    assert pool.workers == 2
    told = [(member["name"], member["state"]) for member in pool.members()]
    assert told == [("rollout-0", "serving"), ("rollout-1", "dead"), ("rollout-2", "dead"), ("rollout-3", "serving")]


def test_when_nobody_answers_the_reasons_are_told() -> None:
    with pytest.raises(
        ServiceError, match=r"none of the 2 rollout replicas is left: the actor died; timed out .*replica 1"
    ):
        asyncio.run(pool_of(ServiceError("the actor died"), None).roll_call())


class Replica:
    """Stands for the actor of one. `answers`: of one request after the other, and of all later ones the last."""

    def __init__(self, *answers: str, alive: bool = True) -> None:
        self.answers = list(answers)
        self.alive = alive
        self.asked = 0
        self.generate = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._stream))
        self.version = SimpleNamespace(remote=self._version)

    async def _stream(self, *_: Any) -> AsyncIterator[Any]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if answer == "slow":
            await asyncio.sleep(60)
        if answer != "done":
            raise ServiceError(answer)

        async def chunk() -> list[tuple[int, Completion]]:
            return [(0, completion())]

        yield chunk()

    async def _version(self) -> int:
        if not self.alive:
            raise ServiceError("the actor died: killed")
        return 1


def completion() -> Completion:
    ids = np.array([5], np.int32)
    logprobs, versions = np.zeros(1, np.float32), np.zeros(1, np.int32)
    return Completion(
        text="a", token_ids=ids, rollout_logprobs=logprobs, policy_versions=versions, finish_reason="stop", seed=0
    )


Ask = Callable[..., tuple[RolloutPool, RolloutGroup | str, list[str]]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> tuple[Ask, list[Any]]:
    """(asks replicas for a group → their pool, the group or why there is none, what was told; requests that were dropped)."""
    dropped: list[Any] = []
    monkeypatch.setattr("ray.cancel", dropped.append)

    def asks(*replicas: Replica) -> tuple[RolloutPool, RolloutGroup | str, list[str]]:
        told: list[str] = []
        pool = RolloutPool(list(replicas), [], ["node"] * len(replicas), 1, timeout_s=0.05, tell=told.append)
        prompt = Prompt(prompt_id="p", source="s", rubric="r", text="1", token_ids=(1,), answer="")
        try:
            return pool, asyncio.run(pool.generate("g", prompt, Sampling(n=1, max_tokens=4, seed=0))), told
        except ServiceError as problem:
            return pool, str(problem), told

    return asks, dropped


def test_a_group_that_takes_too_long_is_dropped_and_asked_of_another_replica(ask: tuple[Ask, list[Any]]) -> None:
    asks, dropped = ask
    pool, group, told = asks(Replica("slow"), Replica("done"))
    assert isinstance(group, RolloutGroup)
    assert group.replica == 1
    assert pool.serving == (0, 1), "slow is not dead"
    assert len(dropped) == 1
    assert told == [
        "timed out after 0 s waiting for replica 0 to generate g (rollout.timeout_s); asked for again, try 2 of 3"
    ]
    assert pool._router.outstanding == (0, 0)


def test_the_only_replica_is_asked_again_and_not_for_ever(ask: tuple[Ask, list[Any]]) -> None:
    asks, dropped = ask
    pool, group, _ = asks(Replica("slow", "done"))
    assert isinstance(group, RolloutGroup)
    assert pool.serving == (0,)
    slow = Replica("slow")
    pool, why, told = asks(slow)
    assert isinstance(why, str)
    assert why.startswith("group g could not be generated: timed out")
    assert slow.asked == TRIES == len(dropped) - 1
    assert len(told) == TRIES - 1
    assert pool.serving == (0,)


def test_a_replica_that_is_gone_serves_no_more_and_costs_no_try(ask: tuple[Ask, list[Any]]) -> None:
    asks, _ = ask
    gone = [Replica("the engine is dead", alive=False) for _ in range(TRIES + 1)]
    pool, group, told = asks(*gone, Replica("done"))
    assert isinstance(group, RolloutGroup)
    assert group.replica == TRIES + 1
    assert pool.serving == (TRIES + 1,)
    assert told[-1] == f"rollout replica {TRIES} serves no more, 1 do: the actor died: killed"
    pool, why, _ = asks(*gone[:2])
    assert why == "group g could not be generated: the engine is dead; the engine is dead"
    assert pool.serving == ()
