"""Rows and settings that a chat template does not take, found before anything starts."""

import json
from pathlib import Path
from typing import Any

import pytest

from learner.model.small import character_tokenizer
from orchestrator.checks import chat_template
from orchestrator.checks.chat_template import FolderChat
from orchestrator.checks.preflight import preflight
from orchestrator.config.recipe import Recipe
from orchestrator.data.prompts import load_tokenizer
from rollout.data.chat_template import dress
from rollout.data.template_settings import Dress
from tests.orchestrator.factories import fault, model_folder, recipe, write_rows
from tests.rollout.data.test_chat_template import CHATML, HEADED, OWN, THINKS, USER

pytestmark = pytest.mark.usefixtures("laptop")

ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [USER, {"role": "assistant", "content": "42"}, {"role": "user", "content": "And?"}]


def model(folder: Path, template: str, **config: Any) -> str:
    settings = {"chat_template": template, "eos_token": "<|end|>", **config}
    return str(model_folder(folder / "m", tokenizer_config_json=json.dumps(settings).encode()))


def asked(path: str, rows: Path, kind: str = "grpo", source: dict[str, Any] | None = None, **data: Any) -> Recipe:
    return recipe(
        model={"path": path},
        data={"template": "chat", "sources": {"own": {"path": str(rows), **(source or {})}}, **data},
        stages=[{"name": "s", "kind": kind}],
    )


@pytest.mark.parametrize("template", [CHATML, HEADED, THINKS, ALTERNATES])
def test_a_folder_is_rendered_as_its_tokenizer_renders(template: str, tmp_path: Path) -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template, tokenizer.bos_token = template, "<|end|>"
    tokenizer.save_pretrained(tmp_path)
    folder, real = FolderChat(tmp_path), load_tokenizer(str(tmp_path), trust_remote_code=False)
    for messages in ([USER], TALK, OWN if template != ALTERNATES else TALK):
        for ask in (True, False):
            said = {"tokenize": False, "add_generation_prompt": ask}
            assert folder.apply_chat_template(messages, **said) == real.apply_chat_template(messages, **said)
    assert folder.eos_token == real.eos_token
    for each in (folder, real):
        dress(each, Dress(args={"day": "x"})) if template == THINKS else None
    assert folder.chat_template == real.chat_template


def test_a_row_that_the_template_refuses_is_named_by_file_and_line(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "answer": "1"}, {"prompt": [USER, *TALK], "answer": "2"}]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    path = model(tmp_path, ALTERNATES)
    message = fault(asked(path, file))
    assert message.startswith(
        f"data.sources.own: {file}:2: row own/1: the chat template of the model refuses it: roles must alternate"
    )
    write_rows(file, rows[:1])
    assert preflight(asked(path, file)) == []


def test_conversations_and_what_a_template_drops_of_them_are_found_too(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    rows = [{"messages": TALK[:2]}, {"messages": [system, *TALK[:2]]}]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    drops = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    message = fault(asked(model(tmp_path, drops), file, "sft", {"messages_column": "messages"}))
    assert (
        f"{file}:2: row own/1: the chat template of the model drops the content of message 1 (system): 'Be brief.'"
        in message
    )


def test_a_thought_behind_a_closed_one_is_found(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "1"}, {"prompt": "b", "completion": "<think>\nx</think>1"}]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    path, source = model(tmp_path, THINKS), {"completion_column": "completion", "answer_column": ""}
    assert preflight(asked(path, file, "sft", source)) == []
    # Who asks the questions alone learns no completion.
    task = {
        "sources": {"a": {"task": "arithmetic", "limit": 5}},
        "template": "chat",
        "template_args": {"enable_thinking": False},
    }
    held = {"sets": {"b": {"task": "arithmetic", "split": "held-out", "limit": 5}}}
    assert preflight(recipe(model={"path": path}, data=task, eval=held)) == []
    message = fault(asked(path, file, "sft", source, template_args={"enable_thinking": False}))
    assert (
        f"{file}:2: row own/1: the prompt ends with a closed thought, but its completion begins with one of its own"
        in message
    )


def test_a_template_of_the_model_that_is_not_jinja_is_told_with_its_line(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "1"}])
    broken = model(tmp_path, "{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    assert "the chat template of the model refuses it: unexpected '}' (line 2)" in fault(asked(broken, file))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"template_args": {"enable_thinkin": False}}, "data.template_args.enable_thinkin: the model's chat template does not read "
         "'enable_thinkin'; did you mean 'enable_thinking'?"),
        ({"template": "no.jinja"}, "data.template = 'no.jinja': no file is there"),
        ({"few_shot": "no.jsonl"}, "data.few_shot: no file or folder at no.jsonl"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_template(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "1"}])
    assert message in fault(asked(model(tmp_path, THINKS), file, **data))


def test_an_evaluation_question_among_the_examples_is_found(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "1"}])
    held = write_rows(tmp_path / "held.jsonl", [{"prompt": "c ", "answer": "1"}])
    shots = write_rows(tmp_path / "shots.jsonl", [{"prompt": "c", "completion": "1"}])
    path = model(tmp_path, CHATML)
    checked = recipe(
        model={"path": path},
        data={"template": "plain", "sources": {"own": {"path": str(file)}}, "few_shot": str(shots)},
        eval={"sets": {"held": {"path": str(held)}}},
    )
    assert fault(checked) == (
        "eval.sets.held: 1 of its questions are among the examples of data.few_shot, with their answers, such as 'c'\n"
        "remove them from one of the two"
    )
    write_rows(shots, [{"prompt": "b", "completion": "1"}])
    assert preflight(checked) == [
        "data.sources.own: 1 of its questions are among the examples of data.few_shot, with their answers, such as 'b'"
    ]


def test_a_file_is_checked_where_the_model_is_not_here_yet(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "1"}])
    jinja = tmp_path / "my.jinja"
    jinja.write_text("{% for m in messages %}\n{{ m.content }}\n")
    assert f"{jinja}:2: not a chat template (Jinja): " in fault(asked("org/model", file, template=str(jinja)))
    jinja.write_text(CHATML)
    assert "it reads no arguments" in fault(asked("org/model", file, template=str(jinja), template_args={"x": 1}))


def test_a_model_in_the_cache_of_the_hub_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub" / "models--org--model"
    model(cache / "snapshots", ALTERNATES)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("m")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": [USER, *TALK], "answer": "2"}])
    assert "roles must alternate" in fault(asked("org/model", file))


def test_rows_are_rendered_as_long_as_there_is_time_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{n}", "answer": "1"} for n in range(3)])
    monkeypatch.setattr(chat_template, "LONGEST_S", 1e-9)
    notes = preflight(asked(model(tmp_path, CHATML), file))
    assert notes == ["data.sources.own: only its first 1 rows were rendered, which took 1e-09 s"]
