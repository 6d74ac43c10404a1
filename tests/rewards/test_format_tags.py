"""The R1 form, to the letter."""

import pytest

from rewards.format_tags import TAGS, format_reward

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
    assert format_reward(text) == 1.0


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
    ],
)
def test_not_the_form(text: str) -> None:
    assert format_reward(text) == 0.0


@pytest.mark.parametrize("tag", TAGS)
def test_a_megabyte_of_tags_is_judged_at_once(tag: str) -> None:
    assert format_reward(tag * (1_000_000 // len(tag))) == 0.0
    assert format_reward(f"<think>{'x' * 1_000_000}</think>{' ' * 1_000_000}<answer>1</answer>") == 1.0
