"""pass@1, cons@k and greedy of groups whose answers are known."""

import pytest

from orchestrator.evaluate import EvalResult, summarize
from rollout.types import RolloutGroup
from tests.factories import completion, prompt, rollout_group

ASKED = prompt(answer="2")


def group(*answers: str | None) -> RolloutGroup:
    """One completion an answer, in the R1 form; None is a completion that answers nothing."""
    texts = ["<think>hm</think>" if a is None else f"<think>hm</think><answer>{a}</answer>" for a in answers]
    return rollout_group([completion(text) for text in texts], asked=ASKED)


def sampled(*groups: RolloutGroup) -> EvalResult:
    return summarize("set", [ASKED] * len(groups), None, groups)


def test_pass_at_1_is_the_mean_over_problems_of_the_share_that_is_right() -> None:
    result = sampled(group("2", "2", "3", "4"), group("2", "2", "2", "2"), group("1", "1", "1", "1"))
    assert result.pass_at_1 == pytest.approx((2 / 4 + 1 + 0) / 3)
    assert (result.problems, result.k, result.greedy) == (3, 4, None)


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (("2", "2", "3"), 1.0),
        (("2", "3", "3"), 0.0),
        (("2", "3"), 1.0),  # a tie: the earliest
        (("3", "2"), 0.0),
        (("3", "2", "2", "3"), 0.0),
        (("2.0", "3", "4/2", "3", "2"), 1.0),  # equal numbers are one vote
        (("x", "X", "2"), 0.0),
        ((None, None, "2"), 1.0),  # no answer is no vote
        ((None, None), 0.0),
        (("", "2"), 1.0),
    ],
)
def test_the_majority_decides(answers: tuple[str | None, ...], right: float) -> None:
    assert sampled(group(*answers)).cons_at_k == right


def test_cons_at_k_is_the_share_of_problems() -> None:
    assert sampled(group("2", "2", "3"), group("3", "3", "2")).cons_at_k == 0.5


def test_greedy_alone() -> None:
    result = summarize("set", [ASKED] * 2, [group("2"), group("3")], None)
    assert (result.greedy, result.pass_at_1, result.cons_at_k, result.k) == (0.5, None, None, 0)
    assert [sample["correct"] for sample in result.samples] == [True, False]


def test_with_both_the_greedy_completions_are_shown() -> None:
    bare = rollout_group([completion("2", token_ids=(7, 1))], asked=ASKED)
    result = summarize("set", [ASKED], [bare], [group("3", "3")])
    assert (result.greedy, result.pass_at_1, result.cons_at_k) == (1.0, 0.0, 0.0)
    assert (result.format, result.length_mean) == (0.0, 2.0)
    assert result.samples == ({"prompt": ASKED.text, "answer": "2", "completion": "2", "correct": True},)


def test_format_and_length_of_samples() -> None:
    mixed = rollout_group(
        [completion("2", token_ids=(7, 1)), completion("<think>a</think><answer>2</answer>", token_ids=(7,) * 6)],
        asked=ASKED,
    )
    result = sampled(mixed)
    assert (result.format, result.length_mean) == (0.5, 4.0)


def test_a_handful_of_samples_is_kept() -> None:
    assert len(sampled(*[group("2")] * 50).samples) == 8


def test_the_record_has_the_names_of_metrics_jsonl() -> None:
    record = sampled(group("2", "3")).record()
    assert record["pass@1"] == 0.5
    assert record["cons@k"] == 1.0
    assert record["greedy"] is None
    assert set(record) == {"set", "problems", "greedy", "pass@1", "cons@k", "k", "format", "length_mean", "samples"}
