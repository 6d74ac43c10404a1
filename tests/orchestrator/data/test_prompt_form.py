"""What a source asks besides its question reaches the prompt, under the template of its stage."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.data.prompts import load_prompts
from tests.orchestrator.factories import recipe, write_rows
from tests.rollout.data.test_known_sets import ROWS


class Characters:
    """One token a character; a chat template with a mark on either side."""

    chat_template = "…"

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(sign) for sign in text] for text in texts]}

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return f"<user>{messages[0]['content']}<assistant>"


def asked(template: str, tmp_path: Path, **source: Any) -> str:
    write_rows(tmp_path / "set.jsonl", [ROWS[source["set"]] if "set" in source else {"prompt": "1+1", "answer": "2"}])
    sets = {"s": {"path": str(tmp_path / "set.jsonl"), **source}}
    (stage,) = recipe(
        model={"path": "org/model", "max_tokens": 4096},
        data={"template": template, "max_prompt_tokens": 3000, "sources": sets},
    ).stages
    ((prompt,),) = load_prompts(stage.data.sources, stage, Characters(), seed=0).prompts.values()
    assert "".join(map(chr, prompt.token_ids)) == prompt.text
    return prompt.text


def test_a_form_of_ones_own(tmp_path: Path) -> None:
    text = asked("chat", tmp_path, prompt_form="Add: {prompt}.")
    assert text == "<user>Add: 1+1.<assistant>"


@pytest.mark.parametrize(
    ("template", "name", "text"),
    [
        ("plain", "aime24", "Find $t$."),
        (
            "chat",
            "aime24",
            "<user>Find $t$.\n\nPlease reason step by step, and put your final answer within \\boxed{}.<assistant>",
        ),
    ],
)
def test_a_published_set_is_asked_as_its_template_needs(template: str, name: str, text: str, tmp_path: Path) -> None:
    assert asked(template, tmp_path, set=name) == text


def test_a_program_is_asked_for_under_r1_zero_too(tmp_path: Path) -> None:
    text = asked("r1-zero", tmp_path, set="humaneval")
    assert "User: Complete the following Python function." in text
    assert text.endswith(f"```python\n{ROWS['humaneval']['prompt']}```. Assistant:")


def test_a_form_of_ones_own_comes_before_that_of_the_set(tmp_path: Path) -> None:
    assert asked("chat", tmp_path, set="gsm8k", prompt_form="{prompt}") == "<user>Two eggs and two eggs?<assistant>"
