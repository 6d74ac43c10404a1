"""The figures of an evaluation set, from its scored groups.

    pass@1   mean over problems of the share of k samples that are right (DeepSeek-R1, arXiv:2501.12948, section 3)
    cons@k   share of problems whose most frequent answer among the k samples is right; the earliest wins a tie
    greedy   share of problems that are right at temperature 0

A completion is right when one reward function of the rubric gives 1 or more: the set's `correct`, or else `accuracy` or
`code_tests`, or else, where there are answers, the first (`orchestrator.config.rubrics.correct_label`). Every function of the
rubric is a figure besides, by its mean; with responses to compare with so is the win rate
(orchestrator/evaluation/win_rate.py). What could not be scored is in no figure; it is counted. What was counted of each problem
is kept too (orchestrator/evaluation/outcomes.py).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.rubrics import correct_label
from orchestrator.evaluation.outcomes import outcomes_record, votes_of
from orchestrator.evaluation.win_rate import Contest
from rewards.text.reflection import reflections
from rewards.types import RubricSpec, Score, ScoredGroup

NUM_SAMPLES_KEPT = 8
"""Completions of each set that go into the record, for people to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correctness:
    """How the scores of one set are read."""

    correct: str
    """Label of the function that says what is right; empty: none does, and nothing is right or wrong."""
    votes: bool
    """Whether the answers that it finds can be compared with each other."""
    form: str
    """Label of the function that checks the form; empty: none does."""

    @classmethod
    def of(cls, rubric: RubricSpec, chosen: str = "", *, answered: bool = True) -> "Correctness":
        """`answered`: whether the problems have reference answers."""
        label = correct_label(rubric, chosen, answered=answered)
        names = {spec.label: spec.name for spec in rubric}
        form = next((spec.label for spec in rubric if spec.name == "format"), "")
        return cls(correct=label, votes=names.get(label) == "accuracy", form=form)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """Figures of one set and one policy version. Shares are between 0 and 1; None where nothing was asked, or could be scored."""

    set: str
    problems: int
    """Problems that were asked."""
    unscored: int
    """Completions, and responses to compare with, that could not be scored. They are in no other figure."""
    correct: str
    """Label of the function that says what is right; empty: none does."""
    greedy: float | None
    pass_at_1: float | None
    cons_at_k: float | None
    """Share of problems whose majority answer is right; None also where answers cannot be compared (programs)."""
    k: int
    win_rate: float | None
    """Share of prompts on which a completion is preferred to the baseline, ties for one half; None without baselines."""
    compared: int
    """Prompts that the win rate is of."""
    judged_by: str
    """Label of the function that prefers; empty: the whole reward, or nothing is compared."""
    format: float | None
    """Share of completions in the form that the rubric asks for; None where it asks for none. Like all figures below:
    of the greedy completions, or else of the samples."""
    reward: float | None
    """Mean reward by the whole rubric."""
    labels: Mapping[str, float]
    """Mean of each reward function."""
    metrics: Mapping[str, float]
    """Mean of the further figures that reward functions report, by `<label>.<name>`."""
    length_mean: float | None
    """Mean length of a completion in tokens."""
    truncated: float | None
    """Share of completions that were cut at the token limit."""
    reflection: float | None
    """Share of completions whose thought says at least once that it checks itself (rewards/text/reflection.py)."""
    reflections: float | None
    """How often a thought says so, on average."""
    outcomes: Mapping[str, Any]
    """Counts of every problem (orchestrator/evaluation/outcomes.py)."""
    samples: tuple[dict[str, Any], ...]
    """Completions for people to read: id and text of the prompt, answer, completion, correct (None where nobody says); with a baseline this too, and the
    share won."""

    def record(self) -> dict[str, Any]:
        """The result as metrics.jsonl and eval.json hold it."""
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
            "reflection": self.reflection,
            "reflections": self.reflections,
            "outcomes": dict(self.outcomes),
            "samples": list(self.samples),
        }


