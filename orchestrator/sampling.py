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
from rollout.types import Completion, Prompt, RolloutGroup, Sampling


class Sampler(Protocol):
    """Makes the group: the rollout pool."""

    async def generate(
        self, group_id: str, prompt: Prompt, sampling: Sampling, finished: Callable[[Completion], None]
    ) -> RolloutGroup: ...


class Scoring(Protocol):
    """The scores of one group on their way."""

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

    Raises:
        ServiceError: no engine could generate it, or too many completions could not be scored so far.
    """
    clocks = clocks or PhaseClocks()
    scoring = scorers.begin(request.prompt, budget)
    try:
        async with generating or nullcontext():
            with clocks.produce.running(), clocks.generate.running():
                group = await sampler.generate(request.group_id, request.prompt, request.sampling, scoring.add)
        # What is left to score: most completions were scored while others were still being generated.
        with clocks.produce.running(), clocks.score.running():
            return await scoring.finish(group)
    finally:
        scoring.cancel()


async def scored_groups(
    sampler: Sampler,
    scorers: GroupScorer,
    requests: Sequence[GroupRequest],
    *,
    at_once: int,
    scored_at_once: bool = False,
    budget: ErrorBudget | None = None,
    clocks: PhaseClocks | None = None,
) -> list[ScoredGroup]:
    """One group a request, in their order; generates `at_once` of them at a time.

    Args:
        scored_at_once: whether a group counts among these until it is scored, so that slow scorers slow generation down;
            or else the engines go on while the last scores of a group come in.

    Raises:
        ServiceError: as `scored_group` does, for the first group that failed; the others are cancelled.
    """
    places = asyncio.Semaphore(max(1, at_once))

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
