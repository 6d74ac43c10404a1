"""Where the thought ends, what the user reads, and what was asked."""

import pytest

from rewards.text.response import answer_part, opens_thought, question, split_thought
from rollout.data.templates import R1_ZERO


@pytest.mark.parametrize(
    ("prompt", "completion", "parts"),
    [
        ("q", "<think>a</think>b", ("a", "b")),
        ("q", " <think>\na\n</think>\n\nb\n", ("a", "b")),
        ("q<think>\n", "a</think>b", ("a", "b")),
        ("q<think>\n", "a, cut", ("a, cut", "")),
        ("q", "<think>a, cut", ("a, cut", "")),
        ("q", "only a reply", ("", "only a reply")),
        ("q", "a</think>b", ("a", "b")),
        ("q", "<think>a</think>b</think>c", ("a</think>b", "c")),
        ("q", "I write <think> here", ("", "I write <think> here")),
        ("q", "<think>a</think>", ("a", "")),
        ("q", "", ("", "")),
    ],
)
def test_thought_and_reply(prompt: str, completion: str, parts: tuple[str, str]) -> None:
    assert split_thought(prompt, completion) == parts


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<think>a</think><answer> b </answer>", "b"),
        ("<think><answer>no</answer></think>b", "b"),
        ("<think>a</think><answer>b</answer><answer>c</answer>", "c"),
        ("<think>a</think><answer>b", "<answer>b"),
        ("<think>a</think>", ""),
        ("<think>a", ""),
        ("b", "b"),
    ],
)
def test_the_final_answer(completion: str, answer: str) -> None:
    assert answer_part("q", completion) == answer


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        (R1_ZERO.replace("{prompt}", "Combien font {2} + 2 ?"), "Combien font {2} + 2 ?"),
        ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWie?\nWarum?<|im_end|>\n<|im_start|>assistant\n", "Wie?\nWarum?"),
        ("<｜begin▁of▁sentence｜><｜User｜>多少？<｜Assistant｜><think>\n", "多少？"),
        (
            "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            "Why?",
        ),
        ("<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n", "Why?"),
        ("<s>[INST] Why? [/INST]", "Why?"),
        ("27+48=", "27+48="),
        ("User: what does | mean in a<b|c>d?", "User: what does | mean in a<b|c>d?"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_question(prompt: str, asked: str) -> None:
    assert question(prompt) == asked


def test_an_open_thought() -> None:
    assert opens_thought("…<think>\n")
    assert not opens_thought("…<think>\n\n</think>\n")
    assert not opens_thought("")
