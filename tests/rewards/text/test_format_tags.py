"""The R1 form, to the letter."""

import itertools
import re

import pytest

from rewards.text.format_tags import format_tags
from rollout.data.thoughts import TAGS

GOOD = "<think>7+8=15</think><answer>15</answer>"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  \n{GOOD}\n\n",
        "<think>a</think>\n\n<answer>b</answer>",
        "<think>\nseveral\n\nlines\n</think><answer>\n15\n</answer>",
        "<think>a < b > c </ think></think><answer>x</answer>",
        "<think><b>bold</b></think><answer><i>15</i></answer>",
        "<think>ü</think><answer>日</answer>",
    ],
)
def test_the_form(text: str) -> None:
    assert format_tags("", text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "15",
        "<think>a</think>",
        "<answer>15</answer>",
        "<think></think><answer>15</answer>",
        "<think> \n</think><answer>15</answer>",
        "<think>a</think><answer></answer>",
        "<think>a</think><answer> </answer>",
        f"so {GOOD}",
        f"{GOOD} done",
        "<think>a</think> so <answer>15</answer>",
        GOOD + GOOD,
        "<think>a<think>b</think><answer>15</answer>",
        "<think>a</think></think><answer>15</answer>",
        "<think>a</think><answer>15</answer></answer>",
        "<answer>15</answer><think>a</think>",
        "<think>a<answer>b</think>15</answer>",
        "<think>a</answer><answer>b</think>",
        "<think>a<answer>b</answer></think>",
        "<THINK>a</THINK><ANSWER>15</ANSWER>",
        "<think>a</think><answer>15",
        "<think>a<answer>15</answer>",
        "think>a</think><answer>15</answer>",
        "<think>\u200b\u2060</think><answer>15</answer>",
        "<think>a</think><answer>\u3164\u2800\0</answer>",
        "<think>a</think><answer><THINK>b</THINK>15</answer>",
        "<think>a</think><answer>15</answer></Answer>",
    ],
)
def test_not_the_form(text: str) -> None:
    assert format_tags("", text) == 0.0


@pytest.mark.parametrize("tag", TAGS)
def test_a_megabyte_of_tags_is_judged_at_once(tag: str) -> None:
    assert format_tags("", tag * (1_000_000 // len(tag))) == 0.0
    assert format_tags("", f"<think>{'x' * 1_000_000}</think>{' ' * 1_000_000}<answer>1</answer>") == 1.0


# --- Every sequence of tags and text, against the form said as a pattern

FORMS = [
    (True, True, r"<think>x+</think><answer>x+</answer>"),
    (False, True, r"x*<think>x+</think>x*<answer>x+</answer>x*"),
    (True, False, r"<think>x+</think>x+"),
    (False, False, r"x*<think>x+</think>x+"),
]


@pytest.mark.parametrize(("strict", "answer_tags", "form"), FORMS)
def test_no_other_order_of_tags_passes(strict: bool, answer_tags: bool, form: str) -> None:
    passed = set()
    for length in range(7):
        for parts in itertools.product([*TAGS, "x"], repeat=length):
            text = "".join(parts)
            found = format_tags("", text, strict=strict, answer_tags=answer_tags)
            assert found == float(re.fullmatch(form, text) is not None), text
            if found:
                passed.add(text)
    assert len(passed) >= 1


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        (GOOD, 1, 1),
        ("Let me see. <think>a</think><answer>b</answer>", 0, 1),
        ("<think>a</think> So: <answer>b</answer>", 0, 1),
        ("<think>a</think><answer>b</answer> I hope that helps.", 0, 1),
        ("<think>a</think> So: b", 0, 0),
        ("<think>a <think>b</think> c</think><answer>b</answer>", 0, 0),
        ("<think>a</think><think>b</think><answer>c</answer>", 0, 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0, 0),
        ("<think>I write <answer>b</answer> now</think><answer>b</answer>", 0, 0),
        ("<answer>b</answer><think>a</think>", 0, 0),
        ("<think>a</think><answer> </answer>", 0, 0),
        ("<think>\t</think><answer>b</answer>", 0, 0),
        ("<Think>a</Think><answer>b</answer>", 0, 0),
    ],
)
def test_what_lenient_forgives(text: str, strict: float, lenient: float) -> None:
    assert format_tags("q", text) == strict
    assert format_tags("q", text, strict=False) == lenient


@pytest.mark.parametrize(
    ("prompt", "text", "value"),
    [
        ("<|User|>q<|Assistant|><think>\n", "a</think><answer>b</answer>", 1),
        ("<|User|>q<|Assistant|><think>", "\na\n</think>\n\n<answer>b</answer>", 1),
        ("<think>\n", "<think>a</think><answer>b</answer>", 0),
        ("<think>\n", "</think><answer>b</answer>", 0),
        ("<think>\n", "a<answer>b</answer>", 0),
        ("<think>\n\n</think>\n\n", "<answer>b</answer>", 0),
        ("within <think> </think> tags, please:", "<think>a</think><answer>b</answer>", 1),
        ("within <think> </think> tags, please:", "a</think><answer>b</answer>", 0),
    ],
)
def test_a_prompt_that_has_opened_the_thought(prompt: str, text: str, value: float) -> None:
    assert format_tags(prompt, text) == value
    assert format_tags(prompt, text, strict=False) == value


def test_whether_the_thought_is_open_can_be_said() -> None:
    assert format_tags("q", "a</think><answer>b</answer>", opened=True) == 1.0
    assert format_tags("<think>", "<think>a</think><answer>b</answer>", opened=False) == 1.0


def test_chat_models_answer_without_tags() -> None:
    assert format_tags("<think>\n", "a</think>\n\nb", answer_tags=False) == 1.0
    assert format_tags("", "<think>a</think>b", answer_tags=False) == 1.0
    assert format_tags("", "<think>a</think> \n", answer_tags=False) == 0.0
    assert format_tags("", "<think>a</think><answer>b</answer>", answer_tags=False) == 0.0
    assert format_tags("", "so <think>a</think>b", answer_tags=False) == 0.0
