"""Answers of actors: waited for with a bound, and failures in the words of the part that failed."""

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from rollout import actors
from rollout.actors import both, within
from rollout.errors import InputError, ServiceError


async def fail(problem: Exception) -> None:
    raise problem


def wait(problem: Exception) -> None:
    asyncio.run(within(fail(problem), 5, "replica 0 to answer"))


def test_a_wait_is_bounded_and_named() -> None:
    with pytest.raises(ServiceError, match=r"timed out after 0 s waiting for replica 0 to answer"):
        asyncio.run(within(asyncio.sleep(5), 0.05, "replica 0 to answer"))


@pytest.mark.parametrize("cause", [InputError("no such model"), ServiceError("the engine is gone")])
def test_what_the_actor_says_on_purpose_arrives_as_it_is(cause: Exception) -> None:
    with pytest.raises(type(cause), match=f"^{cause}$"):
        wait(RayTaskError("start", "Traceback", cause))


def test_any_other_exception_names_what_was_waited_for() -> None:
    with pytest.raises(ServiceError, match=r"replica 0 to answer: KeyError: KeyError: 'x'"):
        wait(RayTaskError("start", "Traceback\nKeyError: 'x'", KeyError("x")))


def test_an_actor_that_died_is_named() -> None:
    with pytest.raises(ServiceError, match="replica 0 to answer: the actor died: "):
        wait(ActorDiedError())


def test_when_one_side_of_a_publish_fails_the_other_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "PEER_S", 0.05)
    ended: list[str] = []

    async def abandon(why: str) -> None:
        ended.append(why)

    async def never() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise ServiceError("no memory for a bucket")

    async def answers() -> int:
        return 5

    async def publish(engines: Any, ranks: Any) -> Any:
        return await asyncio.wait_for(both(engines, ranks, abandon), 5)

    assert asyncio.run(publish(answers(), answers())) == 5
    with pytest.raises(ServiceError, match="no memory"):
        asyncio.run(publish(never(), fails()))
    assert ended == []  # the ranks end by themselves; engines that wait are ended by whoever closes them
    with pytest.raises(ServiceError, match="no memory"):
        asyncio.run(publish(fails(), never()))
    assert ended == ["the engines failed: no memory for a bucket"]
    # A side that fails in its turn is heard, and is not the reason.
    with pytest.raises(ServiceError, match="no memory"):
        asyncio.run(publish(fails(), fails()))
