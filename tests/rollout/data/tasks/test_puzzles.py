"""The generated puzzles: right, distinct, in two languages, and held out for good."""

import re
from itertools import islice

import pytest

from rewards.math.verdict import decide
from rewards.text.format_tags import format_tags
from rewards.text.language import language_consistency
from rollout.data.tasks.puzzles import FAMILIES
from rollout.data.tasks.registry import task_rows
from rollout.data.tasks.rows import TaskRow
from rollout.errors import InputError


def rows(split: str = "train", seed: int = 1, limit: int = 300, **options: int | float | str) -> list[TaskRow]:
    return list(task_rows("puzzles", split, seed, limit, options))


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def solved(row: TaskRow) -> int:
    """The answer, from the question alone."""
    question = row.question
    if row.problem_id.startswith("sums"):
        return sum(numbers(question))
    if row.problem_id.startswith("dial"):
        start, *turns = numbers(question)
        back = [word in ("back", "退") for word in re.findall(r"back|\bon\b|进|退", question)]
        return (start + sum(-by if is_back else by for by, is_back in zip(turns, back, strict=True))) % 10
    digits = numbers(question)
    return max(a + b for a, b in zip(digits[::2], digits[1::2], strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_right_and_their_working_leads_to_them(family: str) -> None:
    for row in rows(family=family, steps=4):
        assert row.answer == str(solved(row))
        thought = row.completion.partition("</think>")[0]
        last = numbers(thought)[-1]
        # Of a sum the last column is the leading part of the answer, carry included.
        assert row.answer.startswith(str(last)) if family == "sums" else last == int(row.answer)


def test_worked_completions_have_the_r1_form_and_are_scored_right() -> None:
    for row in rows(steps=4):
        assert format_tags("", row.completion) == 1.0
        assert decide(row.completion, row.answer).value == 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_held_out_puzzle_is_in_no_training_set_in_neither_language(family: str) -> None:
    def keys(split: str, seed: int) -> set[str]:
        return {row.problem_id.rpartition("/")[0] for row in rows(split, seed, 500, family=family)}

    held = keys("held-out", 1)
    assert len(held) > 100
    for seed in (1, 2):
        assert not held & keys("train", seed)


def test_held_out_puzzles_are_the_same_for_every_seed_and_training_is_not() -> None:
    assert rows("held-out", seed=1) == rows("held-out", seed=2)
    assert rows(seed=1) != rows(seed=2)
    assert rows(seed=1) == rows(seed=1)


def test_puzzles_are_distinct_and_the_families_come_in_turn() -> None:
    made = rows(limit=600)
    assert len({row.problem_id.rpartition("/")[0] for row in made}) == 600
    assert [row.problem_id.split()[0] for row in made[:3]] == list(FAMILIES)


def test_a_small_family_ends_instead_of_repeating_itself() -> None:
    made = list(islice(task_rows("puzzles", "held-out", 1, 100_000, {"family": "dial", "steps": 2}), 100_000))
    keys = {row.problem_id.rpartition("/")[0] for row in made}
    assert len(keys) == len(made) < 1_000


def test_half_of_the_questions_are_in_each_language_and_working_follows() -> None:
    made = rows(limit=600)
    english = [row for row in made if row.problem_id.endswith("/en")]
    assert 240 < len(english) < 360
    assert all(row.question.isascii() and row.completion.isascii() for row in english)
    assert {language_consistency(row.question, row.completion)["value"] for row in made} == {1.0}


def test_mixing_puts_steps_in_the_other_language() -> None:
    def consistency(mixing: float) -> float:
        made = rows(limit=300, mixing=mixing)
        return sum(language_consistency(row.question, row.completion)["value"] for row in made) / len(made)

    assert consistency(0.2) == pytest.approx(0.8, abs=0.06)
    assert consistency(0.5) == pytest.approx(0.5, abs=0.06)


def test_mixed_texts_hold_every_form_and_one_in_eight_is_whole() -> None:
    made = rows(limit=2000, style="mixed")
    whole = sum(format_tags("", row.completion) == 1.0 for row in made)
    assert 0.09 < whole / len(made) < 0.16
    at_once = sum(row.completion in (row.answer, f"<answer>{row.answer}</answer>") for row in made)
    assert 0.45 < at_once / len(made) < 0.55
    assert all(row.answer in row.completion for row in made)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"familie": "sums"}, ["no option 'familie'", "did you mean 'family'"]),
        ({"family": "cups"}, ["family = 'cups'", "'sums'"]),
        ({"steps": 1}, ["steps = 1", "from 2 to 6"]),
        ({"steps": True}, ["steps = True"]),
        ({"language": "fr"}, ["language = 'fr'", "'en' or 'zh' or 'both'"]),
        ({"mixing": 2}, ["mixing = 2", "between 0 and 1"]),
        ({"count": 0}, ["count = 0", "from 1"]),
    ],
)
def test_a_bad_option_is_named(options: dict, parts: list[str]) -> None:
    with pytest.raises(InputError) as mistake:
        rows(**options)
    assert all(part in str(mistake.value) for part in parts)
