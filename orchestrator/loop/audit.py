"""Audits: whether engines hold the learner's weights, by the logprobs of completions that they have just sampled."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from learner.audit import LogprobGap
from learner.batch import TrainingSequence
from learner.learner import Learner
from rollout.errors import ServiceError
from rollout.service import Audit, RolloutPool
from rollout.types import Prompt, RolloutGroup, Sampling

PROMPTS = 4
"""Groups that an audit samples on every replica."""
TOKENS = 256
"""Longest completion of an audit: two of each group are some two thousand tokens a replica, which is enough to judge by."""
JOINER_TOKENS = 32
"""Longest completion of the one group that a replica samples before it serves."""
TRIES = 3
"""Times that an audit is begun when every replica that it asks dies of something else meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """How the replicas of a stage are compared with its learner."""

    learner: Learner
    pool: RolloutPool
    batch_of: Callable[[Sequence[TrainingSequence]], Any]
    """The training batch of rows, under the settings that they were sampled with."""
    temperature: float
    max_tokens: int
    """Longest completion of the stage."""
    tolerance: float
    """Largest mean difference in nats that counts as rounding."""
    version: int

    async def serving(self, prompts: Sequence[Prompt]) -> dict[int, LogprobGap]:
        """Id of every replica that serves → its difference to the learner on fresh completions of the first prompts. One that dies
        meanwhile is left out.

        Raises:
            ServiceError: a replica does not hold the learner's weights; or none could be asked.
        """
        sampling = self._sampling(TOKENS)
        problem: BaseException | None = None
        for _ in range(TRIES):
            await self.pool.served()
            said = await asyncio.gather(
                *(
                    self.pool.generate_on(replica, f"audit/{i}", prompt, sampling)
                    for replica in self.pool.serving
                    for i, prompt in enumerate(prompts[:PROMPTS])
                ),
                return_exceptions=True,
            )
            groups = [group for group in said if isinstance(group, RolloutGroup)]
            problem = next((each for each in said if isinstance(each, BaseException)), problem)
            if groups:
                break
        else:
            raise ServiceError(f"audit: no replica could be asked: {problem}") from problem
        gaps = await self._gaps(groups)
        for reason in self._faults(gaps).values():
            raise ServiceError(f"audit: {reason}")
        return gaps

    def joiners(self) -> Audit:
        """What is asked of replicas before they serve."""

        async def judge(groups: Sequence[RolloutGroup]) -> Mapping[int, str]:
            return self._faults(await self._gaps(groups))

        return Audit(self._sampling(JOINER_TOKENS), judge)

    def _sampling(self, longest: int) -> Sampling:
        return Sampling(n=2, temperature=self.temperature, max_tokens=min(self.max_tokens, longest), seed=self.version)

    async def _gaps(self, groups: Sequence[RolloutGroup]) -> dict[int, LogprobGap]:
        rows = [
            TrainingSequence(
                token_ids=np.concatenate([np.array(group.prompt.token_ids), completion.token_ids]).astype(np.int64),
                first_target=len(group.prompt.token_ids),
                rollout_logprobs=completion.rollout_logprobs,
            )
            for group in groups
            for completion in group.completions
        ]
        sampler = [group.replica for group in groups for _ in group.completions]
        return await self.learner.logprob_gaps(self.batch_of(rows), sampler)

    def _faults(self, gaps: Mapping[int, LogprobGap]) -> dict[int, str]:
        return {
            replica: f"replica {replica} does not hold the learner's weights at policy version {self.version}: "
            f"logprobs differ by {gap}; tolerance {self.tolerance:g} of the mean, ten times that of the percentile"
            for replica, gap in gaps.items()
            if not gap.within(self.tolerance)
        }


AuditorOf = Callable[[int], Awaitable[Auditor]]
"""Policy version → who compares engines that hold it with the learner."""
