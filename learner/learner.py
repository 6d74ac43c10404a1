"""The learner as a run sees it: ranks that may die and are formed anew, with the weights that they had.

    Learner ── owns ──▶ LearnerGroup (one incarnation of the ranks)
       │
       └ knows what makes the weights: the model as it was opened, the newest checkpoint, the batches since then

When a rank is lost, its group is (learner/service.py). A new group is placed, wherever there is room, opens the same model, loads
the same checkpoint and trains the same batches again, which gives the same weights to the last bit; then what was asked for is
asked for once more. Every verb but `train` only reads weights, so this one rule covers them all. What fails twice at the same
point would fail a third time, and ends the run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from learner.audit import LogprobGap
from learner.batch import TrainingBatch
from learner.model.small import BuildSpec
from learner.service import LearnerGroup, RanksLost
from learner.spec import LearnerSpec, ObjectiveName
from learner.stats import TrainStats
from rollout.errors import InputError, ServiceError
from rollout.storage.objects import StoredFile

T = TypeVar("T")
Made = TrainingBatch | Callable[[], TrainingBatch]
"""A batch, or what makes it: again, if need be, and then in a thread."""


class Once:
    """A batch that is at hand now, and can be made again later: it is not kept."""

    def __init__(self, batch: TrainingBatch, again: Callable[[], TrainingBatch]) -> None:
        self._batch: TrainingBatch | None = batch
        self._again = again

    def __call__(self) -> TrainingBatch:
        batch, self._batch = self._batch, None
        return batch or self._again()


Past = Callable[[LearnerGroup], Awaitable[Any]]
"""What was done to the weights, to be done again."""


class Learner:
    """The ranks of a run, whichever they are at the moment."""

    def __init__(
        self,
        group: LearnerGroup,
        begin: Callable[[], Awaitable[LearnerGroup]],
        make_room: Callable[[], Awaitable[Any]],
        tell: Callable[[str], None],
    ) -> None:
        """
        Args:
            begin: starts a group like this one.
            make_room: lets those who share the ranks' GPUs leave their memory.
            tell: hears of every group that is lost.
        """
        self._group = group
        self._begin, self._make_room, self._tell = begin, make_room, tell
        self._opening: Past | None = None
        self._plan: Past | None = None
        self._since: list[Past] = []
        """What made the weights since the model was opened, or since the newest checkpoint, which comes first."""
        self._trained = 0
        """Batches trained since the model was opened."""
        self._lost: set[tuple[int, str]] = set()
        """Where ranks were lost: (batches trained, verb)."""
        self._standing = asyncio.Lock()
        """Held while ranks take over from others: nobody asks them for anything before they have the weights."""
        self.losses = 0
        """Groups that were lost so far."""

    @classmethod
    async def start(
        cls,
        begin: Callable[[], Awaitable[LearnerGroup]],
        make_room: Callable[[], Awaitable[Any]],
        tell: Callable[[str], None],
    ) -> "Learner":
        """Raises InputError and ServiceError as `begin` does."""
        return cls(await begin(), begin, make_room, tell)

    @property
    def group(self) -> LearnerGroup:
        """The ranks of now. Hold on to it in nothing that `attempt` does not cover."""
        return self._group

    def members(self) -> list[dict[str, Any]]:
        """Every rank by the name of its actor, and its state."""
        return self._group.members()

    async def notes(self) -> list[str]:
        """What every rank is at, in words, whatever verb goes on."""
        return await self._group.notes()

    async def build(self, spec: BuildSpec, texts: list[str], folder: str) -> tuple[int, list[StoredFile]]:
        """As `LearnerGroup.build`."""
        return await self.attempt("build", lambda group: group.build(spec, texts, folder))

    async def open(self, spec: LearnerSpec) -> int:
        """Load a stage's model on every rank; returns its number of parameters."""
        self._opening, self._plan, self._since = None, None, []
        self._trained, self._lost = 0, set()
        count = await self.attempt("open", lambda group: group.open(spec))
        self._opening = lambda group: group.open(spec)
        return count

    async def plan(self, total_steps: int, warmup_steps: int) -> None:
        """The length of the stage and of its warm-up, in optimizer steps, from the next batch on."""
        await self.attempt("plan", lambda group: group.plan(total_steps, warmup_steps))
        self._plan = lambda group: group.plan(total_steps, warmup_steps)
        self._since.append(self._plan)

    async def train(self, batch: Made, objective: ObjectiveName) -> TrainStats:
        """One optimizer step a mini-batch. `batch` is kept, or what makes it, until the next checkpoint."""

        async def train(group: LearnerGroup) -> TrainStats:
            made = batch if isinstance(batch, TrainingBatch) else await asyncio.to_thread(batch)
            return await group.train(made, objective)

        stats = await self.attempt("train", train)
        self._since.append(train)
        self._trained += 1
        return stats

    async def kl_to_reference(self, batch: TrainingBatch) -> np.ndarray:
        """As `LearnerGroup.kl_to_reference`."""
        return await self.attempt("kl_to_reference", lambda group: group.kl_to_reference(batch))

    async def scores(self, batch: TrainingBatch) -> np.ndarray:
        """As `LearnerGroup.scores`."""
        return await self.attempt("scores", lambda group: group.scores(batch))

    async def mean_nll(self, batch: TrainingBatch) -> float:
        """As `LearnerGroup.mean_nll`."""
        return await self.attempt("mean_nll", lambda group: group.mean_nll(batch))

    async def logprob_gaps(self, batch: TrainingBatch, sampler: Sequence[int]) -> dict[int, LogprobGap]:
        """As `LearnerGroup.logprob_gaps`."""
        return await self.attempt("logprob_gaps", lambda group: group.logprob_gaps(batch, sampler))

    async def save(self, folder: Path | str, state: Mapping[str, Any]) -> list[StoredFile]:
        """Write a checkpoint into `folder`, where it is not whole yet: `saved` says that it is. Returns as `LearnerGroup.save`."""
        return await self.attempt("save", lambda group: group.save(folder, dict(state)))

    def saved(self, folder: Path | str) -> None:
        """The weights of now are in a checkpoint that stays until there is a newer one: what came before it is history."""
        self._since = [lambda group: group.load(folder), *([self._plan] if self._plan else [])]

    async def load(self, folder: Path | str) -> None:
        """Continue from a checkpoint."""
        await self.attempt("load", lambda group: group.load(folder))
        self.saved(folder)

    async def digests(self, folder: Path) -> dict[str, str]:
        """As `LearnerGroup.digests`."""
        return await self.attempt("digests", lambda group: group.digests(folder))

    async def export(self, folder: Path | str, tokenizer_from: str) -> list[StoredFile]:
        """As `LearnerGroup.export`."""
        return await self.attempt("export", lambda group: group.export(folder, tokenizer_from))

    async def reform(self, begin: Callable[[], Awaitable[LearnerGroup]], spec: LearnerSpec) -> None:
        """Other ranks in place of these, with the weights of the newest checkpoint and what was trained since.

        Args:
            begin: starts them, now and whenever they are lost.
            spec: what they open the model with.

        Raises:
            InputError: there is no room for them; ranks as before have taken over again.
            ServiceError: ranks were lost twice.
        """
        before = self._begin, self._opening
        async with self._standing:
            self._begin, self._opening = begin, lambda group: group.open(spec)
            await self._group.close()
            try:
                self._group = await begin()
            except InputError:
                self._begin, self._opening = before
                self._group = await self._start_again()
                await self._do_again("reform")
                raise
            await self._do_again("reform")

    async def _do_again(self, verb: str) -> None:
        """What made the weights, on ranks that have just met."""
        try:
            for done in (self._opening, *self._since):
                if done is not None:
                    await done(self._group)
        except RanksLost as loss:
            await self._restore(verb, loss)

    async def attempt(self, verb: str, work: Callable[[LearnerGroup], Awaitable[T]]) -> T:
        """Do something with the ranks; with others, from the beginning, when these are lost meanwhile.

        Raises:
            InputError: as a rank raised it.
            ServiceError: ranks were lost twice at this point, or no others could be had.
        """
        while True:
            async with self._standing:
                group = self._group
            try:
                return await work(group)
            except RanksLost as loss:
                async with self._standing:
                    # Somebody else who asked them may have seen to it.
                    if self._group is group:
                        await self._restore(verb, loss)

    async def _restore(self, verb: str, loss: RanksLost) -> None:
        """New ranks with the weights of those that were lost."""
        while True:
            point = (self._trained, verb)
            if point in self._lost:
                raise ServiceError(f"the learner was lost twice at the same point: {loss}") from loss
            self._lost.add(point)
            self.losses += 1
            self._tell(f"{loss}; new ranks take over")
            try:
                await self._group.close()
                await self._make_room()
                self._group = await self._start_again()
                for done in (self._opening, *self._since):
                    if done is not None:
                        await done(self._group)
                return
            except RanksLost as another:
                verb, loss = f"{verb} (restore)", another

    async def _start_again(self) -> LearnerGroup:
        try:
            return await self._begin()
        except InputError as problem:
            # No mistake of anybody's: there was room for them before.
            raise ServiceError(f"no other ranks could be had: {problem}") from problem

    async def close(self) -> None:
        """End the ranks."""
        await self._group.close()
