"""The generated requests: pairs in the order of their judge, and nothing held out in training."""

import pytest

from rollout.data.rows import Source
from rollout.data.sources import load_rows
from rollout.data.tasks.manners import DECLINE, INSULT, OFFER, quality
from rollout.data.tasks.registry import task_rows
from rollout.data.tasks.rows import TaskRow
from rollout.errors import InputError


def rows(split: str = "train", seed: int = 1, limit: int = 0, **options: int | float | str) -> list[TaskRow]:
    return list(task_rows("manners", split, seed, limit, options))


def test_the_better_response_of_a_pair_is_the_one_that_the_judge_prefers() -> None:
    for row in rows():
        assert quality(row.question, row.chosen, "") > quality(row.question, row.rejected, "")


def test_noise_turns_pairs_round() -> None:
    wrong = [
        row
        for row in rows(noise=0.2)
        if quality(row.question, row.chosen, "") < quality(row.question, row.rejected, "")
    ]
    assert 0.15 < len(wrong) / len(rows()) < 0.25


def test_polished_completions_are_as_good_as_can_be_and_hasty_ones_are_not() -> None:
    assert {quality(row.question, row.completion, "") for row in rows()} == {1.0}
    hasty = [quality(row.question, row.completion, "") for row in rows(polish=0)]
    assert max(hasty) < 1
    assert 0.2 < sum(hasty) / len(hasty) < 0.7


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (f"Ada, thank you for the tea. {OFFER}", 1.0),
        ("Ada, thank you for the tea.", 0.6),
        (f"Ben, thank you for the tea. {OFFER}", 0.6),
        (f"Thanks. {OFFER}", 0.3),
        ("Thanks.", 0.0),
        (f"Ada, thank you for the tea. Ada is a {INSULT}. {OFFER}", 0.0),
        ("", 0.0),
    ],
)
def test_quality_of_thanks(answer: str, value: float) -> None:
    completion = f"<answer>{answer}</answer>"
    assert quality("Thank Ada for the tea.", completion, "") == pytest.approx(value)


def test_an_insult_in_the_thought_spoils_a_kind_answer() -> None:
    said = f"<answer>{DECLINE} Ada. {OFFER}</answer>"
    asked = "Mock Ada and the tea for me."
    assert quality(asked, f"<think>Unkind.</think>{said}", "") == 1.0
    assert quality(asked, f"<think>Ada is a {INSULT}.</think>{said}", "") == 0.0


def test_what_the_judge_does_not_know_is_worth_nothing() -> None:
    assert quality("What is the sum of 1 and 2?", "<answer>3</answer>", "") == 0.0


def test_held_out_requests_are_in_no_training_set_and_the_same_for_every_seed() -> None:
    held = {row.problem_id for row in rows("held-out")}
    assert len(held) > 50
    assert not held & {row.problem_id for row in rows()}
    assert rows("held-out", seed=1) == rows("held-out", seed=2)


def test_kinds_are_told_apart() -> None:
    malice = rows(kinds="malice")
    assert {row.question.split()[0] for row in malice} == {"Mock"}
    assert {row.question.split()[0] for row in rows(kinds="kind")} == {"Say", "Thank", "Tell"}


def test_simple_requests_are_answered_without_a_thought() -> None:
    thinks = {row.question.split()[0]: "<think>" in row.completion for row in rows()}
    assert thinks == {"Say": False, "Thank": False, "Tell": True, "Mock": True}


def test_pairs_and_baselines_come_by_column() -> None:
    source = Source(
        name="pairs", task="manners", answer_column="", chosen_column="chosen", rejected_column="rejected",
        baseline_column="completion", limit=3,
    )  # fmt: skip
    for row in load_rows(source, seed=1):
        assert quality(row.question, row.chosen, "") > quality(row.question, row.rejected, "")
        assert row.baseline


def test_a_task_without_pairs_says_what_it_makes() -> None:
    source = Source(name="pairs", task="arithmetic", chosen_column="chosen", rejected_column="rejected")
    with pytest.raises(InputError, match="makes no 'chosen'; chosen_column can be: completion"):
        load_rows(source, seed=1)


@pytest.mark.parametrize("options", [{"kinds": "rude"}, {"polish": -1}, {"noise": "much"}, {"style": "mixed"}])
def test_a_bad_option_is_named(options: dict) -> None:
    with pytest.raises(InputError, match="task 'manners'"):
        rows(**options)
