"""What flows along the second arrow: group of completions → scored group."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rollout.types import Completion, Prompt, RolloutGroup

ScoreStatus = Literal["ok", "timeout", "error"]
"""`ok`: judged; `timeout`: the candidate was too slow (a wrong answer); `error`: infrastructure, never a reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a rubric says of one completion."""

    value: float
    """The reward: the weighted sum of the breakdown. Meaningless (0) when `status == "error"`."""
    status: ScoreStatus
    breakdown: Mapping[str, float]
    """Unweighted value of each reward function, by name."""
    seconds: float
    """Wall time that scoring took."""
    error: str = ""
    """Why there is no reward, when `status == "error"`."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScoredGroup:
    """A rollout group with one score a completion. Completions that could not be scored have left it."""

    group: RolloutGroup
    completions: tuple[Completion, ...]
    """[G'] the completions that have a reward, G' ≤ G."""
    scores: tuple[Score, ...]
    """[G'] their scores, in the same order; none has status `error`."""
    num_errors: int
    """Completions that left the group because they could not be scored (G − G')."""
    seconds: float
    """Wall time that scoring the group took."""

    @property
    def prompt(self) -> Prompt:
        return self.group.prompt

    @property
    def rewards(self) -> tuple[float, ...]:
        """[G'] the scalar that trains."""
        return tuple(score.value for score in self.scores)

    @property
    def has_signal(self) -> bool:
        """False when all rewards are equal: every group-relative advantage is then zero."""
        return len(set(self.rewards)) > 1
