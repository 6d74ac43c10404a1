"""Where a response states its final answer."""

import pytest

from rewards.math.extract import final_answer, find_answers
from rewards.math.verdict import decide


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>1+1</think><answer>2</answer>", "2"),
        ("<answer> 2\n</answer>", "2"),
        ("<answer>2</answer> and more", "2"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        ("<think><answer>1</answer></think><answer>2</answer>", "2"),
        ("<think>so \\boxed{1}, #### 1</think>2", "2"),
        ("<answer>two\nlines</answer>", "two\nlines"),
        ("<answer>2</answer> \\boxed{3} #### 4", "3"),
        ("so \\boxed{3} #### 4", "3"),
        ("\\boxed{1} or \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}"),
        ("\\boxed{a{b{c}}d}", "a{b{c}}d"),
        ("work\n#### 1,000", "1,000"),
        ("work\n#### 1\nthen\n#### 2\nend", "2"),
        ("####5", "5"),
        ("42", "42"),
    ],
)
def test_the_answer(completion: str, expected: str) -> None:
    assert final_answer(completion) == expected


@pytest.mark.parametrize(
    "completion",
    ["", " \n\t", "<answer></answer>", "<answer> </answer>", "\\boxed{}", "####", "#### \n", "<think>5</think>", "</think>",
     "<think>5", "some\nlines\n5", "5 " * 100],
)  # fmt: skip
def test_no_answer(completion: str) -> None:
    assert final_answer(completion) is None
    assert decide(completion, "5").status == "no_answer"


def test_an_empty_answer_is_not_replaced_by_an_earlier_or_weaker_one() -> None:
    assert final_answer("5 <answer></answer>") is None
    assert final_answer("<answer>5</answer><answer></answer>") is None


def test_a_prompt_that_opens_the_thought() -> None:
    assert find_answers("so \\boxed{5}", prompt="<think>") == ()
    assert find_answers("so \\boxed{5}</think>\\boxed{6}", prompt="<think>") == ("6",)


def test_patterns() -> None:
    text = "Q: 1\nA: 5\nQ: 2\nA: 6 pears\n"
    assert final_answer(text) is None
    assert find_answers(text, "A:") == ("5", "6 pears")
    assert find_answers(text, r"A: (\d+)") == ("6",)
    assert final_answer(text, "last-line") == "A: 6 pears"
    assert final_answer("\\boxed{1} A: 2", "A:") == "1"
