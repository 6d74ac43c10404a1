"""What stands before every question: turns in a chat template, text elsewhere."""

from pathlib import Path
from typing import Any

import pytest

from learner.model.small import character_tokenizer
from rollout.data.few_shot import with_few_shot
from rollout.data.rows import Dialogue
from rollout.data.template_settings import FewShot
from rollout.data.templates import R1_ZERO, load_template
from rollout.errors import InputError
from tests.rollout.data.test_sources import jsonl

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
# As R1 and Qwen3: what was thought in earlier turns is not shown.
FORGETS = CHAT.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
SHOTS = ({"prompt": "1+1?", "completion": "2"}, {"prompt": "{x}?", "completion": " {y}"})


def tokenizer(template: str = CHAT) -> Any:
    made = character_tokenizer()
    made.chat_template = template
    return made


def asked(name: str, path: Path, question: Any = "6*7?", template: str = CHAT, **more: Any) -> str:
    own = tokenizer(template)
    return with_few_shot(load_template(name, own), FewShot(path=str(path), **more), own).render(question)


def test_examples_are_turns_in_a_chat_template_behind_the_system_turn(tmp_path: Path) -> None:
    shots = jsonl(tmp_path / "shots.jsonl", *SHOTS)
    turns = "<user>1+1?<assistant>2<user>{x}?<assistant> {y}"
    assert asked("chat", shots) == f"{turns}<user>6*7?<assistant>"
    assert asked("chat", shots, limit=1) == "<user>1+1?<assistant>2<user>6*7?<assistant>"
    system = {"role": "system", "content": "Brief."}
    talk = (
        system,
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    )
    said = asked("chat", shots, Dialogue(row_id="s/0", messages=talk))
    assert said == f"<system>Brief.{turns}<user>a<assistant>b<user>c<assistant>"


def test_examples_are_text_in_other_templates_each_as_it_would_be_learned(tmp_path: Path) -> None:
    shots = jsonl(tmp_path / "shots.jsonl", *SHOTS)
    (tmp_path / "qa.txt").write_text("Q: {prompt}\nA:\n")
    assert asked("plain", shots) == "1+1?2\n\n{x}? {y}\n\n6*7?"
    assert asked(str(tmp_path / "qa.txt"), shots) == "Q: 1+1?\nA:2\n\nQ: {x}?\nA: {y}\n\nQ: 6*7?\nA:"
    one = R1_ZERO.replace("{prompt}", "1+1?") + "2\n\n" + R1_ZERO.replace("{prompt}", "6*7?")
    assert asked("r1-zero", shots, limit=1) == one


def test_a_text_is_put_before_the_question(tmp_path: Path) -> None:
    (tmp_path / "shots.txt").write_text("Some sums:\n1+1=2\n\n")
    assert asked("plain", tmp_path / "shots.txt") == "Some sums:\n1+1=2\n\n6*7?"
    assert asked("chat", tmp_path / "shots.txt") == "<user>Some sums:\n1+1=2\n\n6*7?<assistant>"


def test_columns_are_those_of_the_recipe_and_prompts_may_be_messages(tmp_path: Path) -> None:
    row = {"q": [{"role": "user", "content": "1+1?"}], "a": [{"role": "assistant", "content": "2"}]}
    shots = jsonl(tmp_path / "shots.jsonl", row)
    said = asked("chat", shots, prompt_column="q", completion_column="a")
    assert said == "<user>1+1?<assistant>2<user>6*7?<assistant>"


@pytest.mark.parametrize(
    ("row", "template", "message"),
    [
        ({"prompt": "1?", "completion": "<think>one</think>1"}, FORGETS, "data.few_shot: the chat template of the model drops the "
         "thought of message 2 (assistant): 'one'"),
        ({"prompt": "1?"}, CHAT, "data.few_shot: "),
        ({"prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "u"}], "completion": "c"}, CHAT,
         "shots.jsonl:1 has a system turn, of which a conversation has one: say it in data.system"),
    ],
)  # fmt: skip
def test_examples_that_cannot_be_shown(row: dict[str, Any], template: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        asked("chat", jsonl(tmp_path / "shots.jsonl", row), template=template)
    assert message in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [(" \n", "is empty"), ("Q: {prompt}", "give it as data.template")])
def test_a_text_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "shots.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        asked("plain", tmp_path / "shots.txt")
    with pytest.raises(InputError, match=r"data\.few_shot\.path = .*cannot be read"):
        asked("plain", tmp_path / "none.txt")
