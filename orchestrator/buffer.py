"""The bounded buffer between rollout and learner: admission, staleness, order, and the account of every prompt.

    prompt stream ──admit()──▶ in flight ──put()──▶ waiting ──take()──▶ trained
                                   │                   │
                                   └──────drop(reason)─┴──▶ dropped, by reason

Admission is what makes sync and async one loop. A batch holds `groups_per_step` groups, the lowest numbers that are back.
If groups came back in order, the one admitted as number i (dropped ones not counted) would be trained in batch
i // groups_per_step, when the learner is at that version. It may therefore be admitted while

    i < (engine version + max_staleness + 1) · groups_per_step

With max_staleness = 0 that is: nothing of a batch is sampled before the batch before it is trained and published. The same
holds, whatever max_staleness, for the first batch after a step at which settings change (orchestrator/config/schedule.py).

Invariants: taken from the stream = trained + dropped + in flight + waiting, at every moment; no batch holds a token older
than max_staleness versions (checked again at `take`, where a group that became too old is dropped as `stale`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards.types import ScoredGroup


class Buffer:
    """The buffer of one stage; used from one event loop."""

    def __init__(
        self, groups_per_step: int, max_staleness: int, dynamic_sampling: bool, barriers: Sequence[int] = ()
    ) -> None:
        """`barriers`: versions, in order, that must be published before anything is admitted for the batch they train."""
        self._groups_per_step = groups_per_step
        self._max_staleness = max_staleness
        self._dynamic_sampling = dynamic_sampling
        self._barriers = barriers
        self._engine_version = 0
        self._waiting: dict[int, ScoredGroup] = {}
        self._in_flight: set[int] = set()
        self._changed = asyncio.Condition()
        self._failure: BaseException | None = None
        self._owed: list[int] = []
        self.num_admitted = 0
        """Prompts taken from the stream."""
        self.num_trained = 0
        self.dropped: Counter[str] = Counter()
        """Groups that were dropped, by reason: `no_signal`, `unscored`, `stale`."""

    @property
    def engine_version(self) -> int:
        """Policy version that the engines serve."""
        return self._engine_version

    @property
    def num_in_flight(self) -> int:
        """Groups that are admitted and neither back nor dropped, those owed after a resume included."""
        return len(self._in_flight) + len(self._owed)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def admit(self) -> int:
        """Wait until one more group may be sampled; returns its number, counted from 0."""
        async with self._changed:
            await self._wait_for(lambda: self._owed or self._places() > 0)
            if self._owed:
                number = self._owed.pop(0)
            else:
                number = self.num_admitted
                self.num_admitted += 1
            self._in_flight.add(number)
            return number

    async def put(self, number: int, group: ScoredGroup) -> None:
        """A group came back. One without signal is dropped under dynamic sampling; one without two scores always."""
        async with self._changed:
            self._in_flight.remove(number)
            if len(group.completions) < 2:
                self.dropped["unscored"] += 1
            elif self._dynamic_sampling and not group.has_signal:
                self.dropped["no_signal"] += 1
            else:
                self._waiting[number] = group
            self._changed.notify_all()

    async def take(self, learner_version: int) -> list[ScoredGroup]:
        """Wait for a whole batch; groups in the order of admission.

        Raises:
            The failure given to `fail`, if there was one.
        """
        async with self._changed:
            while True:
                await self._wait_for(lambda: len(self._waiting) >= self._groups_per_step)
                for number, group in list(self._waiting.items()):
                    if learner_version - _oldest_version(group) > self._max_staleness:
                        del self._waiting[number]
                        self.dropped["stale"] += 1
                self._changed.notify_all()
                if len(self._waiting) >= self._groups_per_step:
                    numbers = sorted(self._waiting)[: self._groups_per_step]
                    self.num_trained += len(numbers)
                    return [self._waiting.pop(number) for number in numbers]

    async def published(self, version: int) -> None:
        """The engines now serve `version`: more may be admitted."""
        async with self._changed:
            self._engine_version = version
            self._changed.notify_all()

    async def fail(self, failure: BaseException) -> None:
        """Wake everyone who waits, with this failure."""
        async with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()

    def counts(self) -> dict[str, int]:
        """The account; `taken` is the sum of the others."""
        return {
            "count/taken": self.num_admitted,
            "count/trained": self.num_trained,
            "count/in_flight": self.num_in_flight + self.num_waiting,
            "count/dropped": self.dropped.total(),
            **{f"count/dropped_{reason}": count for reason, count in self.dropped.items()},
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps. Of groups in flight or waiting only the numbers: they are sampled again."""
        owed = sorted({*self._in_flight, *self._waiting, *self._owed})
        return {
            "admitted": self.num_admitted,
            "trained": self.num_trained,
            "dropped": dict(self.dropped),
            "owed": owed,
        }

    def restore(self, state: Mapping[str, Any], engine_version: int) -> None:
        """Go on from a checkpoint, before anything is admitted. `admit` hands out the owed numbers first."""
        self.num_admitted = state["admitted"]
        self.num_trained = state["trained"]
        self.dropped = Counter(state["dropped"])
        self._owed = list(state["owed"])
        self._engine_version = engine_version

    def _places(self) -> int:
        live = self.num_admitted - self.dropped.total()
        batches = self._engine_version + self._max_staleness + 1
        barrier = next((version for version in self._barriers if version > self._engine_version), batches)
        return min(batches, barrier) * self._groups_per_step - live

    async def _wait_for(self, ready: Callable[[], Any]) -> None:
        await self._changed.wait_for(lambda: self._failure is not None or bool(ready()))
        if self._failure is not None:
            raise self._failure


def _oldest_version(group: ScoredGroup) -> int:
    return min(completion.oldest_version for completion in group.completions)
