"""Columns inside columns, and prompts that are messages."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from rollout.data.rows import Dialogue
from rollout.data.templates import load_template
from rollout.errors import InputError
from tests.rollout.data.test_sources import error, jsonl, load

USER = {"role": "user", "content": "6*7?"}
SYSTEM = {"role": "system", "content": "Be brief."}
MORE = [USER, {"role": "assistant", "content": "42"}, {"role": "user", "content": "and 6*8?"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", "a.feather"])
def test_a_dotted_name_goes_into_objects(name: str, tmp_path: Path) -> None:
    row = {"extra": {"asked": {"text": "6*7?"}}, "reward_model": {"ground_truth": "42", "style": "rule"}, "n": 1}
    path = tmp_path / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pa.Table.from_pylist([row]), path)
    elif name.endswith("feather"):
        pyarrow.feather.write_feather(pa.Table.from_pylist([row]), path)
    else:
        jsonl(path, row)
    (read,) = load(path, prompt_column="extra.asked.text", answer_column="reward_model.ground_truth")
    assert (read.question, read.answer) == ("6*7?", "42")
    assert json.loads(read.fields["reward_model"]) == row["reward_model"]


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"a.b": "own name", "a": {"b": "inside"}}, "own name"),
        ({"a": {"b.c": "x"}, "a.b": {"d": "y"}}, "x"),
        ({"a.b": {"c": "longer first"}, "a": {"b": {"c": "shorter"}}}, "longer first"),
        ({"a": '{"b": {"c": 75.0}}'}, "75.0"),
        ({"a": {"b": {"c": ["1", "2"]}}}, '["1", "2"]'),
    ],
)
def test_which_column_a_dotted_name_means(row: dict[str, Any], answer: str, tmp_path: Path) -> None:
    column = "a.b" if isinstance(row.get("a.b"), str) else "a.b.c"
    (read,) = load(jsonl(tmp_path / "a.jsonl", {"prompt": "p", **row}), answer_column=column)
    assert read.answer == answer


def test_a_nested_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "p", "reward_model": {"ground_truth": "42", "style": "rule"}})
    said = error(path, answer_column="reward_model.groundtruth")
    assert "no column 'reward_model.groundtruth'; did you mean 'reward_model.ground_truth'?" in said
    assert "columns: prompt, reward_model.ground_truth, reward_model.style" in said
    path = jsonl(tmp_path / "b.jsonl", {"prompt": "p", "reward_model": {"ground_truth": None}})
    assert "column 'reward_model.ground_truth' is null" in error(path, answer_column="reward_model.ground_truth")


@pytest.mark.parametrize(
    "content", ["6*7?", [{"type": "text", "text": "6*"}, {"type": "text", "text": "7?"}]], ids=["text", "parts"]
)
def test_one_turn_of_a_user_is_its_text(content: Any, tmp_path: Path) -> None:
    (row,) = load(jsonl(tmp_path / "a.jsonl", {"prompt": [{"role": "user", "content": content}], "answer": 42}))
    assert (row.question, row.dialogue, row.asked) == ("6*7?", None, "6*7?")
    assert load_template("plain", None).render(row.asked) == "6*7?"


def test_messages_of_parquet_and_their_tools(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(
        pa.Table.from_pylist([{"prompt": [SYSTEM, *MORE], "answer": "48", "tools": json.dumps(TOOLS)}]), path
    )
    (row,) = load(path)
    assert row.question == "6*7?\n\nand 6*8?"
    assert row.dialogue == Dialogue(row_id="s/0", messages=(SYSTEM, *MORE), tools=tuple(TOOLS))
    # Reward functions may read who said what.
    assert json.loads(row.fields.pop("prompt")) == [SYSTEM, *MORE]
    assert not row.fields


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([], "column 'prompt' is [], not a list of messages"),
        ([SYSTEM], "has no message of role 'user'"),
        (MORE[:2], "ends with a turn of the assistant, so nothing is asked"),
        ([{"role": "user"}], "content of role 'user' is empty"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "content is"),
        ([{"from": "human", "value": "x"}], "role is null, not text; it has: from, value"),
    ],
)
def test_what_asks_nothing_is_told(prompt: Any, said: str, tmp_path: Path) -> None:
    assert said in error(jsonl(tmp_path / "a.jsonl", {"prompt": prompt, "answer": 1}))


class Tokenizer:
    chat_template = "…"
    eos_token = "<end>"
    drops = ""

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tools: Any = None, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        shown = "".join(f"<{m['role']}>{m['content']}" for m in messages if m["role"] != self.drops)
        called = f"[{tools[0]['function']['name']}]" if tools else ""
        return called + shown + ("<assistant>" if add_generation_prompt else "")


def dialogue(*messages: dict[str, str], tools: Any = ()) -> Dialogue:
    return Dialogue(row_id="s/7", messages=messages, tools=tuple(tools))


def test_the_chat_template_renders_every_turn_and_the_form_goes_into_the_last_question() -> None:
    template = load_template("chat", Tokenizer()).asking("Do {prompt}")
    assert template.render(dialogue(SYSTEM, *MORE, tools=TOOLS)) == (
        "[add]<system>Be brief.<user>6*7?<assistant>42<user>Do and 6*8?<assistant>"
    )
    assert template.render("1+1?") == "<user>Do 1+1?<assistant>"


def test_a_chat_template_that_drops_a_system_turn_is_refused_by_row() -> None:
    class Drops(Tokenizer):
        drops = "system"

    with pytest.raises(
        InputError, match=r"row s/7: the chat template of the model drops the content of message 1 \(system\)"
    ):
        load_template("chat", Drops()).render(dialogue(SYSTEM, USER))


@pytest.mark.parametrize("name", ["plain", "r1-zero"])
@pytest.mark.parametrize(
    ("asked", "what"),
    [
        (dialogue(SYSTEM, USER), "a turn of role 'system'"),
        (dialogue(*MORE), "a turn of role 'assistant'"),
        (dialogue(USER, USER), "2 turns of the user"),
        (dialogue(USER, tools=TOOLS), "tools"),
    ],
)
def test_other_templates_write_one_question_alone(name: str, asked: Dialogue, what: str) -> None:
    with pytest.raises(InputError) as caught:
        load_template(name, None).render(asked)
    assert str(caught.value) == (
        f'row s/7: the prompt has {what}, but data.template = {name!r} writes one question alone; set it to "chat"'
    )
