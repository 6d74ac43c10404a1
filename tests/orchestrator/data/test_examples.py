"""Worked examples become rows to train on, and steps that are a function of the recipe and their number."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from learner.model.small import bpe_tokenizer, character_tokenizer
from orchestrator.config.recipe import Stage
from orchestrator.data.examples import Examples, example_stream, load_examples, num_steps, take_step
from rollout.errors import InputError
from tests.orchestrator.factories import recipe, write_rows

TALK = [
    {"role": "user", "content": "2+3"},
    {"role": "assistant", "content": "5"},
    {"role": "user", "content": "4+4"},
    {"role": "assistant", "content": "8"},
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stage_of(sources: dict[str, dict[str, Any]], **sections: Any) -> Stage:
    data = {"sources": sources, "template": sections.pop("template", "plain")}
    return recipe(data=data, stages=[{"name": "s", "kind": "sft"}], **sections).stages[0]


def worked(name: str, count: int, **keys: Any) -> dict[str, Any]:
    """A source of `count` rows whose texts tell which they are."""
    write_rows(Path(f"{name}.jsonl"), [{"q": f"{name}{i}=", "a": f"{name}!{i}"} for i in range(count)])
    return {"path": f"{name}.jsonl", "prompt_column": "q", "answer_column": "", "completion_column": "a", **keys}


def load(stage: Stage, tokenizer: Any = None) -> Examples:
    return load_examples(stage.data.sources, stage, tokenizer or character_tokenizer(), 1)


def texts(examples: Examples, tokenizer: Any, source: str = "a") -> list[tuple[str, str]]:
    return [
        (tokenizer.decode(row.token_ids[: row.first_target]), tokenizer.decode(row.token_ids[row.first_target :]))
        for row in examples.sequences[source]
    ]


def steps_of(stage: Stage, seed: int = 1, skip: int = 0) -> list[list[str]]:
    """The texts of every step's examples."""
    tokenizer = character_tokenizer()
    stream = example_stream(load(stage), stage, seed)
    return [
        [tokenizer.decode(row.token_ids).split("=")[0] for row in take_step(step, stream, stage)]
        for step in range(num_steps(stream, stage))
    ]


# --- Rows


@pytest.mark.parametrize(("mask", "first"), [(True, "a0="), (False, "a")])
def test_prompt_and_completion_end_with_the_end_of_sequence(mask: bool, first: str) -> None:
    stage = stage_of({"a": worked("a", 2)}, sft={"mask_prompt": mask})
    tokenizer = character_tokenizer()
    (prompt, rest), _ = texts(load(stage), tokenizer)
    assert (prompt, prompt + rest) == (first, f"a0=a!0{tokenizer.eos_token}")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [("User: 2+3\nAssistant: ", "5"), ("User: 2+3\nAssistant: 5\nUser: 4+4\nAssistant: ", "8")]),
        ({"turns": "last"}, [("User: 2+3\nAssistant: 5\nUser: 4+4\nAssistant: ", "8")]),
        ({"mask_prompt": False}, [("U", "ser: 2+3\nAssistant: 5\nUser: 4+4\nAssistant: 8")]),
    ],
)
def test_a_conversation_is_one_example_a_turn(
    suffix: str, settings: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    if suffix == "jsonl":
        write_rows(Path("a.jsonl"), [{"chat": TALK, "id": 3}])
    else:
        pq.write_table(pa.Table.from_pylist([{"chat": [*TALK[:3], {**TALK[3], "name": "me"}]}]), "a.parquet")
    tokenizer = bpe_tokenizer(iter(["User"]), 262)
    stage = stage_of({"a": {"path": f"a.{suffix}", "messages_column": "chat"}}, template="chat", sft=settings)
    found = texts(load(stage, tokenizer), tokenizer)
    assert found == [(prompt, reply + tokenizer.eos_token) for prompt, reply in expected]


def test_a_completion_under_a_chat_template_is_a_turn_of_a_conversation() -> None:
    """Else a mixture of both would teach two ends."""
    tokenizer = bpe_tokenizer(iter(["User"]), 300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|close|>"]})
    tokenizer.chat_template = tokenizer.chat_template.replace("message.content }}", "message.content }}<|close|>")
    write_rows(Path("b.jsonl"), [{"chat": [TALK[0], TALK[1]]}])
    write_rows(Path("a.jsonl"), [{"q": "2+3", "a": "5"}])
    rows = {"path": "a.jsonl", "prompt_column": "q", "answer_column": "", "completion_column": "a"}
    stage = stage_of({"a": rows, "b": {"path": "b.jsonl", "messages_column": "chat"}}, template="chat")
    examples = load(stage, tokenizer)
    expected = [("User: 2+3<|close|>\nAssistant: ", f"5<|close|>{tokenizer.eos_token}")]
    assert texts(examples, tokenizer, "a") == texts(examples, tokenizer, "b") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hello", "column 'chat' is \"hello\", not a list of messages"),
        ([], "is [], not a list of messages"),
        (["hello"], "message 1 of column 'chat' is \"hello\", not an object with role and content"),
        ([{"from": "human", "value": "x"}], "message 1 of column 'chat': role is null, not text; it has: from, value"),
        (
            [TALK[0], {"role": "assistant", "content": None}],
            "message 2 of column 'chat': the content of role 'assistant'",
        ),
        (
            [TALK[0], {"role": "assistant", "content": " "}],
            "message 2 of column 'chat': the content of role 'assistant'",
        ),
        ([TALK[0]], "column 'chat' has no message of role 'assistant'"),
        ([TALK[1]], "column 'chat' has no message of role 'user'"),
    ],
)
def test_a_malformed_conversation_is_named_by_its_line(value: Any, message: str) -> None:
    write_rows(Path("a.jsonl"), [{"chat": TALK}, {"chat": value}])
    stage = stage_of({"a": {"path": "a.jsonl", "messages_column": "chat"}}, template="chat")
    with pytest.raises(InputError) as caught:
        load(stage, bpe_tokenizer(iter(["User"]), 300))
    assert str(caught.value).startswith("a.jsonl:2: ")
    assert message in str(caught.value)


