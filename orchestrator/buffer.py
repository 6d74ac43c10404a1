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

Nothing is admitted beyond the groups that the stage will train, so that at its end every prompt that was taken is trained or
dropped.

Invariants: taken from the stream = trained + dropped + in flight + waiting, at every moment; no batch holds a token older
than max_staleness versions (checked again at `take`, where a group that became too old is dropped as `stale`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rewards.types import ScoredGroup
from rollout.errors import InputError


class Journal(Protocol):
    """Hears of every group that came back, before anybody can take it."""

    def add(self, number: int, group: ScoredGroup) -> None: ...

    def drop(self, number: int, reason: str) -> None: ...


class Buffer:
    """The buffer of one stage; used from one event loop."""

    def __init__(
        self,
        groups_per_step: int,
        max_staleness: int,
        dynamic_sampling: bool,
        barriers: Sequence[int] = (),
        *,
        steps: float = float("inf"),
        journal: Journal | None = None,
        max_no_signal: int = 0,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            barriers: versions, in order, that must be published before anything is admitted for the batch they train.
            steps: batches that the stage trains.
            max_no_signal: batches' worth of groups without signal in a row after which dynamic sampling gives up; 0: never.
            tell: hears of every batch's worth of them.
        """
        self._groups_per_step = groups_per_step
        self._steps = steps
        self._journal = journal
        self._max_no_signal, self._tell = max_no_signal, tell
        self._barren: Counter[str] = Counter()
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
        """Groups that were dropped, by reason: `failed` (by engines that are well), `no_signal`, `unscored`, `stale`."""
        self.batch: list[int] = []
        """Numbers of the groups that `take` gave last."""
        self._drops: list[tuple[int, str]] = []

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

    @property
    def waiting_numbers(self) -> list[int]:
        """Numbers of the groups that wait."""
        return sorted(self._waiting)

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
        """A group came back. One without signal is dropped under dynamic sampling; one without two scores always, and so one that
        no engine could generate."""
        async with self._changed:
            self._in_flight.remove(number)
            if not group.group.completions:
                self._drop(number, "failed")
            elif len(group.completions) < 2:
                self._drop(number, "unscored")
            elif self._dynamic_sampling and not group.has_signal:
                self._drop(number, "no_signal")
                self._count_barren(group)
            else:
                self._barren.clear()
                self._waiting[number] = group
                if self._journal:
                    self._journal.add(number, group)
            self._changed.notify_all()

    async def take(self, learner_version: int) -> list[ScoredGroup]:
        """Wait for a whole batch, of the lowest numbers that are back; groups that would be too old for the next one go before
        others. In the order of admission.

        Raises:
            The failure given to `fail`, if there was one.
        """
        async with self._changed:
            while True:
                await self._wait_for(lambda: len(self._waiting) >= self._groups_per_step)
                for number, group in list(self._waiting.items()):
                    if learner_version - _oldest_version(group) > self._max_staleness:
                        del self._waiting[number]
                        self._drop(number, "stale")
                self._changed.notify_all()
                if len(self._waiting) >= self._groups_per_step:
                    oldest = learner_version - self._max_staleness
                    order = sorted(self._waiting, key=lambda n: (_oldest_version(self._waiting[n]) > oldest, n))
                    self.batch = sorted(order[: self._groups_per_step])
                    self.num_trained += len(self.batch)
                    return [self._waiting.pop(number) for number in self.batch]

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

    def drops(self) -> list[tuple[int, str]]:
        """(number, reason) of what was dropped since this was asked last."""
        drops, self._drops = self._drops, []
        return drops

    def state(self) -> dict[str, Any]:
        """What is known of every number so far: `owed` are those that are neither trained nor dropped."""
        owed = sorted({*self._in_flight, *self._waiting, *self._owed})
        return {
            "admitted": self.num_admitted,
            "trained": self.num_trained,
            "dropped": dict(self.dropped),
            "owed": owed,
        }

    def restore(
        self,
        state: Mapping[str, Any],
        engine_version: int,
        waiting: Mapping[int, ScoredGroup] | None = None,
        dropped: Mapping[int, str] | None = None,
    ) -> None:
        """Go on from a state, before anything is admitted. `admit` hands out the owed numbers first.

        Args:
            waiting: groups that came back by then, or since.
            dropped: number → reason of what was dropped since.
        """
        waiting, dropped = waiting or {}, dropped or {}
        self.num_admitted = max([state["admitted"], *(number + 1 for number in (*waiting, *dropped))])
        self.num_trained = state["trained"]
        self.dropped = Counter(state["dropped"])
        self.dropped.update(dropped.values())
        self._drops = list(dropped.items())
        self._waiting = dict(waiting)
        owed = {*state["owed"], *range(state["admitted"], self.num_admitted)}
        self._owed = sorted(owed - waiting.keys() - dropped.keys())
        self._engine_version = engine_version

    def _drop(self, number: int, reason: str) -> None:
        self.dropped[reason] += 1
        self._drops.append((number, reason))
        if self._journal:
            self._journal.drop(number, reason)

    def _count_barren(self, group: ScoredGroup) -> None:
        """Dynamic sampling replaces what has no signal, for ever if nothing has: that is said, and ended."""
        self._barren[group.prompt.rubric] += 1
        count = self._barren.total()
        batches, rest = divmod(count, self._groups_per_step)
        if rest:
            return
        rubrics = ", ".join(f"{name} ({number})" for name, number in self._barren.most_common())
        text = (
            f"no signal: all {len(group.completions)} rewards of a group were equal in {count} groups in a row, of "
            f"rubric {rubrics}; dynamic sampling dropped {self.dropped['no_signal']} of {self.num_admitted} groups so far"
        )
        self._tell(text)
        if self._max_no_signal and batches >= self._max_no_signal:
            self._failure = self._failure or InputError(
                f"{text}. That is loop.max_no_signal = {self._max_no_signal} batches: look at the rewards, give easier or "
                "harder prompts, more samples a group, or 0 to go on for ever"
            )

    def _places(self) -> int:
        live = self.num_admitted - self.dropped.total()
        batches = self._engine_version + self._max_staleness + 1
        barrier = next((version for version in self._barriers if version > self._engine_version), batches)
        return int(min(batches, barrier, self._steps) * self._groups_per_step) - live

    async def _wait_for(self, ready: Callable[[], Any]) -> None:
        await self._changed.wait_for(lambda: self._failure is not None or bool(ready()))
        if self._failure is not None:
            raise self._failure


def _oldest_version(group: ScoredGroup) -> int:
    return min(completion.oldest_version for completion in group.completions)
