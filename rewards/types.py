"""The types of scoring: group of completions → scored group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rollout.errors import ServiceError
from rollout.types import Completion, Prompt, RolloutGroup


class Unavailable(ServiceError):
    """What scores cannot be had at all just now, whatever is scored: it says nothing about any completion."""


ScoreStatus = Literal["ok", "timeout", "error"]
"""`ok`: scored; `timeout`: the candidate was too slow (a wrong answer); `error`: infrastructure, never a reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec:
    """One reward function of a rubric, as the recipe says it."""

    name: str
    """A built-in name, `path/to/file.py:function` or `package.module:function`."""
    label: str
    """Name of the function in breakdowns and metrics."""
    weight: float = 1.0
    gate: str = ""
    """Label of another function of the rubric; this one counts only where that one's value is 1 or more."""
    group: bool = False
    """The function sees all completions of a group at once."""
    form: str = ""
    """Form of a function of the user's (rewards/processes/forms.py); empty: as its signature says."""
    entry: str = ""
    """Entry that counts of a table that a function of the user's returns; empty: the usual one of its form."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments, JSON-like."""


RubricSpec = Sequence[FunctionSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One completion as a reward function sees it."""

    prompt: str
    completion: str
    answer: str = ""
    """The reference; empty where there is none."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Further columns of the prompt's row; nested values as JSON text."""
    question: str = ""
    """The question of the row, before it was rendered; empty where it is not known."""
    columns: tuple[str, str] = ("prompt", "answer")
    """Names of the columns that question and answer stand in."""
    alone: bool = False
    """Whether it belongs to no group, as a baseline or a line of a file does: functions that see groups see it alone."""
    num_tokens: int | None = None
    """Tokens of the completion, where they are known."""
    finished: bool = True
    """False when the completion was cut at the token limit."""

    @classmethod
    def invented(
        cls, *, prompt: str, answer: str, fields: Mapping[str, str], question: str, columns: tuple[str, str]
    ) -> "Sample":
        """A right answer in the R1 form to a real problem, to try reward functions on."""
        text = f"<think>It is known.</think><answer>{answer}</answer>"
        return cls(prompt=prompt, completion=text, answer=answer, fields=fields, question=question, columns=columns)

    @classmethod
    def of(cls, prompt: Prompt, completion: Completion) -> "Sample":
        return cls(
            prompt=prompt.text,
            completion=completion.text,
            answer=prompt.answer,
            fields=prompt.fields,
            question=prompt.question,
            columns=prompt.columns,
            num_tokens=len(completion.token_ids),
            finished=completion.finish_reason != "length",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionScore:
    """What one reward function says of one completion."""

    value: float = 0.0
    """Value without its weight; meaningless when `status == "error"`."""
    status: ScoreStatus = "ok"
    error: str = ""
    """Why there is no value, when `status == "error"`."""
    unavailable: bool = False
    """Whether that is since what scores cannot be had at all, whatever is scored."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Further figures by name; they are reported and do not count."""
    extracted: str = ""
    """The answer or program that was found in the completion."""
    reason: str = ""
    """Why the value is no better, where the function says."""
    silent: bool = False
    """Whether the function says nothing of this completion, as one of TRL's does with None: it has no part in the reward."""
    resolution: float = 0.0
    """Difference up to which two values mean the same, since the function computes no finer than that; 0: it is exact."""


@dataclass(frozen=True, slots=True)
class GroupScore:
    """What the functions that see a whole group say of one of its completions."""

    values: dict[str, float] = field(default_factory=dict)
    """Unweighted value of each, by label."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Further figures, as `<label>.<name>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a rubric says of one completion."""

    value: float
    """The reward: the weighted sum of the breakdown. Meaningless (0) when `status == "error"`."""
    status: ScoreStatus
    breakdown: Mapping[str, float]
    """Unweighted value of each reward function, by label."""
    seconds: float
    """Wall time that scoring took, without the wait for a worker."""
    error: str = ""
    """Why there is no reward, when `status == "error"`."""
    unavailable: bool = False
    """Whether that is since what scores cannot be had at all, whatever is scored."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Further figures that reward functions gave, as `<label>.<name>`."""
    seconds_of: Mapping[str, float] = field(default_factory=dict)
    """Wall time of each reward function, by label."""
    extracted: str = ""
    """What the first function that looks for an answer or a program has found."""
    reason: str = ""
    """Why the first function that says so gives no more."""
    resolution: float = 0.0
    """Difference up to which two rewards mean the same: what the rubric's models compute no finer."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScoredGroup:
    """A rollout group with one score a completion. Completions that could not be scored have left it."""

    group: RolloutGroup
    completions: tuple[Completion, ...]
    """[G'] the completions that have a reward, G' ≤ G."""
    scores: tuple[Score, ...]
    """[G'] scores of these completions, in the same order; none has status `error`."""
    num_errors: int
    """Completions that left the group because they could not be scored (G − G')."""
    seconds: float
    """Wall time from the last token of the group to its last score."""

    @property
    def prompt(self) -> Prompt:
        return self.group.prompt

    @property
    def rewards(self) -> tuple[float, ...]:
        """[G'] rewards of these completions: the scalars that train."""
        return tuple(score.value for score in self.scores)

    @property
    def resolution(self) -> float:
        """Difference up to which two rewards of the group mean the same."""
        return max((score.resolution for score in self.scores), default=0.0)

    @property
    def has_signal(self) -> bool:
        """False when all rewards mean the same: every group-relative advantage is then zero."""
        return bool(self.scores) and max(self.rewards) - min(self.rewards) > self.resolution
