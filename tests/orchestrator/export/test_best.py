"""Which step is best: the figure that says so, its direction, and what becomes of ties."""

from typing import Any

import pytest

from orchestrator.export.best import best_series
from orchestrator.run.record import StageRecord
from rollout.errors import InputError


def evaluation(step: int, label: str = "during", name: str = "test", **figures: Any) -> dict[str, Any]:
    return {"step": step, "label": label, "set": name, **figures}


def stage(**records: Any) -> StageRecord:
    return StageRecord(name="rl", kind="grpo", planned_steps=30, **records)


def test_the_highest_accuracy_is_best_and_what_was_before_the_stage_is_none_of_its_models() -> None:
    record = stage(evals=[evaluation(0, "before", greedy=0.9), evaluation(10, greedy=0.6), evaluation(20, greedy=0.5)])
    series = best_series(record)
    assert (series.name, series.best([])) == ("test:greedy", 10)
    assert series.show(10) == "60.0 %"


@pytest.mark.parametrize(("kept", "step"), [([20, 30], 20), ([30], 30), ([10, 20, 30], 10), ([5], 10), ([], 10)])
def test_of_equal_steps_the_earliest_that_was_kept_is_best(kept: list[int], step: int) -> None:
    record = stage(evals=[evaluation(each, greedy=0.5) for each in (10, 20, 30)])
    assert best_series(record).best(kept) == step


def test_the_figure_that_was_read_most_often_decides() -> None:
    """DPO answers problems at its end alone, and compares pairs on the way; SFT has its loss on the way."""
    pairs = [evaluation(step, name="pairs", pairs=9, accuracy=0.1 * step, log_loss=1 / step) for step in (1, 2)]
    series = best_series(stage(evals=[evaluation(2, "after", greedy=0.5)], pair_evals=pairs))
    assert (series.name, series.best([])) == ("pairs:accuracy", 2)
    steps = [{"step": step, "held_out_loss/talks": loss} for step, loss in ((0, 0.1), (1, 0.9), (2, 0.7), (3, 0.8))]
    series = best_series(stage(evals=[evaluation(3, "after", greedy=0.5)], steps=steps))
    assert (series.name, series.best([]), series.show(2)) == ("talks:loss", 2, "0.700")


def test_the_user_says_what_decides() -> None:
    evals = [
        evaluation(10, greedy=0.5, **{"pass@1": 0.4}),
        evaluation(20, greedy=0.4, **{"pass@1": 0.6}),
        evaluation(10, name="other", reward=1.5),
        evaluation(20, name="other", reward=0.5),
    ]
    pairs = [
        evaluation(step, name="pairs", pairs=9, accuracy=0.5, log_loss=loss) for step, loss in ((10, 0.3), (20, 0.2))
    ]
    record = stage(evals=evals, pair_evals=pairs)
    found = {by: best_series(record, by).best([]) for by in ("test", "test:pass@1", "other", "pairs:log_loss")}
    assert found == {"test": 10, "test:pass@1": 20, "other": 10, "pairs:log_loss": 20}
    with pytest.raises(
        InputError, match=r"--by test:pass1: no figure of stage rl; did you mean 'test:pass@1'\?; there is: "
    ):
        best_series(record, "test:pass1")


def test_a_stage_that_measured_nothing_has_no_best_step() -> None:
    with pytest.raises(InputError, match="stage rl has recorded no evaluation of its model; name a step, such as @20"):
        best_series(stage(evals=[evaluation(0, "before", greedy=0.5)]))
