"""The generated additions: right, distinct, and held out for good."""

import re
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.math.verdict import decide
from rewards.text.format_tags import format_tags
from rollout.data.tasks.arithmetic import arithmetic_rows, chain_of_thought, is_held_out
from rollout.data.tasks.registry import task_rows
from rollout.errors import InputError


def rows(split: str = "train", seed: int = 0, limit: int = 200, **options: int | float | str) -> list[tuple]:
    return list(task_rows("arithmetic", split, seed, limit, options))


def summands(row: tuple) -> tuple[int, int]:
    a, b = re.fullmatch(r"(\d+)\+(\d+)=", row[1]).groups()
    return int(a), int(b)


# --- The split


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_a_held_out_problem_is_in_no_training_set(digits: int, seed: int, other: int) -> None:
    held = {frozenset(summands(row)) for row in rows("held-out", seed, digits=digits)}
    trained = {frozenset(summands(row)) for row in rows("train", other, 1000, digits=digits)}
    assert held
    assert trained
    assert not held & trained  # nor with its summands exchanged


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_split_is_symmetric(a: int, b: int) -> None:
    assert is_held_out(a, b) == is_held_out(b, a)


def test_about_one_in_ten_is_held_out() -> None:
    share = sum(is_held_out(a, b) for a in range(100) for b in range(100)) / 10_000
    assert 0.08 < share < 0.12


def test_both_splits_together_are_all_problems_of_one_digit() -> None:
    problems = [summands(row) for split in ("train", "held-out") for row in rows(split, limit=0, digits=1)]
    assert sorted(problems) == [(a, b) for a in range(1, 10) for b in range(1, 10)]


def test_held_out_is_the_same_for_every_seed_and_training_is_not() -> None:
    assert rows("held-out", seed=1) == rows("held-out", seed=2)
    assert rows("train", seed=1) != rows("train", seed=2)
    assert rows("train", seed=1) == rows("train", seed=1)


def test_the_answers_of_both_splits_overlap_so_that_held_out_is_not_another_task() -> None:
    assert len({row[2] for row in rows("held-out")} & {row[2] for row in rows("train", limit=0)}) > 50


# --- The problems


@pytest.mark.parametrize("digits", [1, 2, 3, 4, 9])
def test_problems_are_distinct_and_have_their_digits(digits: int) -> None:
    found = rows(limit=300, digits=digits)
    assert len({row[0] for row in found}) == len(found) == (300 if digits > 1 else len(rows(limit=0, digits=1)))
    for row in found:
        a, b = summands(row)
        assert row[0] == f"{a}+{b}"
        assert len(str(a)) == len(str(b)) == digits
        assert row[2] == str(a + b)


def test_limit_count_and_default() -> None:
    assert len(rows(limit=7)) == 7
    assert len(rows(limit=0, count=11)) == 11
    assert len(rows(limit=5, count=11)) == 5
    assert len(rows(limit=0)) == sum(not is_held_out(a, b) for a in range(10, 100) for b in range(10, 100))
    assert sum(1 for _ in islice(arithmetic_rows("train", 0, 0, {"digits": 5}), 20_001)) == 20_000


@pytest.mark.parametrize(
    ("a", "b", "chain"),
    [
        (27, 48, "7+8=15,2+4+1=7"),
        (1, 2, "1+2=3"),
        (5, 5, "5+5=10"),
        (99, 99, "9+9=18,9+9+1=19"),
        (105, 205, "5+5=10,0+0+1=1,1+2=3"),
        (999, 1, "9+1=10,9+0+1=10,9+0+1=10"),
    ],
)
def test_the_chain_of_thought_by_hand(a: int, b: int, chain: str) -> None:
    assert chain_of_thought(a, b) == chain


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_every_column_adds_up_and_together_they_are_the_answer(a: int, b: int) -> None:
    columns = chain_of_thought(a, b).split(",")
    sums = []
    for column in columns:
        left, right = column.split("=")
        assert sum(int(term) for term in left.split("+")) == int(right)
        sums.append(int(right))
    carries = ["+1" in column[3:] and column.count("+") == 2 for column in columns]
    assert carries == [False, *(total >= 10 for total in sums[:-1])]
    digits = [total % 10 for total in sums[:-1]]
    value = sum(digit * 10**i for i, digit in enumerate(digits)) + sums[-1] * 10 ** len(digits)
    assert value == a + b


# --- Styles


def test_worked_completions_earn_the_whole_reward() -> None:
    for row in rows():
        assert row[3] == f"<think>{chain_of_thought(*summands(row))}</think><answer>{row[2]}</answer>"
        assert format_tags("", row[3]) == decide(row[3], row[2]).value == 1.0


@pytest.mark.parametrize(("shown", "low", "high"), [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.4, 0.6)])
def test_the_share_that_shows_its_working(shown: float, low: float, high: float) -> None:
    found = rows(limit=1000, shown=shown)
    worked = sum(chain_of_thought(*summands(row)) in row[3] for row in found) / len(found)
    assert low <= worked <= high
    assert all(format_tags("", row[3]) == decide(row[3], row[2]).value == 1.0 for row in found)


def test_mixed_completions_are_right_but_seldom_in_the_form() -> None:
    found = rows(limit=2000, style="mixed")
    form = sum(format_tags("", row[3]) for row in found) / len(found)
    assert 0.08 < form < 0.18
    assert all(row[3].removesuffix("</answer>").endswith(row[2]) for row in found)
    assert any(row[3] == row[2] for row in found)


# --- Mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"digit": 2}, ["no option 'digit'", "count, digits, shown, style"]),
        ({"digits": 0}, ["digits = 0", "from 1 to 9"]),
        ({"digits": 10}, ["digits = 10"]),
        ({"digits": "2"}, ["digits = '2'"]),
        ({"digits": 2.5}, ["digits = 2.5"]),
        ({"style": "fancy"}, ["style = 'fancy'", "'worked'", "'mixed'"]),
        ({"shown": 1.5}, ["shown = 1.5", "between 0 and 1"]),
        ({"shown": "all"}, ["shown = 'all'"]),
        ({"count": 0}, ["count = 0"]),
        ({"count": 1.5}, ["count = 1.5"]),
    ],
)
def test_a_wrong_option_is_an_input_error(options: dict[str, int | float | str], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        rows(**options)
    assert all(word in str(caught.value) for word in ["task 'arithmetic'", *words])


def test_unknown_tasks_and_splits_are_input_errors() -> None:
    with pytest.raises(InputError, match="unknown task 'sums'; tasks: arithmetic"):
        list(task_rows("sums", "train", 0, 1, {}))
    with pytest.raises(InputError, match="no split 'test'; splits: train, held-out"):
        list(task_rows("arithmetic", "test", 0, 1, {}))
