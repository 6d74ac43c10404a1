"""Evaluations without engines and without Ray: completions that were written beforehand, scored by the real rubrics."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.config.recipe import Stage
from orchestrator.config.rubrics import resource_settings, rubrics_of
from orchestrator.evaluation.figures import EvalResult
from orchestrator.evaluation.sets import evaluate_sets
from rewards.error_budget import ErrorBudget
from rewards.resources import Resources
from rewards.rubric import Rubric, total
from rewards.service import GroupScoring
from rewards.types import GroupScore, Sample, Score
from rollout.types import Completion, Prompt, RolloutGroup, Sampling
from tests.factories import completion, rollout_group

UNSCORABLE = "no verdict"
"""A completion that no reward function can judge."""


class Written:
    """In place of the rollout pool: greedy the first text of a prompt, sampled all of them."""

    replicas = 1

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self._texts = texts
        self.asked: list[Sampling] = []

    async def generate(
        self, group_id: str, prompt: Prompt, sampling: Sampling, finished: Callable[[Completion], None]
    ) -> RolloutGroup:
        self.asked.append(sampling)
        texts = self._texts[prompt.prompt_id][: sampling.n]
        completions = [completion(text, token_ids=range(1, 2 + len(text.split()))) for text in texts]
        for each in completions[::-1]:
            finished(each)
            await asyncio.sleep(0)
        return rollout_group(completions, group_id=group_id, asked=prompt)


class Here:
    """In place of the reward pool: the rubrics of a stage, in this process."""

    def __init__(self, stage: Stage) -> None:
        self._specs = rubrics_of(stage)
        self._resources = Resources(resource_settings(stage))
        self._rubrics = {name: Rubric(name, spec, self._resources) for name, spec in self._specs.items()}
        self.budgets: list[ErrorBudget] = []

    def begin(self, prompt: Prompt, budget: ErrorBudget) -> GroupScoring:
        self.budgets.append(budget)
        return GroupScoring(self, prompt, budget)  # type: ignore[arg-type]

    async def score(self, rubric: str, sample: Sample, budget: ErrorBudget) -> Score:
        score = await self._rubrics[rubric].score(sample)
        if sample.completion == UNSCORABLE:
            score = Score(value=0.0, status="error", breakdown={}, seconds=0.0, error="judge: it is down")
        budget.add(score, 0.0)
        return score

    async def clear(self) -> None:
        """There is no outage here."""

    async def score_whole(self, rubric: str, samples: list[Sample]) -> list[GroupScore]:
        return await self._rubrics[rubric].score_group(samples)

    def total(self, rubric: str, breakdown: Mapping[str, float]) -> float:
        return total(self._specs[rubric], breakdown)

    async def close(self) -> None:
        await self._resources.close()


def evaluated(
    stage: Stage, sets: Mapping[str, Sequence[Prompt]], texts: Mapping[str, Sequence[str]], sampler: Any = None
) -> list[EvalResult]:
    """Every set of a stage, with the completions in `texts` by prompt."""

    async def run() -> list[EvalResult]:
        here = Here(stage)
        try:
            return await evaluate_sets(sampler or Written(texts), here, sets, stage, seed=5)
        finally:
            await here.close()

    return asyncio.run(asyncio.wait_for(run(), 120))
