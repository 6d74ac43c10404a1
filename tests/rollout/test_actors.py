"""Answers of actors: waited for with a bound, and failures in the words of the part that failed."""

import asyncio

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from rollout.actors import within
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
