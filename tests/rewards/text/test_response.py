"""What thought, reply and answer of a completion are, that every reward reads the same, and what was asked."""

import pytest

from rewards.code.program import program_of
from rewards.math.extract import find_answers
from rewards.models.pair_encoding import pair_of
from rewards.text import language, readability
from rewards.text.format_tags import format_tags
from rewards.text.response import question, read_response, without_thought
from rollout.data.templates import R1_ZERO
from rollout.data.thoughts import completion_behind, opens_thought

OPEN = "q<think>\n"
"""A prompt that opens the thought."""
CODE = "```python\ns = '<think>'\n```"

# prompt, completion, thought, reply, answer
CASES: list[tuple[str, str, str, str, str]] = [
    # No thought.
    ("q", "", "", "", ""),
    ("q", " \n", "", " \n", ""),
    ("q", "b", "", "b", "b"),
    ("q", " b \n", "", " b \n", "b"),
    ("q", "<THINK>b", "", "<THINK>b", "<THINK>b"),
    # A thought that is closed, whoever opened it.
    ("q", "<think>a</think>b", "a", "b", "b"),
    ("q", " <think>\na\n</think>\n\nb\n", "a", "\n\nb\n", "b"),
    ("q", "a</think>b", "a", "b", "b"),
    (OPEN, "a</think>b", "a", "b", "b"),
    (OPEN, "<think>a</think>b", "a", "b", "b"),
    ("q", "so <think>a</think>b", "so <think>a", "b", "b"),
    ("q", "<think>a</think>", "a", "", ""),
    ("q", "<think></think>b", "", "b", "b"),
    ("q", "<think> \n</think> ", "", " ", ""),
    (OPEN, "</think>b", "", "b", "b"),
    ("q", "</think>", "", "", ""),
    # Several: the last one that is closed ends the thought.
    ("q", "<think>a</think>b<think>c</think>d", "a</think>b<think>c", "d", "d"),
    ("q", "<think>a<think>b</think>c", "a<think>b", "c", "c"),
    ("q", "<think>a<think>b</think>c</think>d", "a<think>b</think>c", "d", "d"),
    ("q", "<think>a</think>b</think>c", "a</think>b", "c", "c"),
    # A thought that is not closed has no reply behind it; what stands before it counts.
    ("q", "<think>", "", "", ""),
    ("q", "<think>a", "a", "", ""),
    (OPEN, "", "", "", ""),
    (OPEN, "a", "a", "", ""),
    (OPEN, "<think>a", "a", "", ""),
    (OPEN, "a <think> b", "a <think> b", "", ""),
    ("q", "so 5 <think> hm", "hm", "so 5 ", "so 5"),
    ("q", "so 5 <think>", "", "so 5 ", "so 5"),
    ("q", "b<think>c<think>d", "c<think>d", "b", "b"),
    ("q", "<think>a</think>b<think>c", "a\nc", "b", "b"),
    ("q", "<think>a</think><think>c", "a\nc", "", ""),
    (OPEN, "a</think>b<think>c", "a\nc", "b", "b"),
    ("q", "</think>b<think>c", "c", "b", "b"),
    # In a fenced block of the reply it is text, but for a closing one.
    ("q", CODE, "", CODE, CODE),
    ("q", f"<think>a</think>{CODE}", "a", CODE, CODE),
    ("q", f"{CODE}\n<think>c", "c", f"{CODE}\n", CODE),
    ("q", f"b <think> {CODE}", f"{CODE}", "b ", "b"),
    ("q", f"b <think>\n{CODE}", f"{CODE}", "b ", "b"),
    (OPEN, CODE, CODE, "", ""),
    ("q", "```\nb <think> c", "c", "```\nb ", "```\nb"),  # a block that nobody closed protects no thought
    ("q", "```\n<think> hm \\boxed{7}", "hm \\boxed{7}", "```\n", "```"),
    ("q", "`b <think>` c", "` c", "`b ", "`b"),
    ("q", "```\n</think>\n```", "```", "\n```", "```"),
    # The answer: of several the last.
    ("q", "<think>a</think><answer> b </answer>", "a", "<answer> b </answer>", "b"),
    ("q", "<answer>b</answer>", "", "<answer>b</answer>", "b"),
    ("q", "so <answer>b</answer> and more", "", "so <answer>b</answer> and more", "b"),
    ("q", "<answer>b</answer><answer>c</answer>", "", "<answer>b</answer><answer>c</answer>", "c"),
    ("q", "<answer>b<answer>c</answer>", "", "<answer>b<answer>c</answer>", "c"),
    ("q", "<answer>b</answer></answer>", "", "<answer>b</answer></answer>", "b"),
    ("q", "<answer></answer>", "", "<answer></answer>", ""),
    ("q", "b<answer> </answer>", "", "b<answer> </answer>", ""),
    # One that is not closed, or not opened, is none.
    ("q", "<answer>b", "", "<answer>b", "<answer>b"),
    ("q", "b</answer>", "", "b</answer>", "b</answer>"),
    ("q", "</answer>b<answer>", "", "</answer>b<answer>", "</answer>b<answer>"),
    ("q", "<answer>b</answer><answer>c", "", "<answer>b</answer><answer>c", "b"),
    # Thought and answer in disorder.
    ("q", "<think><answer>a</answer></think>b", "<answer>a</answer>", "b", "b"),
    ("q", "<think><answer>a</answer>", "<answer>a</answer>", "", ""),
    ("q", "<answer>b</answer><think>a</think>", "<answer>b</answer><think>a", "", ""),
    ("q", "<answer>b</answer><think>a", "a", "<answer>b</answer>", "b"),
    ("q", "<answer><think>a</think>b</answer>", "<answer><think>a", "b</answer>", "b</answer>"),
    ("q", "<answer>b<think>a</answer>", "a</answer>", "<answer>b", "<answer>b"),
    ("q", "</think><think>a", "a", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "completion", "thought", "reply", "answer"), CASES)
