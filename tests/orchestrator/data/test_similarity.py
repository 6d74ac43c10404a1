"""Near-duplicates and shared passages."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.data.similarity import Passages, near_duplicates, words_of

WORDS = [f"w{i}" for i in range(500)]


def text(seed: int, length: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def changed(base: str, seed: int, count: int) -> str:
    """`count` words replaced, next to each other, so that few shingles change."""
    words = base.split()
    at = random.Random(seed).randrange(len(words) - count)
    return " ".join([*words[:at], *(f"x{seed}{i}" for i in range(count)), *words[at + count :]])


def test_the_later_of_two_alike_is_found() -> None:
    first, other = text(1), text(2)
    assert near_duplicates([first, other, changed(first, 3, 1), first.upper() + "\n"], 0.8) == [
        False,
        False,
        True,
        True,
    ]


def test_what_is_alike_to_a_duplicate_only_is_none() -> None:
    a = text(1, 40)
    b = changed(a, 5, 2)
    found = near_duplicates([a, b, text(9)], 0.99)
    assert found == [False, False, False]


def test_only_the_same_words_at_1_and_short_texts() -> None:
    assert near_duplicates(["2+3=5", "2 + 3 = 5", "2+3=6", "", ""], 1.0) == [False, True, False, False, True]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_pairs_well_above_the_threshold_are_not_missed(seed: int, count: int) -> None:
    base = text(seed, 200)
    assert near_duplicates([base, changed(base, seed + 1, count)], 0.8) == [False, True]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_different_texts_are_kept(seed: int) -> None:
    assert near_duplicates([text(seed + i) for i in range(20)], 0.5) == [False] * 20


def test_a_passage_of_an_evaluation_set_is_found_wherever_it_stands() -> None:
    held_out = text(1, 40)
    passages = Passages([held_out, "What is 2 + 3?"], 13)
    inside = " ".join(held_out.split()[10:23])
    assert passages.occur_in(f"Before, {inside} and after.")
    assert not passages.occur_in(f"Before, {' '.join(held_out.split()[10:22])} and after.")
    assert not passages.occur_in(text(2, 40))


def test_a_short_question_counts_only_as_a_whole() -> None:
    passages = Passages(["What is 2 + 3?"], 13)
    assert passages.occur_in("what is 2+3 ?")
    assert not passages.occur_in("What is 2 + 3 + 4?")
    assert not passages.occur_in("Ann asks: What is 2 + 3? " + text(1, 30))


def test_words_are_compared_without_spacing_and_case() -> None:
    assert words_of("A  b,\tC") == ["a", "b", ",", "c"]
