"""The error budget of one user of the reward service (the training of a stage, one evaluation), and figures of its scores."""

from collections import Counter, defaultdict, deque

from rewards.types import Score
from rollout.errors import ServiceError
from rollout.types import Prompt

LEAST = 8
"""Completions before failures are called too many: a rate over a handful says little."""
WINDOW = 200
"""Completions of which the rate is, at least, where a run goes on and on: of all since its begin it would notice nothing late."""


class ErrorBudget:
    """Counts scored completions, and says when too many could not be scored."""

    def __init__(self, max_error_rate: float, window: int = 0) -> None:
        """
        Args:
            max_error_rate: share of completions that may fail to be scored.
            window: of how many completions that is a share: of the newest groups that have at least so many together; 0: of all.
        """
        self.max_error_rate = max_error_rate
        self.window = window
        self._groups: deque[tuple[int, int]] = deque()
        self.num_scored = 0
        """Completions of the window so far, errors included."""
        self.num_errors = 0
        """Completions of the window that could not be scored."""
        self._error = "none"
        self._sample = ""
        self._figures = _Figures()

    def add(self, score: Score, waited_s: float) -> None:
        """One score, when it is there."""
        self._figures.add(score, waited_s)
        if score.status == "error":
            self._error = score.error

    def count(self, num_scored: int, num_errors: int, prompt: Prompt, text: str, error: str = "") -> None:
        """One group, when it is complete.

        Args:
            text: a completion that could not be scored, where there is one.
            error: why, where it was the group that could not; empty: as its score says.

        Raises:
            ServiceError: too many completions could not be scored.
        """
        self.num_scored += num_scored
        self.num_errors += num_errors
        if self.window:
            self._groups.append((num_scored, num_errors))
            while self.num_scored - self._groups[0][0] >= self.window:
                scored, errors = self._groups.popleft()
                self.num_scored -= scored
                self.num_errors -= errors
        self._error = error or self._error
        if num_errors:
            self._sample = f"prompt {prompt.prompt_id!r}, completion {text[:200]!r}"
            if self.num_scored >= LEAST:
                self.check()

    def check(self) -> None:
        """Raises ServiceError when too many of the completions of the window, however few, could not be scored."""
        if self.num_errors > self.max_error_rate * self.num_scored:
            raise ServiceError(
                f"{self.num_errors} of {'the last ' * (self.window > 0)}{self.num_scored} completions could not be scored "
                f"(rewards.max_error_rate = {self.max_error_rate}); last error: {self._error}; {self._sample}"
            )

    def metrics(self) -> dict[str, float]:
        """Figures since the last call: mean wait and time by function in seconds, shares of failures."""
        figures, self._figures = self._figures, _Figures()
        return figures.means()


class _Figures:
    """Sums over scored completions."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()

    def add(self, score: Score, waited_s: float) -> None:
        self._count += 1
        self._sums["queue_s"] += max(0.0, waited_s)
        self._sums["score_s"] += score.seconds
        self._sums["timeout_share"] += score.status == "timeout"
        self._sums["error_share"] += score.status == "error"
        for label, seconds in score.seconds_of.items():
            self._sums[f"score_s/{label}"] += seconds
            self._counts[f"score_s/{label}"] += 1

    def means(self) -> dict[str, float]:
        return {
            f"rewards/{name}": value / (self._counts.get(name) or max(1, self._count))
            for name, value in self._sums.items()
        }
