"""The reward service: Ray actors that score groups while generation goes on."""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError

from rewards.rubric import Rubric, score_group
from rewards.types import ScoredGroup
from rollout.errors import ServiceError
from rollout.types import RolloutGroup


class RewardWorker:
    """One actor; holds every rubric of the stage."""

    def __init__(self, rubrics: Mapping[str, Mapping[str, float]]) -> None:
        self._rubrics = {name: Rubric(name, weights) for name, weights in rubrics.items()}

    def ready(self) -> bool:
        return True

    def score(self, group: RolloutGroup) -> tuple[ScoredGroup, tuple[str, ...]]:
        return score_group(self._rubrics[group.prompt.rubric], group)


class RewardPool:
    """Round robin over the reward actors, with a deadline, one retry elsewhere, and an error budget."""

    def __init__(self, actors: list[Any], timeout_s: float, max_error_rate: float) -> None:
        self._actors = actors
        self._next = itertools.cycle(range(len(actors)))
        self._timeout_s = timeout_s
        self._max_error_rate = max_error_rate
        self.num_scored = 0
        """Completions seen so far, errors included."""
        self.num_errors = 0
        """Completions that could not be scored."""

    @classmethod
    async def start(
        cls,
        rubrics: Mapping[str, Mapping[str, float]],
        *,
        workers: int,
        timeout_s: float,
        max_error_rate: float,
        start_timeout_s: float,
    ) -> "RewardPool":
        """Raises InputError when a reward function does not exist, ServiceError when a worker does not start."""
        remote = ray.remote(RewardWorker)
        # Scoring here is milliseconds between two generations; a whole core each would starve a laptop.
        actors = [
            remote.options(name=f"reward-{i}", num_cpus=0, max_restarts=3, max_task_retries=1).remote(rubrics)
            for i in range(workers)
        ]
        try:
            await asyncio.wait_for(asyncio.gather(*(actor.ready.remote() for actor in actors)), start_timeout_s)
        except TimeoutError:
            raise ServiceError(f"reward workers did not start within {start_timeout_s:.0f} s") from None
        return cls(actors, timeout_s, max_error_rate)

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        """Score a group.

        Raises:
            ServiceError: no worker answered within the deadline, or too many completions could not be scored.
        """
        for attempt in range(2):
            actor = self._actors[next(self._next)]
            try:
                scored, errors = await asyncio.wait_for(actor.score.remote(group), self._timeout_s)
            except (TimeoutError, RayActorError) as problem:
                if attempt:
                    raise ServiceError(
                        f"reward workers gave no score for group {group.group_id} within {self._timeout_s:.0f} s, twice"
                    ) from problem
                continue
            self._count(group, errors)
            return scored
        raise AssertionError("unreachable")

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def _count(self, group: RolloutGroup, errors: tuple[str, ...]) -> None:
        self.num_scored += len(group.completions)
        self.num_errors += len(errors)
        # A rate over a handful of completions says little; one whole group is the least.
        if errors and self.num_scored >= 8 and self.num_errors > self._max_error_rate * self.num_scored:
            raise ServiceError(
                f"{self.num_errors} of {self.num_scored} completions could not be scored "
                f"(rewards.max_error_rate = {self._max_error_rate}); last error: {errors[-1]} "
                f"on prompt {group.prompt.prompt_id!r}"
            )
