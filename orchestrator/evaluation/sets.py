"""Evaluation by sampling: every completion scored by the reward service, by the rubric that its set names.

The stages and `rayzero eval` both come through `evaluate_sets`; orchestrator/evaluation/figures.py says what is measured.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from orchestrator.config.recipe import Stage
from orchestrator.config.rubrics import preferring_label, rubrics_of
from orchestrator.config.sections.eval import EvalSection
from orchestrator.evaluation.figures import Correctness, EvalResult, summarize
from orchestrator.evaluation.win_rate import Baselines
from orchestrator.sampling import GroupRequest, GroupScorer, Sampler, scored_groups
from rewards.error_budget import ErrorBudget
from rollout.errors import ServiceError
from rollout.types import Prompt, Sampling

IN_FLIGHT = 2
"""Completions asked for at a time, in terms of what the engines decode at a time: the others would only
wait in a queue."""


async def evaluate_sets(
    sampler: Sampler,
    scorers: GroupScorer,
    sets: Mapping[str, Sequence[Prompt]],
    stage: Stage,
    seed: int,
    baselines: Baselines | None = None,
) -> list[EvalResult]:
    """Evaluate every set of a stage by the engines as they are; the same `seed` draws the same samples.

    `baselines`: those that an earlier call has scored by the same rubrics.

    Raises:
        ServiceError: an engine failed, or more than `rewards.max_error_rate` of a set could not be scored.
    """
    rubrics = rubrics_of(stage)

    def at_once(samples: int) -> Callable[[], int]:
        return lambda: IN_FLIGHT * sampler.replicas * stage.rollout.max_sequences // samples

    baselines = baselines or Baselines()
    results = []
    for name, prompts in sets.items():
        section = stage.eval.sets[name]
        rubric = rubrics[section.rubric]
        budget = ErrorBudget(stage.rewards.max_error_rate)
        contest = None
        try:
            if section.baseline_column:
                label = preferring_label(rubric, section.judged_by)
                contest = await baselines.contest(name, prompts, label, scorers, budget)
            groups = [
                await scored_groups(
                    sampler,
                    scorers,
                    [
                        GroupRequest(group_id=f"eval/{name}/{kind}/{i}", prompt=prompt, sampling=sampling)
                        for i, prompt in enumerate(prompts)
                    ],
                    at_once=at_once(sampling.n),
                    budget=budget,
                )
                if sampling
                else None
                for kind, sampling in _samplings(stage.eval, stage.rollout.max_tokens, seed).items()
            ]
            budget.check()
        except ServiceError as problem:
            raise ServiceError(f"evaluation of {name!r}: {problem}") from problem
        correctness = Correctness.of(rubric, section.correct, answered=any(prompt.answer for prompt in prompts))
        phrases = stage.eval.reflection_phrases
        # In a thread: thousands of long completions are read, and the run's other work goes on.
        result = await asyncio.to_thread(summarize, name, correctness, *groups, contest=contest, phrases=phrases)
        results.append(result)
    return results


def _samplings(settings: EvalSection, max_tokens: int, seed: int) -> dict[str, Sampling | None]:
    """The two ways of decoding; None: not asked for."""
    limit = settings.max_tokens or max_tokens
    return {
        "greedy": Sampling(temperature=0.0, max_tokens=limit) if settings.greedy else None,
        "samples": Sampling(
            n=settings.samples,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=limit,
            seed=seed,
        )
        if settings.samples
        else None,
    }
