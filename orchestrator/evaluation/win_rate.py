"""Preference win rate: how often a scorer prefers what the model says to a response that was given beforehand.

    win rate = mean over prompts of the mean over a prompt's completions of
               1 where the scorer's value of the completion is higher than that of the baseline, ½ where they are equal, else 0

A scorer (a reward model, an LLM judge, a rubric) sees each of the two by itself, so no order of presentation can sway it. As
in AlpacaEval (`alpaca_eval`, `metrics.pairwise_to_winrate`: mean of preferences that are 1 for a loss, 1.5 for a draw and 2 for a
win, less 1, of what could be compared), which grew out of AlpacaFarm (arXiv:2305.14387). What could not be scored is neither a win
nor a loss.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.sampling import CompletionScorer
from rewards.error_budget import ErrorBudget
from rewards.types import Sample, Score, ScoredGroup
from rollout.data.thoughts import completion_behind
from rollout.types import Baseline, Prompt

ROUNDING = 1e-6
"""Relative or absolute difference of two scores below which they are equal, whatever scores them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The baselines of one set and the function that prefers."""

    judged_by: str
    """Label of the function; empty: the whole reward."""
    baselines: Mapping[str, Score]
    """Prompt → score of its baseline. A prompt whose baseline could not be scored is not in it."""
    num_errors: int
    """Baselines that could not be scored."""

    def outcome(self, prompt_id: str, score: Score) -> float | None:
        """1.0, 0.5 or 0.0 of one completion; None where there is nothing to compare with."""
        baseline = self.baselines.get(prompt_id)
        if baseline is None or (self.judged_by and not {self.judged_by} <= score.breakdown.keys() & baseline.breakdown):
            return None
        ours, theirs = (self._value(each) for each in (score, baseline))
        same = math.isclose(
            ours, theirs, rel_tol=ROUNDING, abs_tol=max(ROUNDING, score.resolution, baseline.resolution)
        )
        return 0.5 if same else float(ours > theirs)

    def share_won(self, group: ScoredGroup) -> float | None:
        """Mean outcome of the completions of a prompt that could be scored; None where there is none."""
        outcomes = [self.outcome(group.prompt.prompt_id, score) for score in group.scores]
        known = [outcome for outcome in outcomes if outcome is not None]
        return math.fsum(known) / len(known) if known else None

    def _value(self, score: Score) -> float:
        return score.breakdown[self.judged_by] if self.judged_by else score.value


@dataclass
class Baselines:
    """Scores of the baselines of several sets, each asked for once. One that failed is tried again the next time."""

    _scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    """Set → prompt → score."""

    async def contest(
        self, name: str, prompts: Sequence[Prompt], judged_by: str, scorer: CompletionScorer, budget: ErrorBudget
    ) -> Contest:
        """What the completions of set `name` are compared with.

        Raises:
            ServiceError: too many baselines could not be scored.
        """
        known = self._scores.setdefault(name, {})
        missing = [prompt for prompt in prompts if prompt.baseline is not None and prompt.prompt_id not in known]
        scores = await asyncio.gather(*(scorer.score(prompt.rubric, sample_of(prompt), budget) for prompt in missing))
        failed = []
        for prompt, score in zip(missing, scores, strict=True):
            if score.status == "error":
                failed.append(prompt)
            else:
                known[prompt.prompt_id] = score
        # All at once, those of before included: the rate is one of the whole set.
        for prompt in failed[-1:] or prompts[:1]:
            text = prompt.baseline.text if prompt.baseline and failed else ""
            budget.count(len(known) + len(failed), len(failed), prompt, text)
        return Contest(judged_by=judged_by, baselines=known, num_errors=len(failed))


def sample_of(prompt: Prompt) -> Sample:
    """The baseline of a prompt as a reward function sees it."""
    baseline: Baseline | None = prompt.baseline
    assert baseline is not None
    return Sample(
        prompt=prompt.text,
        completion=completion_behind(prompt.text, baseline.text),
        answer=prompt.answer,
        fields=prompt.fields,
        question=prompt.question,
        columns=prompt.columns,
        alone=True,
        num_tokens=baseline.num_tokens,
    )