def test_the_parts_of_a_completion(prompt: str, completion: str, thought: str, reply: str, answer: str) -> None:
    found = read_response(prompt, completion)
    assert (found.thought, found.reply, found.answer) == (thought, reply, answer)


@pytest.mark.parametrize(("prompt", "completion", "thought", "reply", "answer"), CASES)
def test_every_reward_reads_the_same_parts(
    prompt: str, completion: str, thought: str, reply: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A reply alone is all reply, so that it shows what a reader has found in the whole completion.
    assert find_answers(completion, prompt=prompt) == find_answers(reply)
    assert find_answers(completion, "last-line", prompt=prompt) == find_answers(reply, "last-line")
    assert program_of(completion, prompt=prompt) == program_of(reply)
    assert pair_of(prompt, completion, "answer")[1] == answer
    seen: list[str] = []
    monkeypatch.setattr(language, "sentences", lambda text: iter(seen.append(text.strip()) or ()))
    monkeypatch.setattr(readability, "split_code", lambda text: seen.append(text) or (text, []))
    language.language_consistency(prompt, completion, target="en")
    readability.readability(prompt, completion, target="en")
    assert seen == [thought or reply.strip()] * 3
    if format_tags(prompt, completion):
        assert thought
        assert reply.strip().removeprefix("<answer>").removesuffix("</answer>").strip() == answer
    if format_tags(prompt, completion, answer_tags=False):
        assert thought
        assert reply.strip() == answer


def test_one_completion_as_math_code_format_and_judges_read_it() -> None:
    cut = "<think>a</think>7<think>8"
    assert find_answers(cut) == ("7",)
    assert program_of(cut) == "7"
    assert pair_of("q", cut, "answer")[1] == "7"
    assert format_tags("q", cut, answer_tags=False, strict=False) == 0.0
    program = f"<think>a</think>\n{CODE}"
    assert program_of(program) == "s = '<think>'"
    assert pair_of("q", program, "answer")[1] == CODE


@pytest.mark.parametrize(
    "piece", ["<think>", "</think>", "<answer>", "</answer>", "```\n", "\n```\n<think>", "~~~", "a\n"]
)
def test_reading_is_linear_and_never_fails(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    for completion in (text, f"{text}<think>", f"<think>{text}</think><answer>{text}</answer>"):
        found = read_response("q", completion)
        assert len(found.thought) + len(found.reply) <= len(completion) + 1
        assert all(answer in found.reply for answer in found.answers[:3])


@pytest.mark.parametrize(
    ("prompt", "given", "whole"),
    [
        ("q", "b", "qb"),
        ("q", "<think>a</think>b", "q<think>a</think>b"),
        ("q<think>\n", "b", "q<think>\n\n</think>\n\nb"),
        ("q<think>", "b", "q<think>\n</think>\n\nb"),
        ("q<think>\n", "a</think>b", "q<think>\na</think>b"),
        ("q<think>\n", "<think>\na\n</think>\n\nb", "q<think>\na\n</think>\n\nb"),
        ("q<think>\n", "\n<think>a</think>b", "q<think>\na</think>b"),
        ("q<think>", "<think>\na</think>b", "q<think>\na</think>b"),
        ("q<think>\n", "<think>a", "q<think>\na"),  # cut in its thought
    ],
)
def test_a_completion_that_no_policy_wrote_opens_and_closes_one_thought(prompt: str, given: str, whole: str) -> None:
    assert prompt + completion_behind(prompt, given) == whole
    if "</think>" not in given and "<think>" not in given:
        assert read_response(prompt, completion_behind(prompt, given)).answer == given


def test_without_its_thought() -> None:
    assert without_thought("q", "<think>a</think>\nb\n") == "b"
    assert without_thought("q<think>\n", "a</think>\nb\n") == "\n</think>\n\nb"
    assert without_thought("q", "so 5 <think> hm") == "so 5"
    assert without_thought("q", "<think>a") == without_thought("q", "<think>a</think><answer> </answer>") == ""


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        (R1_ZERO.replace("{prompt}", "Combien font {2} + 2 ?"), "Combien font {2} + 2 ?"),
        (R1_ZERO.replace("{prompt}", "1+1?") + " 2\n\n" + R1_ZERO.replace("{prompt}", "2+2?"), "2+2?"),
        ("<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "1+1?"),
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
