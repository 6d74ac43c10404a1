"""How often a thought says that it checks itself."""

import re
import time

import pytest

from rewards.text.language import LANGUAGES
from rewards.text.reflection import PHRASES, reflections

SHIPPED = [phrase for phrases in PHRASES.values() for phrase in phrases]


@pytest.mark.parametrize(
    ("completion", "count"),
    [
        ("<think>Wait, let me check that again.</think><answer>2</answer>", 2),
        ("<think>WAIT.\nLet  me\nverify: 7 + 5 = 12.</think>12", 2),
        ("<think>I double-checked it; recalculating gives 4.</think>4", 2),
        ("<think>That’s not right.</think>", 1),
        ("<think>等一下，我算错了。</think>", 2),
        ("<think>Das stimmt nicht. Ich überprüfe die Summe.</think>", 2),
        ("<think>Vérifions le calcul.</think>", 1),
        ("<think>Надо проверить сумму.</think>", 1),
        ("<think>다시 확인해 보자.</think>", 1),
        ("<think>検算する。</think>", 1),
        ("<think>7+3=10,2+4+1=7</think><answer>710</answer>", 0),
        ("<think>They waited for a check of 5 dollars, revised and confirmed; the controller verified it.</think>", 0),
        ("<think>It is 4.</think>Wait, let me check.", 0),  # the reply does not count behind a thought
        ("Hold on, that is wrong.", 2),  # without a thought the reply does
        ("<think>hold on", 1),
        ("", 0),
    ],
)
def test_what_counts(completion: str, count: int) -> None:
    assert reflections("", completion, SHIPPED) == count


def test_a_recipe_says_what_is_looked_for() -> None:
    text = "<think>Aha! Wait, this is (2). Recount it, recounted. C++ again.</think>"
    assert reflections("", text, ["aha"]) == 1
    assert reflections("", text, ["recount"]) == 1
    assert reflections("", text, ["recount*"]) == 2
    assert reflections("", text, ["(2)", "c++", "."]) == 5
    assert reflections("", text, []) == 0


def test_of_two_that_overlap_the_longer_counts_once() -> None:
    assert reflections("", "<think>but wait, no</think>", ["wait,", "but wait", "but wait,"]) == 1


def test_every_shipped_list_is_of_a_language_and_finds_its_own_phrases() -> None:
    assert set(PHRASES) <= set(LANGUAGES)
    for phrase in SHIPPED:
        assert reflections("", f"x {phrase.removesuffix('*')} x", SHIPPED) >= 1, phrase


def test_a_long_text_takes_no_longer_than_its_length() -> None:
    texts = ["let me " * 60_000, "wait" * 100_000, "double-" * 50_000 + " " * 100_000, "等" * 200_000]
    began = time.perf_counter()
    for text in texts:
        reflections("", re.sub("^", "<think>", text), SHIPPED)
    assert time.perf_counter() - began < 5
