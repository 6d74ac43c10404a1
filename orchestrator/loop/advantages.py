"""From scored groups to rows to train on: the advantages of one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learner.batch import TrainingSequence, sequences_of
from learner.losses.advantage import advantages, kl_penalised
from orchestrator.loop.context import StageContext
from rewards.types import ScoredGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAdvantages:
    """One batch, ready to be cut for the ranks."""

    rows: list[TrainingSequence]
    """The completions that train."""
    advantages: list[np.ndarray]
    """[G'] of every completion of every group, those that do not train included."""
    metrics: dict[str, float]
    """Figures of the KL, when it is in the reward."""


async def batch_advantages(context: StageContext, groups: Sequence[ScoredGroup], step: int = 0) -> BatchAdvantages:
    """Advantages of a whole batch at once, that of `step`. With the KL in the reward the learner is asked for it first."""
    settings = context.stage.learner
    rewards = [np.array(group.rewards, np.float64) for group in groups]
    metrics: dict[str, float] = {}
    if settings.kl_in == "reward" and settings.kl_coef:
        kl = await _kl_to_reference(context, groups, step)
        rewards = [kl_penalised(own, sums, settings.kl_coef) for own, sums in zip(rewards, kl, strict=True)]
        total = float(sum(sums.sum() for sums in kl))
        metrics = {
            "kl/ref": total / sum(len(completion.token_ids) for group in groups for completion in group.completions),
            "kl/penalty": settings.kl_coef * total / sum(map(len, kl)),
        }
    resolutions = [group.resolution for group in groups]
    values = advantages(rewards, settings.advantage_baseline, settings.advantage_scale, resolutions)
    rows = [
        row
        for group, own in zip(groups, values, strict=True)
        for row in sequences_of(group, own, overlong_filtering=settings.overlong_filtering)
    ]
    return BatchAdvantages(rows=rows, advantages=values, metrics=metrics)


async def _kl_to_reference(context: StageContext, groups: Sequence[ScoredGroup], step: int) -> list[np.ndarray]:
    """[G'] of every group: the estimate summed over each completion."""
    rows = [row for group in groups for row in sequences_of(group, np.zeros(len(group.completions)))]
    with context.clocks.training():
        await context.services.take_gpus()
        learner = await context.services.learner()
        kl = await learner.kl_to_reference(context.batch_of(rows, seed=0, mini_batches=1, step=step))
    return np.split(kl, np.cumsum([len(group.completions) for group in groups])[:-1])
