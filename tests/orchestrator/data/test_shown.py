"""`rayzero check --show-prompts`: what the model will read, what it is trained on, and the tokens where parts meet."""

from pathlib import Path
from typing import Any

import pytest

from learner.model.small import character_tokenizer
from orchestrator.data.shown import shown
from tests.orchestrator.factories import recipe, write_rows

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant><think>\n{% endif %}"


@pytest.fixture
def model(tmp_path: Path) -> str:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def lines(model: str, kind: str, source: dict[str, Any], **data: Any) -> list[str]:
    asked = recipe(
        model={"path": model, "max_tokens": 600},
        data={"sources": {"own": source}, **data},
        stages=[{"name": "s", "kind": kind}],
    )
    legend, said, *found = shown(asked, 1)
    assert legend.startswith("│ is read, ┃ is trained on")
    assert said.startswith('stage s: data.template = "')
    return found


def test_a_prompt_is_shown_as_the_template_writes_it_with_its_first_and_last_tokens(tmp_path: Path, model: str) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "1+1?", "answer": "2"}, {"prompt": "é", "answer": "1"}])
    found = lines(model, "grpo", {"path": str(file)}, template="chat")
    assert found[0].startswith("stage s, source own, own/")
    assert found[0].endswith("tokens, rubric default, answer '2'")
    assert found[1:4] == ["  │ <user>1+1?", "  │ <assistant><think>", "  │ "]
    assert found[4].startswith("  begins  29 '<'")
    assert found[5].endswith(r"258 '<think>'  200 '\n'   the model goes on here")
    assert len(found) == 6


def test_an_example_shows_where_training_begins(tmp_path: Path, model: str) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "1+1?", "answer": "2", "worked": "It is 2."}])
    found = lines(model, "sft", {"path": str(file), "completion_column": "worked"})
    assert found[:3] == [
        "stage s, source own, example 1 of 1: 4 tokens are read, 9 train",
        "  │ 1+1?",
        "  ┃ It is 2.<|end|>",
    ]
    assert "32 '?'   ┃ trains from here:   42 'I'" in found[4]
    assert found[5].endswith("1 '<|end|>'")


def test_both_responses_of_a_pair_are_shown(tmp_path: Path, model: str) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "1+1?", "good": "2", "bad": "3"}])
    found = lines(model, "dpo", {"path": str(file), "chosen_column": "good", "rejected_column": "bad"})
    assert [line for line in found if line.startswith("  ┃")] == ["  ┃ 2<|end|>", "  ┃ 3<|end|>"]
    assert [line.split(": ")[0] for line in found if line.startswith("stage")] == [
        "stage s, source own, pair 1 of 1, the better one",
        "stage s, source own, pair 1 of 1, the worse one",
    ]


def test_a_pair_of_a_reward_model_is_shown_as_it_is_scored(tmp_path: Path, model: str) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "1+1?", "good": "<think>x</think>2", "bad": "3"}])
    source = {"path": str(file), "chosen_column": "good", "rejected_column": "bad"}
    (tmp_path / "my.jinja").write_text(QWEN)
    found = lines(model, "reward_model", source, template=str(tmp_path / "my.jinja"), system="S")
    assert [line for line in found if line.startswith("  │ ") or "scored" in line][:9] == [
        "stage s, source own, pair 1 of 1, the better one: 97 tokens are scored",
        "  │ <|im_start|>system",
        "  │ S<|im_end|>",
        "  │ <|im_start|>user",
        "  │ 1+1?<|im_end|>",
        "  │ <|im_start|>assistant",
        "  │ 2<|im_end|>",
        "  │ ",
        "stage s, source own, pair 1 of 1, the worse one: 97 tokens are scored",
    ]
    assert found[-1].endswith(r"200 '\n'   the score is read here")


def test_a_part_of_a_character_is_shown_as_its_token(tmp_path: Path, model: str) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "é", "answer": "1"}])
    found = lines(model, "grpo", {"path": str(file)})
    assert "\ufffd" not in "".join(found)
    assert found[1] == "  │ é"


def test_a_tokenizer_that_the_run_will_make_is_said() -> None:
    asked = recipe(model={"build": {"tokenizer": "bpe", "vocab_size": 400}})
    assert list(shown(asked, 2))[1:] == [
        "stage rl: its tokenizer is made when the run begins; model.path names one that is there"
    ]


QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def test_everything_that_a_recipe_says_of_a_template_is_shown_in_training_and_in_evaluation(
    tmp_path: Path, model: str
) -> None:
    (tmp_path / "qwen.jinja").write_text(QWEN)
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "1+1?", "answer": "2"}])
    shots = write_rows(tmp_path / "shots.jsonl", [{"prompt": "0+1?", "completion": "1"}])
    said = {
        "template": str(tmp_path / "qwen.jinja"),
        "system": "Be brief.",
        "template_args": {"enable_thinking": False},
        "few_shot": str(shots),
    }
    asked = recipe(
        model={"path": model, "max_tokens": 600},
        data={"sources": {"own": {"path": str(rows)}}, **said},
        eval={"sets": {"held": {"path": str(rows)}}},
        stages=[{"name": "s", "kind": "grpo"}],
    )
    _, settings, *found = shown(asked, 1)
    assert settings == (
        f'stage s: data.template = "{tmp_path}/qwen.jinja", data.system = "Be brief.", '
        f'data.template_args.enable_thinking = false, data.few_shot.path = "{shots}"'
    )
    read = [line.removeprefix("  │ ") for line in found if line.startswith("  │")]
    whole = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n0+1?<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n"
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert "\n".join(read) == f"{whole}\n{whole}"
    assert [line.split(",")[1].split()[0] for line in found if line.startswith("stage")] == ["source", "evaluation"]


def test_a_stage_reads_with_what_the_stages_before_it_have_left_in_the_template(tmp_path: Path, model: str) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", [{"prompt": "1+1?", "answer": "2", "completion": "2"}]))
    source = {"own": {"path": rows, "completion_column": "completion"}}
    asked = recipe(
        model={"path": model, "max_tokens": 600},
        data={"sources": source, "template": "chat"},
        stages=[
            {"name": "first", "kind": "sft", "data": {"system": "Be brief."}},
            {"name": "then", "kind": "grpo"},
            {"name": "other", "kind": "grpo", "data": {"system": "Be long."}},
            {"name": "apart", "kind": "grpo", "model_from": "own"},
        ],
    )
    read = [line for line in shown(asked, 1) if line.startswith(("  │ <", "stage ")) and ", source" not in line]
    systems = [line for line in read if "<system>" in line]
    assert systems == ["  │ <system>Be brief.", "  │ <system>Be brief.", "  │ <system>Be long."]
    assert read[-1] == "  │ <user>1+1?" or read[-2] == "  │ <user>1+1?"