def test_what_is_too_long_is_reported_and_left_out_never_cut() -> None:
    source = worked("a", 12)
    data = {"sources": {"a": source}, "max_prompt_tokens": 2}
    raw = {"data": data, "rollout": {"max_tokens": 4}, "stages": [{"name": "s", "kind": "sft"}]}
    stage = recipe(model={"path": "org/model", "max_tokens": 8}, **raw).stages[0]
    examples = load(stage)
    # a9=a!9 and its end are 7 tokens, a10=a!10 and its end 9.
    assert len(examples.sequences["a"]) == 10
    assert examples.notes() == [
        "a: 2 of 12 examples are longer than model.max_tokens = 8 and were skipped (first: a/10, 9 tokens)"
    ]
    tight = stage.model_copy(update={"model": stage.model.model_copy(update={"max_tokens": 6})})
    with pytest.raises(InputError, match=r"all 12 examples of 'a' are longer than model\.max_tokens = 6; .* has 7"):
        load(tight)


# --- Steps


def test_epochs_hold_every_example_so_often_in_steps_of_one_size() -> None:
    stage = stage_of({"a": worked("a", 7), "b": worked("b", 10)}, sft={"epochs": 3, "batch_size": 4})
    steps = steps_of(stage)
    assert len(steps) == 13
    assert {len(step) for step in steps} == {3, 4}
    assert set(Counter(text for step in steps for text in step).values()) == {3}
    assert len({text for step in steps for text in step}) == 17


def test_with_steps_the_weights_mix_and_nothing_repeats_before_its_source_is_through() -> None:
    sources = {"a": worked("a", 5, weight=3), "b": worked("b", 200)}
    steps = steps_of(stage_of(sources, loop={"steps": 40}, sft={"batch_size": 10}))
    taken = [text for step in steps for text in step]
    assert {len(step) for step in steps} == {10}
    # Standard deviation √(400 · ¾ · ¼) ≈ 9.
    assert 264 <= sum(text[0] == "a" for text in taken) <= 336
    own = [text for text in taken if text[0] == "a"]
    for first in range(0, len(own) - 5, 5):
        assert len(set(own[first : first + 5])) == 5


@pytest.mark.parametrize(
    "length", [{"sft": {"epochs": 2, "batch_size": 3}}, {"loop": {"steps": 9}, "sft": {"batch_size": 3}}]
)
def test_a_resumed_stage_goes_on_with_the_same_examples(length: dict[str, Any]) -> None:
    stage = stage_of({"a": worked("a", 7), "b": worked("b", 6)}, **length)
    whole = example_stream(load(stage), stage, 5)
    expected = [take_step(step, whole, stage) for step in range(9)]
    first = example_stream(load(stage), stage, 5)
    [take_step(step, first, stage) for step in range(4)]
    state = json.loads(json.dumps(first.state()))
    resumed = example_stream(load(stage), stage, 5)
    resumed.restore(state)
    for step in range(4, 9):
        assert [row.token_ids.tolist() for row in take_step(step, resumed, stage)] == [
            row.token_ids.tolist() for row in expected[step]
        ]
    with pytest.raises(AssertionError, match="step 2 begins with"):
        take_step(2, resumed, stage)


def test_a_resume_with_other_examples_says_so() -> None:
    stage = stage_of({"a": worked("a", 7)}, sft={"epochs": 2})
    state = example_stream(load(stage), stage, 5).state()
    worked("a", 8)
    with pytest.raises(InputError, match=r"the examples of data source .a. .* changed since the run was started"):
        example_stream(load(stage), stage, 5).restore(state)
