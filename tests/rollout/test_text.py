"""The text that is scored is the text that was sampled."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rollout.text import CompletionText

R1 = "<think>six sevens are 42</think><answer>42</answer>"
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
TOOLS = ["<tool_call>", "</tool_call>"]


def tokenizer(special: list[str], plain: list[str]) -> PreTrainedTokenizerFast:
    """Bytes, an end, a padding and a turn's end; `special` as special tokens, `plain` as ordinary ones."""
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=letters, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|pad|>")
    made.add_special_tokens({"additional_special_tokens": ["<|turn|>", *special]}, replace_extra_special_tokens=False)
    made.add_tokens(plain)
    return made


def ids(made: Any, text: str) -> list[int]:
    return list(made(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("text", [R1, '<tool_call>{"name": "f"}</tool_call>', "ü ½\n  x", "a <think> b", ""])
@pytest.mark.parametrize("special", [True, False])
def test_tags_are_text_whether_or_not_they_are_special_tokens(text: str, special: bool) -> None:
    tags = [*TAGS, *TOOLS]
    made = tokenizer(tags if special else [], [] if special else tags)
    assert CompletionText.of(made, {})([*ids(made, text), made.eos_token_id]) == text
    assert CompletionText.of(made, {})(ids(made, text)) == text  # cut at the token limit


@pytest.mark.parametrize("eos", [None, 5, "turn", ["turn", 5]])
def test_only_what_ended_the_completion_is_left_out(eos: Any) -> None:
    made = tokenizer(TAGS, [])
    turn = made.convert_tokens_to_ids("<|turn|>")
    named = (
        [turn if each == "turn" else each for each in eos] if isinstance(eos, list) else turn if eos == "turn" else eos
    )
    text_of = CompletionText.of(made, {"eos_token_id": named})
    ends_a_turn = eos in ("turn", ["turn", 5])
    assert text_of([*ids(made, "42"), turn]) == ("42" if ends_a_turn else "42<|turn|>")
    assert text_of([*ids(made, "42<|end|>7"), made.eos_token_id, made.pad_token_id]) == "42<|end|>7"
    assert text_of([made.eos_token_id]) == ""
    assert text_of([]) == ""
