"""Evaluation by sampling: every completion scored by the reward service, by the rubric that its set names.

    pass@1   mean over problems of the share of k samples that are right (DeepSeek-R1, arXiv:2501.12948, section 3)
    cons@k   share of problems whose most frequent answer among the k samples is right; the earliest wins a tie
    greedy   share of problems that are right at temperature 0

A completion is right when one reward function of the rubric gives 1 or more: the set's `correct`, or else `accuracy` or
`code_tests`, or else, where there are answers, the first (`orchestrator.rubrics.correct_label`). Every function of the
rubric is a figure besides, by its mean; with responses to compare with so is the win rate (orchestrator/evaluation/win_rate.py). What
could not be scored is in no figure; it is counted.

The stages and `rayzero eval` both come through `evaluate_sets`.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.cluster.services import Services
from orchestrator.cluster.session import Device, ray_session
from orchestrator.config.load import Recipe, Stage
from orchestrator.config.rubrics import correct_label, preferring_label, rubrics_of
from orchestrator.config.sections.eval import EvalSection
from orchestrator.data.prompts import load_prompts, load_tokenizer
from orchestrator.display import Display
from orchestrator.evaluation.win_rate import Baselines, Contest
from rewards.error_budget import ErrorBudget
from rewards.math.exact import answer_key
from rewards.types import RubricSpec, Sample, Score, ScoredGroup
from rollout.errors import ServiceError
from rollout.types import Completion, Prompt, RolloutGroup, Sampling

IN_FLIGHT = 2
"""Completions asked for at a time, in terms of what the engines decode at a time: the others would only grow old in a
queue, and `rollout.timeout_s` counts from the request."""
NUM_SAMPLES_KEPT = 8
"""Completions of each set that go into the record, for people to read."""


class Sampler(Protocol):
    """What an evaluation needs of the rollout pool."""

    async def generate(
        self, group_id: str, prompt: Prompt, sampling: Sampling, finished: Callable[[Completion], None]
    ) -> RolloutGroup: ...


class Scoring(Protocol):
    """What it needs of one group's scores on their way."""

    def add(self, completion: Completion) -> None: ...

    async def finish(self, group: RolloutGroup) -> ScoredGroup: ...

    def cancel(self) -> None: ...


class Scorers(Protocol):
    """What it needs of the reward pool."""

    def begin(self, prompt: Prompt, budget: ErrorBudget) -> Scoring: ...

    async def score(self, rubric: str, sample: Sample, budget: ErrorBudget) -> Score: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the scores of one set are read."""

    correct: str
    """Label of the function that says what is right; empty: none does, and nothing is right or wrong."""
    votes: bool
    """Whether the answers that it finds can be compared with each other."""
    form: str
    """Label of the function that checks the form; empty: none does."""

    @classmethod
    def of(cls, rubric: RubricSpec, chosen: str = "", *, answered: bool = True) -> "Verdict":
        """`answered`: whether the problems have reference answers."""
        label = correct_label(rubric, chosen, answered=answered)
        names = {spec.label: spec.name for spec in rubric}
        form = next((spec.label for spec in rubric if spec.name == "format"), "")
        return cls(correct=label, votes=names.get(label) == "accuracy", form=form)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One set, one policy version. Shares are between 0 and 1; None where nothing was asked, or could be scored."""

    set: str
    problems: int
    """Asked."""
    unscored: int
    """Completions, and responses to compare with, that could not be scored. They are in no other figure."""
    correct: str
    """Label of the function that says what is right; empty: none does."""
    greedy: float | None
    pass_at_1: float | None
    cons_at_k: float | None
    """None also where answers cannot be compared (programs)."""
    k: int
    win_rate: float | None
    """Share of prompts on which a completion is preferred to the baseline, ties for one half; None without baselines."""
    compared: int
    """Prompts that it is of."""
    judged_by: str
    """Label of the function that prefers; empty: the whole reward, or nothing is compared."""
    format: float | None
    """Share of completions in the form that the rubric asks for; None where it asks for none. Like all figures below:
    of the greedy completions, or else of the samples."""
    reward: float | None
    """Mean of the whole rubric."""
    labels: Mapping[str, float]
    """Mean of each reward function."""
    metrics: Mapping[str, float]
    """Mean of the further figures that reward functions report, by `<label>.<name>`."""
    length_mean: float | None
    """Tokens."""
    truncated: float | None
    """Share that was cut at the token limit."""
    samples: tuple[dict[str, Any], ...]
    """id and text of the prompt, answer, completion, correct (None where nobody says); with a baseline this too, and the
    share won."""

    def record(self) -> dict[str, Any]:
        """As metrics.jsonl and eval.json hold it."""
        return {
            "set": self.set,
            "problems": self.problems,
            "unscored": self.unscored,
            "correct": self.correct,
            "greedy": self.greedy,
            "pass@1": self.pass_at_1,
            "cons@k": self.cons_at_k,
            "k": self.k,
            "win_rate": self.win_rate,
            "compared": self.compared,
            "judged_by": self.judged_by,
            "format": self.format,
            "reward": self.reward,
            "labels": dict(self.labels),
            "metrics": dict(self.metrics),
            "length_mean": self.length_mean,
            "truncated": self.truncated,
            "samples": list(self.samples),
        }


