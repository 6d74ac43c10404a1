"""The group of ranks: what ends a verb, and what does not. Without Ray: ranks are played."""

import asyncio
import errno
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from learner import service
from learner.progress import Note
from learner.service import LearnerGroup
from learner.verbs import RankVerbs
from rollout.errors import ServiceError, StorageError
from rollout.waits import open_waits


class Call:
    def __init__(self, call: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.remote = call


class Rank:
    """A rank whose verb takes `seconds`, and whose note moves every `step_s` of them."""

    def __init__(self, seconds: float, step_s: float, raises: Exception | None = None) -> None:
        self.seconds, self.step_s, self.raises = seconds, step_s, raises
        self.since = time.monotonic()
        self.call, self.progress, self.free = Call(self._call), Call(self._progress), Call(self._free)
        self.killed = False

    async def _call(self, verb: str, *_: Any) -> str:
        until = time.monotonic() + self.seconds
        self.since = time.monotonic()
        while time.monotonic() < until:
            await asyncio.sleep(0.005)
            if time.monotonic() - self.since >= self.step_s:
                self.since = time.monotonic()
        if self.raises:
            raise RayTaskError("call", f"Traceback\n{self.raises}", self.raises)
        return verb

    async def _progress(self) -> tuple[Note, float]:
        return Note(verb="train", part="micro-batch", since=self.since), time.monotonic() - self.since

    async def _free(self) -> None:
        pass


def verb(monkeypatch: pytest.MonkeyPatch, *ranks: Rank, timeout_s: float = 0.3) -> list[Any]:
    def kill(actor: Rank) -> None:
        actor.killed = True

    monkeypatch.setattr(service.ray, "kill", kill)
    monkeypatch.setattr(service, "GRACE_S", 0.2)
    group = LearnerGroup(list(ranks), None, timeout_s)
    return asyncio.run(asyncio.wait_for(group._all(RankVerbs.close), 20))


def test_a_slow_verb_whose_notes_move_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Rank(1.2, 0.05), Rank(1.2, 9.0)  # the second one waits for the first
    assert verb(monkeypatch, *ranks) == ["close", "close"]
    assert not any(rank.killed for rank in ranks)
    assert open_waits() == []


def test_a_verb_in_which_nobody_moves_is_ended_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Rank(9.0, 9.0), Rank(0.0, 9.0)
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"`close` of 2 learner ranks: waited 0 s; rank 0 got least far"):
        verb(monkeypatch, *ranks)
    assert time.monotonic() - began < 2
    assert all(rank.killed for rank in ranks)


@pytest.mark.parametrize("both", [True, False])
def test_a_full_disk_is_an_answer_and_no_death(monkeypatch: pytest.MonkeyPatch, both: bool) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/run/checkpoint")
    ranks = Rank(0.0, 9.0, full), Rank(0.1, 9.0, full if both else None)
    with pytest.raises(StorageError, match=r"`close` of 2 learner ranks: /run/checkpoint: No space") as caught:
        verb(monkeypatch, *ranks)
    assert caught.value.is_full
    assert not any(rank.killed for rank in ranks)


def test_a_full_disk_that_leaves_a_peer_waiting_ends_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Rank(0.0, 9.0, OSError(errno.ENOSPC, "No space left on device", "/run/x")), Rank(9.0, 9.0)
    with pytest.raises(ServiceError, match="rank 0 failed"):
        verb(monkeypatch, *ranks)
    assert all(rank.killed for rank in ranks)


def test_another_failure_beside_a_full_disk_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Rank(0.0, 9.0, OSError(errno.ENOSPC, "No space", "/run/x")), Rank(0.0, 9.0, KeyError("x"))
    with pytest.raises(ServiceError) as caught:
        verb(monkeypatch, *ranks)
    assert not isinstance(caught.value, StorageError)
    assert all(rank.killed for rank in ranks)


def test_what_ranks_are_at_is_told_in_words() -> None:
    group = LearnerGroup([Rank(0.0, 9.0)], None, 1.0)
    assert asyncio.run(group.notes()) == ["learner-0: train, micro-batch, for 0 s"]
