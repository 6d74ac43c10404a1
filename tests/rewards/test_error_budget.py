"""What one user of the reward service had scored: means, and when failures are too many."""

import pytest

from rewards.error_budget import ErrorBudget
from rewards.types import Score
from rollout.errors import ServiceError
from tests.factories import prompt


def score(status: str = "ok", **changes: object) -> Score:
    values = {"value": 0.0, "status": status, "breakdown": {}, "seconds": 2.0, **changes}
    return Score(**values)  # type: ignore[arg-type]


def test_metrics_are_means_since_the_last_call() -> None:
    budget = ErrorBudget(0.5)
    budget.add(score(seconds_of={"a": 1.0, "b": 2.0}), 3.0)
    budget.add(score("timeout", seconds_of={"a": 3.0}), 1.0)
    assert budget.metrics() == {
        "rewards/queue_s": 2.0,
        "rewards/score_s": 2.0,
        "rewards/timeout_share": 0.5,
        "rewards/error_share": 0.0,
        "rewards/score_s/a": 2.0,
        "rewards/score_s/b": 2.0,
    }
    assert budget.metrics() == {}


def test_failures_are_too_many_above_the_rate_and_not_within_a_handful() -> None:
    budget = ErrorBudget(0.25)
    budget.add(score("error", error="judge: it is down"), 0.0)
    budget.count(4, 4, prompt("s/1"), "text")
    with pytest.raises(
        ServiceError, match=r"4 of 4 completions .*max_error_rate = 0.25.*it is down; prompt 's/1', completion 'text'"
    ):
        budget.check()
    budget.count(12, 0, prompt("s/2"), "")  # exactly the rate
    budget.check()
    with pytest.raises(ServiceError, match=r"5 of 17 .*last error: the group; prompt 's/3'"):
        budget.count(1, 1, prompt("s/3"), "more", error="the group")


def test_a_rate_of_the_newest_groups_notices_late_what_a_rate_of_all_would_not() -> None:
    budget = ErrorBudget(0.1, window=200)
    for _ in range(100_000):
        budget.count(10, 0, prompt(), "")
    assert 200 <= budget.num_scored < 210
    budget.count(10, 10, prompt(), "text")
    budget.count(10, 10, prompt(), "text")  # 20 of 200: exactly the rate
    with pytest.raises(ServiceError, match="21 of the last 200 completions could not be scored"):
        budget.count(10, 1, prompt(), "text")


def test_failures_leave_the_window_again_and_a_large_group_is_never_cut() -> None:
    budget = ErrorBudget(0.5, window=20)
    budget.count(8, 4, prompt(), "text")
    for _ in range(3):
        budget.count(8, 0, prompt(), "")
    assert (budget.num_errors, budget.num_scored) == (0, 24)
    budget.count(100, 50, prompt(), "text")
    assert (budget.num_errors, budget.num_scored) == (50, 100)
