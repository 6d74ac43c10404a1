"""How a prompt becomes a scored group: the only place where completions are sampled to be scored.

    request ─ begin scoring ─▶ generate, each completion scored as it comes ─ finish ─▶ ScoredGroup

GRPO asks for one group at a time, as the buffer admits them; rejection sampling and evaluation for many. Another way to make
a group, by turns and tools say, is another `Sampler`.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.clock import PhaseClocks
from rewards.error_budget import ErrorBudget
from rewards.types import Sample, Score, ScoredGroup
from rollout.errors import GroupError
from rollout.types import Completion, Prompt, RolloutGroup, Sampling

NO_REPLICA = -1
"""Who sampled a group that nobody did."""


class Sampler(Protocol):
    """Makes the group: the rollout pool."""

    @property
    def replicas(self) -> int:
        """How many engines there are now; it changes while a run goes on."""

    async def generate(
        self, group_id: str, prompt: Prompt, sampling: Sampling, finished: Callable[[Completion], None]
    ) -> RolloutGroup: ...


class Scoring(Protocol):
    """The scores of one group on their way."""

    async def ready(self) -> None: ...

    def add(self, completion: Completion) -> None: ...

    async def finish(self, group: RolloutGroup) -> ScoredGroup: ...

    def cancel(self) -> None: ...


class CompletionScorer(Protocol):
    """Scores one completion: the reward pool."""

    async def score(self, rubric: str, sample: Sample, budget: ErrorBudget | None) -> Score: ...


class GroupScorer(CompletionScorer, Protocol):
    """Scores whole groups too."""

    def begin(self, prompt: Prompt, budget: ErrorBudget | None) -> Scoring: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRequest:
    """One group to sample."""

    group_id: str
    prompt: Prompt
    sampling: Sampling


async def scored_group(
    sampler: Sampler,
    scorers: GroupScorer,
    request: GroupRequest,
    *,
    budget: ErrorBudget | None = None,
    clocks: PhaseClocks | None = None,
    generating: AbstractAsyncContextManager[Any] | None = None,
) -> ScoredGroup:
    """Sample the completions of one prompt; each is scored while others are still being generated.

    Args:
        budget: that the scores count in; None: the reward pool's own.
        clocks: that generating and scoring are timed by.
        generating: entered while the completions are generated.

    A group that engines fail on which are well has no completions; each of them counts as one that could not be scored.

    Raises:
        ServiceError: no engine serves any more, or too many completions could not be scored so far.
    """
    clocks = clocks or PhaseClocks()
    scoring = scorers.begin(request.prompt, budget)
    try:
        async with generating or nullcontext():
            await scoring.ready()
            with clocks.produce.running(), clocks.generate.running():
                group = await sampler.generate(request.group_id, request.prompt, request.sampling, scoring.add)
        # What is left to score: most completions were scored while others were still being generated.
        with clocks.produce.running(), clocks.score.running():
            return await scoring.finish(group)
    except GroupError as problem:
        return _failed(request, str(problem), budget)
    finally:
        scoring.cancel()


def _failed(request: GroupRequest, reason: str, budget: ErrorBudget | None) -> ScoredGroup:
    """A group that could not be generated."""
    if budget is not None:
        budget.count(request.sampling.n, request.sampling.n, request.prompt, "", reason)
    empty = RolloutGroup(
        group_id=request.group_id, prompt=request.prompt, completions=(), replica=NO_REPLICA, seconds=0.0
    )
    return ScoredGroup(group=empty, completions=(), scores=(), num_errors=request.sampling.n, seconds=0.0)


async def scored_groups(
    sampler: Sampler,
    scorers: GroupScorer,
    requests: Sequence[GroupRequest],
    *,
    at_once: Callable[[], int],
    scored_at_once: bool = False,
    budget: ErrorBudget | None = None,
    clocks: PhaseClocks | None = None,
) -> list[ScoredGroup]:
    """One group a request, in their order.

    Args:
        at_once: how many are generated at a time, asked whenever one is done, since engines come and go.
        scored_at_once: whether a group counts among these until it is scored, so that slow scorers slow generation down;
            or else the engines go on while the last scores of a group come in.

    Raises:
        ServiceError: as `scored_group` does, for the first group that failed; the others are cancelled.
    """
    places = _Places(at_once)

    async def one(request: GroupRequest) -> ScoredGroup:
        async with places if scored_at_once else nullcontext():
            generating = None if scored_at_once else places
            return await scored_group(sampler, scorers, request, budget=budget, clocks=clocks, generating=generating)

    try:
        async with asyncio.TaskGroup() as tasks:
            groups = [tasks.create_task(one(request)) for request in requests]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [group.result() for group in groups]


class _Places:
    """As a semaphore, whose size may change while it is used."""

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._taken = 0
        self._freed = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._freed:
            await self._freed.wait_for(lambda: self._taken < max(1, self._size()))
            self._taken += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._freed:
            self._taken -= 1
            self._freed.notify_all()
