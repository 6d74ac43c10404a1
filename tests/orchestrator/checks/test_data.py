"""Whether the data can be read and used, each fault with the key of its source; nothing is evaluated on that trains."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks import data as data_check
from orchestrator.checks.preflight import preflight
from orchestrator.config.load import load_recipe
from orchestrator.config.recipe import Recipe
from rollout.errors import InputError
from tests.orchestrator.factories import DOWNLOAD, fault, recipe, write_rows

pytestmark = pytest.mark.usefixtures("laptop")


def from_file(**source: Any) -> Recipe:
    return recipe(data={"sources": {"a": {"path": "rows.jsonl", **source}}})


@pytest.mark.parametrize(
    ("rows", "source", "message"),
    [
        (None, {}, "no file or folder at rows.jsonl"),
        ([{"question": "1+1", "answer": "2"}], {}, "no column 'prompt'"),
        (
            [{"prompt": "1+1", "answer": "2"}, {"prompt": "", "answer": "2"}],
            {},
            "rows.jsonl:2: column 'prompt' is empty",
        ),
        ([{"prompt": "1+1"}], {"answer_column": ""}, "rubric 'default' checks accuracy, but answer_column is empty"),
        ([{"prompt": "1+1", "answer": "2"}], {"answer_pattern": "#### (.+)"}, "finds no answer"),
        ([], {}, "holds no rows"),
    ],
)
def test_a_source_that_cannot_be_used(
    rows: list[dict[str, Any]] | None, source: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if rows is not None:
        write_rows(tmp_path / "rows.jsonl", rows)
    text = fault(from_file(**source))
    assert text.startswith("data.sources.a: ")
    assert message in text


def test_references_that_are_no_answers_are_counted(tmp_path: Path) -> None:
    answers = ["proof", "42", "Proof.", "not found", ["N/A", "?"], ["none", "7"], "\\emptyset", "yes", "x" * 500]
    write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{i}?", "answer": answer} for i, answer in enumerate(answers)])
    (_, note) = preflight(from_file())
    assert note.startswith("data.sources.a: 5 of 9 references are no answers: ")
    for part in (
        "'proof' (1, first rows.jsonl:1)",
        "'not found' (1, first rows.jsonl:4)",
        "'N/A' (1, first rows.jsonl:5)",
    ):
        assert part in note


@pytest.mark.parametrize("answer", ['{"value": 42}', '["a", 1]', '[["a"]]'])
def test_a_reference_that_is_no_answer_by_its_form_is_refused(answer: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": answer}])
    assert f"data.sources.a: rows.jsonl:2: the reference is {answer}, not an answer" in fault(from_file())
    # A function of another kind may read it.
    rewards = {"rubrics": {"default": {"format": 1.0}}}
    assert preflight(recipe(data={"sources": {"a": {"path": "rows.jsonl"}}}, rewards=rewards)) == [DOWNLOAD]


def test_rows_that_weigh_much_are_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_check, "MOST_TEXT", 1000)
    write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{i}?", "answer": "1", "tests": "x" * 300} for i in range(9)])
    (_, note) = preflight(from_file())
    assert note.startswith("data.sources.a: only its first 4 rows were checked")


def test_sft_needs_completions(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "1+1", "answer": "2"}])
    stages = [{"name": "sft", "kind": "sft"}]
    text = fault(recipe(stages=stages, data={"sources": {"a": {"path": "rows.jsonl"}}}))
    assert text.startswith("data.sources.a: sft needs worked completions")


MODEL = {"helpful": {"name": "reward_model", "path": "m"}}


def test_what_is_kept_as_right_needs_something_that_tells(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "hi"}])
    source = {"path": "rows.jsonl", "answer_column": "", "rubric": "general"}

    def sampled(keep: str, rubric: dict[str, Any]) -> Recipe:
        stages = [{"name": "s", "kind": "reject", "reject": {"keep": keep}}]
        return recipe(data={"sources": {"a": source}}, rewards={"rubrics": {"general": rubric}}, stages=stages)

    for keep in ("right", "shortest"):
        text = fault(sampled(keep, MODEL))
        assert f"reject.keep = {keep!r}, but nothing in rubric 'general' says what is right" in text
        preflight(sampled(keep, {**MODEL, "format": {"name": "format"}}))
    preflight(sampled("best", MODEL))


def test_an_evaluation_set_that_is_compared_is_read_as_it_is_asked(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.jsonl", [{"prompt": "hi", "good": "hello", "bad": "what"}])

    def compared(**keys: Any) -> Recipe:
        section = {"path": "t.jsonl", "baseline_column": "good", "rubric": "general", **keys}
        return recipe(
            eval={"sets": {"t": section}}, rewards={"rubrics": {"default": {"accuracy": {}}, "general": MODEL}}
        )

    preflight(compared())
    preflight(compared(chosen_column="good", rejected_column="bad"))
    assert "no column 'old'" in fault(compared(baseline_column="old"))
    assert "checks accuracy, but answer_column is empty" in fault(compared(rubric="default"))
    with pytest.raises(InputError, match="keep_thought = 'x': a generated task has no columns"):
        recipe(data={"sources": {"a": {"task": "arithmetic", "keep_thought": "x"}}})


TALK = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]


def chat(kind: str = "sft", template: str = "chat", **source: Any) -> Recipe:
    data = {"sources": {"a": {"path": "chat.jsonl", "messages_column": "chat", **source}}, "template": template}
    return recipe(stages=[{"name": "s", "kind": kind}], data=data, eval={"sets": {"t": {"path": "test.jsonl"}}})


def test_conversations_are_for_sft_with_the_chat_template(tmp_path: Path) -> None:
    write_rows(tmp_path / "chat.jsonl", [{"chat": TALK}])
    write_rows(tmp_path / "test.jsonl", [{"prompt": "1+2", "answer": "3"}])
    assert preflight(chat()) == [DOWNLOAD]
    assert "conversations are for sft; grpo needs prompts" in fault(chat("grpo"))
    assert "data.template = 'plain'; set it to \"chat\"" in fault(chat(template="plain"))
    assert "holds whole conversations; remove completion_column" in fault(chat(completion_column="x"))


def test_the_length_of_epochs_is_told_where_it_can_be_counted(tmp_path: Path) -> None:
    def told(**sft: Any) -> list[str]:
        sources = {
            "a": {"path": "chat.jsonl", "messages_column": "chat"},
            "b": {"path": "rows.jsonl", "completion_column": "answer", "weight": 0.5},
        }
        data = {"sources": sources, "template": "chat"}
        sft = {"epochs": 2, "batch_size": 10, **sft}
        return [
            note
            for note in preflight(recipe(stages=[{"name": "s", "kind": "sft"}], data=data, sft=sft))
            if "epochs" in note
        ]

    write_rows(tmp_path / "chat.jsonl", [{"chat": [*TALK, *TALK]}] * 9)
    write_rows(tmp_path / "rows.jsonl", [{"prompt": str(i), "answer": "x"} for i in range(7)])
    (note,) = told()
    assert note.startswith("stage s: sft.epochs = 2 are 43 examples, 5 steps")
    assert "are 25 examples, 3 steps" in told(turns="last")[0]
    assert told(epochs=0) == []


def test_whatever_a_user_asks_in_a_conversation_must_not_be_evaluated_on(tmp_path: Path) -> None:
    later = [*TALK, {"role": "user", "content": "1+2"}, {"role": "assistant", "content": "3"}]
    write_rows(tmp_path / "chat.jsonl", [{"chat": later}])
    write_rows(tmp_path / "test.jsonl", [{"prompt": "1+2", "answer": "3"}])
    assert fault(chat()).startswith("eval.sets.t: 1 of its 1 questions occur in data.sources.a, such as '1+2'")


def test_the_stage_is_named_where_stages_differ(tmp_path: Path) -> None:
    text = fault(load_recipe("arithmetic", ['stages.reasoning.data.sources.b.path="none.jsonl"']))
    assert text.startswith("data.sources.b (stage reasoning): no file or folder at none.jsonl")


def test_a_problem_of_an_evaluation_set_must_not_be_trained_on(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{i}+1", "answer": i + 1} for i in range(9)])
    write_rows(tmp_path / "test.jsonl", [{"prompt": f" {i}+1", "answer": i + 1} for i in range(7, 20)])
    checked = recipe(
        data={"sources": {"a": {"path": "rows.jsonl"}}}, eval={"sets": {"held-out": {"path": "test.jsonl"}}}
    )
    text = fault(checked)
    assert text.startswith("eval.sets.held-out: 2 of its 13 questions occur in data.sources.a, such as '7+1'")
    assert preflight(checked, training=False) == [DOWNLOAD]


def test_of_a_large_file_only_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{i}+1", "answer": i} for i in range(20)] + [{"prompt": ""}])
    monkeypatch.setattr(data_check, "LARGE_BYTES", 100)
    monkeypatch.setattr(data_check, "FIRST_ROWS", 5)
    assert any("only its first 5 rows were checked" in note for note in preflight(from_file()))


def test_a_prompt_of_messages_that_the_template_cannot_write_is_found_under_every_stage(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    write_rows(tmp_path / "rows.jsonl", [{"prompt": messages[1:], "answer": "2"}, {"prompt": messages, "answer": "2"}])
    assert fault(from_file()) == (
        "data.sources.a: row a/1: the prompt has a turn of role 'system', but data.template = 'plain' writes one question "
        'alone; set it to "chat"'
    )
    write_rows(tmp_path / "rows.jsonl", [{"prompt": messages[1:], "answer": "2"}])
    preflight(from_file())


def test_rows_of_a_published_set_without_an_answer_or_tests_are_counted(tmp_path: Path) -> None:
    deepscaler = [{"problem": f"{i}?", "answer": answer, "solution": ""} for i, answer in enumerate(["1", "", None])]
    write_rows(tmp_path / "rows.jsonl", deepscaler)
    (_, note) = preflight(from_file(set="deepscaler"))
    assert note.startswith("data.sources.a: 2 of 3 references are no answers: an empty text (2, first rows.jsonl:2)")

    apps = [
        {"question": f"{i}?", "starter_code": "", "input_output": tests}
        for i, tests in enumerate(['{"inputs": ["1"], "outputs": ["1"]}', ""])
    ]
    write_rows(tmp_path / "rows.jsonl", apps)
    (*_, note) = preflight(from_file(set="apps"))
    assert note == (
        "data.sources.a: 1 of 2 rows have no tests (input_output), first rows.jsonl:2; their programs cannot be scored: "
        "remove these rows"
    )