def evaluate_model(recipe: Recipe, model_path: str) -> list[dict[str, Any]]:
    """Start engines for a model (folder or hub id) and run every evaluation set of the recipe's last stage.

    Raises:
        InputError: the sets or the model cannot be read, or a reward function of the user's fails.
        ServiceError: an engine failed, or too many completions could not be scored.
    """
    stage = recipe.stages[-1]
    tokenizer = load_tokenizer(model_path, stage.model.trust_remote_code)
    sets = load_prompts(stage.eval.prompt_sets, stage, tokenizer, seed=0)
    display = Display()
    for note in sets.notes():
        display.line(note)

    async def run(device: Device) -> list[EvalResult]:
        services = Services(device, recipe.cluster.start_timeout_s, display)
        try:
            model: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            model.set_result(model_path)
            await services.begin_rollout(stage, model)
            await services.begin_rewards(stage, sets)
            pool = await services.rollout()
            display.line(f"engine ready: {model_path}")
            return await evaluate_sets(pool, await services.rewards(), sets.prompts, stage, recipe.seed)
        finally:
            await services.close()

    with ray_session(recipe.cluster, "eval") as device:
        return [result.record() for result in asyncio.run(run(device))]


async def evaluate_sets(
    sampler: Sampler,
    scorers: Scorers,
    sets: Mapping[str, Sequence[Prompt]],
    stage: Stage,
    seed: int,
    baselines: Baselines | None = None,
) -> list[EvalResult]:
    """Every evaluation set of a stage through the engines as they are; the same `seed` draws the same samples.

    `baselines`: those that an earlier call has scored by the same rubrics.

    Raises:
        ServiceError: an engine failed, or more than `rewards.max_error_rate` of a set could not be scored.
    """
    rubrics = rubrics_of(stage)
    at_once = IN_FLIGHT * stage.rollout.replicas * stage.rollout.max_sequences
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
                await _scored(sampler, scorers, f"eval/{name}/{kind}", prompts, sampling, budget, at_once)
                if sampling
                else None
                for kind, sampling in _samplings(stage.eval, stage.rollout.max_tokens, seed).items()
            ]
            budget.check()
        except ServiceError as problem:
            raise ServiceError(f"evaluation of {name!r}: {problem}") from problem
        verdict = Verdict.of(rubric, section.correct, answered=any(prompt.answer for prompt in prompts))
        results.append(summarize(name, verdict, *groups, contest=contest))
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