def summarize(
    name: str,
    correctness: Correctness,
    greedy: Sequence[ScoredGroup] | None,
    sampled: Sequence[ScoredGroup] | None,
    *,
    contest: Contest | None = None,
    phrases: Sequence[str] = (),
) -> EvalResult:
    """Turn the groups of one set, one a problem, into figures. At least one way of decoding must be given.

    `phrases`: by which a thought says that it checks itself.
    """
    shown = greedy or sampled
    assert shown is not None
    checks = [
        [reflections(group.prompt.text, completion.text, phrases) for completion in group.completions]
        for group in shown
    ]
    scores = [score for group in shown for score in group.scores]
    completions = [completion for group in shown for completion in group.completions]
    labels = _means(score.breakdown for score in scores)
    won = [share for group in shown if contest and (share := contest.share_won(group)) is not None]
    num_errors = sum(group.num_errors for group in (*(greedy or ()), *(sampled or ())))
    return EvalResult(
        set=name,
        problems=len(shown),
        unscored=num_errors + (contest.num_errors if contest else 0),
        correct=correctness.correct,
        greedy=_mean(_share_right(group, correctness) for group in greedy or ()),
        pass_at_1=_mean(_share_right(group, correctness) for group in sampled or ()),
        cons_at_k=_mean(_majority_right(group, correctness) for group in sampled or ()),
        k=len(sampled[0].group.completions) if sampled else 0,
        win_rate=_mean(won),
        compared=len(won),
        judged_by=contest.judged_by if contest else "",
        format=labels.get(correctness.form),
        reward=_mean(score.value for score in scores),
        labels=labels,
        metrics=_means(score.metrics for score in scores),
        length_mean=_mean(float(len(completion.token_ids)) for completion in completions),
        truncated=_mean(float(completion.finish_reason == "length") for completion in completions),
        reflection=_mean(float(count > 0) for each in checks for count in each),
        reflections=_mean(float(count) for each in checks for count in each),
        outcomes=_outcomes(correctness, greedy, sampled, shown, contest, checks),
        samples=tuple(_sample(group, correctness, contest) for group in shown[:NUM_SAMPLES_KEPT]),
    )


def _is_right(score: Score, correctness: Correctness) -> bool:
    return score.breakdown.get(correctness.correct, 0.0) >= 1


def _share_right(group: ScoredGroup, correctness: Correctness) -> float | None:
    return _mean(float(_is_right(score, correctness)) for score in group.scores) if correctness.correct else None


def _majority_right(group: ScoredGroup, correctness: Correctness) -> float | None:
    """1.0 when the most frequent answer of the group is right."""
    if not correctness.votes or not group.scores:
        return None
    return float(votes_of(group, _rights(group, correctness)).majority)


def _rights(group: ScoredGroup, correctness: Correctness) -> list[bool]:
    return [_is_right(score, correctness) for score in group.scores]


def _outcomes(
    correctness: Correctness,
    greedy: Sequence[ScoredGroup] | None,
    sampled: Sequence[ScoredGroup] | None,
    shown: Sequence[ScoredGroup],
    contest: Contest | None,
    checks: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """What is kept of every problem. `greedy`: 0 or 1; `n`, `right`: samples that were scored, and the right ones; `votes`: those for
    the right answer, then those for each other; `majority`: whether the former are most; then means of the completions `shown`."""
    told = bool(correctness.correct)
    columns: dict[str, Sequence[Any]] = {
        "greedy": [_share_right(group, correctness) for group in greedy or ()],
        "n": [len(group.scores) for group in sampled or ()] if told else (),
        "right": [sum(_rights(group, correctness)) for group in sampled or ()] if told else (),
    }
    if correctness.votes:
        votes = [votes_of(group, _rights(group, correctness)) for group in sampled or ()]
        columns["votes"] = [[each.right, *each.others] for each in votes]
        columns["majority"] = [
            int(each.majority) if group.scores else None for each, group in zip(votes, sampled or (), strict=True)
        ]
    columns |= {
        "won": [contest.share_won(group) if contest else None for group in shown],
        "reward": [_mean(group.rewards) for group in shown],
        "tokens": [_mean(float(len(each.token_ids)) for each in group.completions) for group in shown],
        "reflections": [_mean(map(float, counts)) for counts in checks],
    }
    return outcomes_record([group.prompt for group in shown], columns)


def _sample(group: ScoredGroup, correctness: Correctness, contest: Contest | None) -> dict[str, Any]:
    """The first completion of a problem that could be scored, or else the first."""
    shown = next(iter(group.completions), group.group.completions[0])
    told = bool(group.scores) and bool(correctness.correct)
    compared = {}
    if contest and group.prompt.baseline:
        won = contest.outcome(group.prompt.prompt_id, group.scores[0]) if group.scores else None
        compared = {"baseline": group.prompt.baseline.text, "won": won}
    return {
        "id": group.prompt.prompt_id,
        "prompt": group.prompt.text,
        "answer": group.prompt.answer,
        "completion": shown.text,
        "correct": _is_right(group.scores[0], correctness) if told else None,
        **compared,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _means(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every name over the tables that have it."""
    columns: defaultdict[str, list[float]] = defaultdict(list)
    for table in tables:
        for name, value in table.items():
            columns[name].append(value)
    return {name: math.fsum(values) / len(values) for name, values in columns.items()}
