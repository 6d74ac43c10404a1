"""Responses that are conversations: preference pairs as TRL has them, with a prompt of their own or without."""

from pathlib import Path
from typing import Any

import pytest

from rollout.data.rows import Row
from tests.rollout.data.test_sources import error, jsonl, load

ASK = {"role": "user", "content": "6*7?"}
SYSTEM = {"role": "system", "content": "Be brief."}
GOOD = {"role": "assistant", "content": "42"}
BAD = {"role": "assistant", "content": "43"}
BEFORE = [ASK, GOOD, {"role": "user", "content": "and 6*8?"}]
PAIR = {"answer_column": "", "chosen_column": "chosen", "rejected_column": "rejected"}


def pair(path: Path, row: dict[str, Any], **more: Any) -> Row:
    (read,) = load(jsonl(path / "a.jsonl", row), **PAIR | more)
    return read


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"prompt": "6*7?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"prompt": [ASK], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"prompt": "6*7?", "chosen": [GOOD], "rejected": "43"},
        {"prompt": None, "chosen": [ASK, GOOD], "rejected": [ASK, BAD], "score": 0.3},
        {
            "prompt": "6*7?",
            "chosen": [ASK, {"role": "assistant", "content": [{"type": "text", "text": "42"}]}],
            "rejected": "43",
        },
    ],
)
def test_a_pair_of_conversations_is_its_prompt_and_the_two_last_turns(row: dict[str, Any], tmp_path: Path) -> None:
    read = pair(tmp_path, row)
    assert (read.question, read.chosen, read.rejected, read.dialogue) == ("6*7?", "42", "43", None)
    assert set(read.fields) == set(row) & {"score"}


def test_what_was_said_before_is_the_dialogue_of_both(tmp_path: Path) -> None:
    row = {"chosen": [SYSTEM, *BEFORE, GOOD], "rejected": [SYSTEM, *BEFORE, BAD]}
    read = pair(tmp_path, row)
    assert read.dialogue is not None
    assert read.dialogue.messages == (SYSTEM, *BEFORE)
    assert (read.question, read.chosen, read.rejected) == ("6*7?\n\nand 6*8?", "42", "43")
    # A prompt that is text says the last turn of the user, and the conversation the rest.
    again = pair(tmp_path, {**row, "prompt": "and 6*8?"})
    assert again.dialogue == read.dialogue


def test_a_thought_of_a_response_stands_before_it(tmp_path: Path) -> None:
    thinking = {"role": "assistant", "content": "42", "reasoning_content": "six sevens"}
    assert (
        pair(tmp_path, {"chosen": [ASK, thinking], "rejected": [ASK, BAD]}).chosen
        == "<think>\nsix sevens\n</think>\n\n42"
    )


def test_completions_and_baselines_may_be_conversations_too(tmp_path: Path) -> None:
    row = {"prompt": [SYSTEM, ASK], "completion": [GOOD], "reference": [SYSTEM, ASK, BAD]}
    (read,) = load(
        jsonl(tmp_path / "a.jsonl", row), answer_column="", completion_column="completion", baseline_column="reference"
    )
    assert (read.completion, read.baseline) == ("42", "43")
    assert read.dialogue is not None
    assert read.dialogue.messages == (SYSTEM, ASK)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": [*BEFORE, GOOD], "rejected": [ASK, BAD, BEFORE[2], BAD]}, "'chosen' and 'rejected' differ before their last "
         "messages, and one turn of the assistant is compared: cut both behind the turn in which they part"),
        ({"prompt": "7*7?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, "the prompt in column 'prompt' is \"7*7?\", but "
         "'chosen' answers \"6*7?\""),
        ({"prompt": [SYSTEM, ASK], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, "remove one of the two"),
        ({"chosen": [ASK, GOOD, ASK], "rejected": [ASK, BAD]}, "column 'chosen': its last message is of role 'user'"),
        ({"prompt": "p", "chosen": [{**GOOD, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}], "rejected": [BAD]},
         "column 'chosen': its last message calls tools"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "no column 'prompt'"),
        ({"prompt": "p", "chosen": ["42"], "rejected": [BAD]}, "column 'chosen' is [\"42\"], not text or a number"),
    ],
)  # fmt: skip
def test_conversations_that_are_no_pair(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    said = error(jsonl(tmp_path / "a.jsonl", row), **PAIR)
    assert message in said
    assert "a.jsonl:1" in said


def test_a_prompt_column_that_was_named_is_not_made_up(tmp_path: Path) -> None:
    row = {"question": "6*7?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}
    path = jsonl(tmp_path / "a.jsonl", row)
    assert "no column 'questions'; did you mean 'question'?" in error(path, **PAIR, prompt_column="questions")
    assert pair(tmp_path, row, prompt_column="question").question == "6*7?"
