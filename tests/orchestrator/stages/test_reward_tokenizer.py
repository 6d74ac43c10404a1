"""The tokens that a reward model is trained on are those that the reward service makes of the same prompt and response."""

from pathlib import Path
from typing import Any

import pytest

from learner.model.small import END, character_tokenizer
from orchestrator.data.reward_pairs import encoder, reward_tokenizer
from rewards.models.pair_encoding import pair_of
from rewards.models.reward_model import RewardModel, RewardModelSpec
from rollout.data.chat_template import dress
from rollout.data.template_settings import Dress
from rollout.data.templates import load_template
from rollout.errors import InputError
from tests.orchestrator.factories import recipe
from tests.rewards.models.test_reward_model import CHAT, save

RESPONSE = f"<think>one\nand one</think><answer>2{END}</answer>"


def stage_of(scope: str) -> Any:
    return recipe(
        stages=[{"name": "helpful", "kind": "reward_model", "reward_model": {"scope": scope}}],
        data={"sources": {"a": {"path": "pairs.jsonl", "chosen_column": "good", "rejected_column": "bad"}}},
    ).stages[0]


@pytest.mark.parametrize("scope", ["answer", "response"])
@pytest.mark.parametrize("template", ["plain", "r1-zero", "chat", "dressed", "file"])
def test_training_and_serving_read_the_same_tokens(tmp_path: Path, scope: str, template: str) -> None:
    (tmp_path / "file").write_text('A "question" {prompt}\nAnswer:\n')
    tokenizer = character_tokenizer()
    if template in ("chat", "dressed"):
        tokenizer.chat_template = CHAT
    turns = 3 if template == "dressed" else 2
    if template == "dressed":
        dress(tokenizer, Dress(system="Be kind."))
        template = "chat"
    form = load_template(str(tmp_path / "file") if template == "file" else template, tokenizer)
    written = reward_tokenizer(tokenizer, form)
    trained = encoder(stage_of(scope), written, form, "m")([("1+1?", RESPONSE), ("{3}", "no")])

    served = RewardModelSpec(path=str(save(tmp_path / "model", positions=1024)), scope=scope, device="cpu")
    written.save_pretrained(served.path)
    model = RewardModel(served)
    prompts = [form.render(question) for question in ("1+1?", "{3}")]
    pairs = [pair_of(prompt, text, scope) for prompt, text in zip(prompts, [RESPONSE, "no"], strict=True)]
    assert [model.encode(*pair).ids for pair in pairs] == trained
    assert all(row[-1] == tokenizer.eos_token_id and row.count(tokenizer.eos_token_id) <= turns for row in trained)


@pytest.mark.parametrize(
    ("template", "asked"), [("r1-zero", "1+1?\n\n"), ("plain", "1+1?"), ("file", "Q: 1+1?\nA:\n\n")]
)
def test_the_form_of_a_pair(template: str, asked: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("Q: {prompt}\nA:\n")
    tokenizer = character_tokenizer()
    form = load_template(str(tmp_path / "file") if template == "file" else template, tokenizer)
    (row,) = encoder(stage_of("answer"), reward_tokenizer(tokenizer, form), form, "m")([("1+1?", RESPONSE)])
    # The end that the response forged is broken up; the one behind it is real.
    assert tokenizer.decode(row) == f"{asked}2< |end|>{END}"
    assert tokenizer.chat_template is None


def test_a_response_without_a_thought_is_a_reply_where_the_template_opens_one() -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}<think>\n{% endif %}"
    )
    form = load_template("chat", tokenizer)
    encode = encoder(stage_of("answer"), reward_tokenizer(tokenizer, form), form, "m")
    rows = encode([("1+1?", "2"), ("1+1?", "hm\n</think>\n2")])
    assert [tokenizer.decode(row) for row in rows] == ["[[1+1?]][2]"] * 2


def test_what_the_tokenizer_puts_before_every_text_is_kept() -> None:
    from tokenizers import processors

    tokenizer = character_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    start = tokenizer.bos_token_id
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $0", special_tokens=[("<s>", start)]
    )
    form = load_template("plain", tokenizer)
    (row,) = encoder(stage_of("response"), reward_tokenizer(tokenizer, form), form, "m")([("1", "2")])
    assert tokenizer.decode(row) == f"<s>12{END}"
    assert row[0] == start


def test_a_response_must_end() -> None:
    tokenizer = character_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        reward_tokenizer(tokenizer, load_template("plain", tokenizer))
