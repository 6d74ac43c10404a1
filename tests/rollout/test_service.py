"""Replicas that died are noticed before a publish."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.errors import ServiceError
from rollout.service import RolloutPool


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


def test_when_nobody_answers_the_reasons_are_told() -> None:
    with pytest.raises(
        ServiceError, match=r"none of the 2 rollout replicas is left: the actor died; timed out .*replica 1"
    ):
        asyncio.run(pool_of(ServiceError("the actor died"), None).roll_call())