async def _scored(
    sampler: Sampler,
    scorers: Scorers,
    label: str,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    budget: ErrorBudget,
    at_once: int,
) -> list[ScoredGroup]:
    """One group a prompt; each completion is scored while others are still being generated. `at_once`: completions."""
    places = asyncio.Semaphore(max(1, at_once // sampling.n))

    async def one(index: int, prompt: Prompt) -> ScoredGroup:
        scoring = scorers.begin(prompt, budget)
        try:
            async with places:
                group = await sampler.generate(f"{label}/{index}", prompt, sampling, scoring.add)
            return await scoring.finish(group)
        finally:
            scoring.cancel()

    try:
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(one(i, prompt)) for i, prompt in enumerate(prompts)]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [call.result() for call in calls]


# --- From scored groups to figures


def summarize(
    name: str,
    verdict: Verdict,
    greedy: Sequence[ScoredGroup] | None,
    sampled: Sequence[ScoredGroup] | None,
    *,
    contest: Contest | None = None,
) -> EvalResult:
    """Groups of one set, one a problem, to figures. At least one way of decoding must be given."""
    shown = greedy or sampled
    assert shown is not None
    scores = [score for group in shown for score in group.scores]
    completions = [completion for group in shown for completion in group.completions]
    labels = _means(score.breakdown for score in scores)
    won = [share for group in shown if contest and (share := contest.share_won(group)) is not None]
    num_errors = sum(group.num_errors for group in (*(greedy or ()), *(sampled or ())))
    return EvalResult(
        set=name,
        problems=len(shown),
        unscored=num_errors + (contest.num_errors if contest else 0),
        correct=verdict.correct,
        greedy=_mean(_share_right(group, verdict) for group in greedy or ()),
        pass_at_1=_mean(_share_right(group, verdict) for group in sampled or ()),
        cons_at_k=_mean(_majority_right(group, verdict) for group in sampled or ()),
        k=len(sampled[0].group.completions) if sampled else 0,
        win_rate=_mean(won),
        compared=len(won),
        judged_by=contest.judged_by if contest else "",
        format=labels.get(verdict.form),
        reward=_mean(score.value for score in scores),
        labels=labels,
        metrics=_means(score.metrics for score in scores),
        length_mean=_mean(float(len(completion.token_ids)) for completion in completions),
        truncated=_mean(float(completion.finish_reason == "length") for completion in completions),
        samples=tuple(_sample(group, verdict, contest) for group in shown[:NUM_SAMPLES_KEPT]),
    )


def _is_right(score: Score, verdict: Verdict) -> bool:
    return score.breakdown.get(verdict.correct, 0.0) >= 1


def _share_right(group: ScoredGroup, verdict: Verdict) -> float | None:
    return _mean(float(_is_right(score, verdict)) for score in group.scores) if verdict.correct else None


def _majority_right(group: ScoredGroup, verdict: Verdict) -> float | None:
    """1.0 when the most frequent answer of the group is right. No answer is no vote; equal numbers are one answer."""
    if not verdict.votes or not group.scores:
        return None
    votes: Counter[Hashable] = Counter()
    right: set[Hashable] = set()
    for score in group.scores:
        if score.extracted:
            vote = answer_key(score.extracted)
            votes[vote] += 1
            # One that names a second answer besides is wrong, but what it votes for is not.
            if _is_right(score, verdict):
                right.add(vote)
    return float(bool(votes) and max(votes, key=lambda vote: votes[vote]) in right)


def _sample(group: ScoredGroup, verdict: Verdict, contest: Contest | None) -> dict[str, Any]:
    """The first completion of a problem that could be scored, or else the first."""
    shown = next(iter(group.completions), group.group.completions[0])
    judged = bool(group.scores) and bool(verdict.correct)
    compared = {}
    if contest and group.prompt.baseline:
        won = contest.outcome(group.prompt.prompt_id, group.scores[0]) if group.scores else None
        compared = {"baseline": group.prompt.baseline.text, "won": won}
    return {
        "id": group.prompt.prompt_id,
        "prompt": group.prompt.text,
        "answer": group.prompt.answer,
        "completion": shown.text,
        "correct": _is_right(group.scores[0], verdict) if judged else None,
        **compared,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _means(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of each name, over the tables that have it."""
    columns: defaultdict[str, list[float]] = defaultdict(list)
    for table in tables:
        for name, value in table.items():
            columns[name].append(value)
    return {name: math.fsum(values) / len(values) for name, values in columns.items()}
