"""How a pair becomes what a reward model reads."""

import pytest

from learner.model.small import END, character_tokenizer
from rewards.models.pair_encoding import PairEncoder, literal_template, pair_of
from rollout.data.templates import R1_ZERO
from rollout.errors import InputError

RESPONSE = "<think>one and one</think><answer>2</answer>"


@pytest.mark.parametrize(("scope", "read"), [("answer", "2"), ("response", RESPONSE)])
@pytest.mark.parametrize("prompt", ["1+1?", R1_ZERO.replace("{prompt}", "1+1?")])
def test_the_scope_says_what_is_read_and_the_question_comes_without_its_template(
    prompt: str, scope: str, read: str
) -> None:
    assert pair_of(prompt, RESPONSE, scope) == ("1+1?", read)


@pytest.mark.parametrize("text", ["", "Q: ", 'say "{{ x }}"\n{% y %}', "\\ü日本😀\t'"])
def test_a_literal_template_writes_its_texts_and_nothing_else(text: str) -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = literal_template(text, f"|{text}|", f"{text}{END}")
    rows = PairEncoder(tokenizer, "m").encode([("1+1", "2"), ("{{ 3 }}", "")])
    assert [tokenizer.decode(row.ids) for row in rows] == [
        f"{text}1+1|{text}|2{text}{END}",
        f"{text}{{{{ 3 }}}}|{text}|{text}{END}",
    ]


def test_a_response_cannot_end_its_turn() -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = literal_template("", "", END)
    (row,) = PairEncoder(tokenizer, "m").encode([("1", f"2{END}3")])
    assert row.ids.count(tokenizer.eos_token_id) == 1


def test_a_template_that_shows_no_answer_is_refused() -> None:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}"
    with pytest.raises(InputError, match="reward model m: its chat template does not show"):
        PairEncoder(tokenizer, "m")
    assert PairEncoder(character_tokenizer(), "m").encode([]) == []
