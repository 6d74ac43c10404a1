"""Copies and loops are seen; honest texts that take a phrase up again are not punished."""

import random

import pytest

from rewards.text.repetition import repetition

WORDS = [f"{a}{b}" for a in ("ba", "du", "ki", "lo", "me", "na", "po", "ra", "si", "tu") for b in "bcdfghklmn"]


def fresh(count: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(count))


THOUGHT = (
    "Let x be the number of apples. Then 2x + 3 = 11, so 2x = 8 and x = 4.\n"
    "Check: 2 * 4 + 3 = 8 + 3 = 11. Right, so the number of apples is 4.\n"
    "Case 1: x = 0, then x + 1 = 1. Case 2: x = 1, then x + 1 = 2. Case 3: x = 2, then x + 1 = 3.\n"
    "Wait, let me check the number of apples again. Wait, let me check the number of pears again.\n"
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "no no no no",
        THOUGHT,
        f"<think>{THOUGHT}</think><answer>The number of apples is 4.</answer>",
        "<think>7+8=15,2+4+1=7</think><answer>75</answer>",
        fresh(2000),
        f"{THOUGHT}\n{'-' * 80}\n{fresh(60)}\n{'=' * 80}",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n",
        f"1/3 = 0.{'3' * 60}…",
        "首先设苹果的数量为四，然后检查一遍，两倍的四加三等于十一，所以苹果的数量是四。",
        "".join(f"Step {i}: {fresh(6, i)}.\n" for i in range(200)),
    ],
)
def test_honest_texts_cost_nothing(text: str) -> None:
    assert repetition("", text)["value"] == 1.0


@pytest.mark.parametrize(
    "piece",
    [
        "!",
        "a",
        "a ",
        "ab",
        "\n",
        " ",
        "0",
        "字",
        "_",
        "!?",
        "x = 1\n",
        "Wait, let me check again. ",
        fresh(50),
        fresh(500),
    ],
    ids=lambda piece: repr(piece[:12]),
)
def test_a_loop_is_worth_nothing(piece: str) -> None:
    found = repetition("", piece * (100_000 // len(piece)))
    assert found["value"] < 0.05
    assert found["loop"] > 0.95


def test_the_share_of_a_copy() -> None:
    text = fresh(1000)
    found = repetition("", f"{text} {text}")
    assert found["repeated"] == pytest.approx((1000 - 19 + 0) / (2000 - 19), abs=0.01)
    assert found["loop"] == 0.0
    assert found["value"] == pytest.approx(1 - (found["repeated"] - 0.1) / 0.9)


def test_a_copy_with_other_text_between_is_seen() -> None:
    text = fresh(300)
    found = repetition("", f"{text} {fresh(300, 1)} {text}")
    assert found["repeated"] == pytest.approx(1 / 3, abs=0.03)


def test_three_times_in_a_row_is_a_loop_and_twice_is_not() -> None:
    once, other = fresh(100), fresh(300, 1)
    assert repetition("", f"{other} {once} {once} {other[::-1]}")["loop"] == 0.0
    found = repetition("", f"{other} {once} {once} {once} {other[::-1]}")
    assert found["loop"] == pytest.approx(300 / 900, abs=0.01)


def test_two_loops_add_up() -> None:
    a, b = fresh(40), fresh(30, 1)
    found = repetition("", f"{fresh(200, 2)} {' '.join([a] * 5)} {fresh(200, 3)} {' '.join([b] * 10)}")
    assert found["loop"] == pytest.approx(500 / 900, abs=0.01)


def test_an_honest_start_that_ends_in_a_loop() -> None:
    assert repetition("", THOUGHT + "So the answer is 4. " * 200)["value"] < 0.15


def test_arguments() -> None:
    text = f"{fresh(100)} {fresh(100)}"
    assert repetition("", text, free=0.6)["value"] == 1.0
    assert repetition("", text, n=200)["repeated"] == 0.0
    assert repetition("", text, n=2, free=0.0)["value"] < repetition("", text, n=50, free=0.0)["value"]
