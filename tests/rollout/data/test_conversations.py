"""Which tokens of a conversation train, through real chat templates and real tokenizers."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from learner.model.small import bpe_tokenizer, character_tokenizer
from rollout.data.conversations import Turn, tokenised_turns, turns_of
from rollout.data.rows import Row
from rollout.data.templates import load_template
from rollout.errors import InputError

(VLLM,) = getattr(find_spec("vllm"), "submodule_search_locations", None) or pytest.skip(
    "vllm is not installed", allow_module_level=True
)
# This one leaves the last turn of a conversation open.
CHATML = (Path(VLLM) / "transformers_utils" / "chat_templates" / "template_chatml.jinja").read_text()
CHATML_CLOSED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As reasoning models have it: the thought of an earlier turn is not shown again.
FORGETS_THOUGHTS = (
    "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}[A]{{ m.content.split('</think>')[-1] }}[/A]"
    "{% elif m.role == 'assistant' %}[A]{{ m.content }}[/A]{% else %}[U]{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[A]{% endif %}"
)
OPENS_THE_THOUGHT = FORGETS_THOUGHTS.replace("%}[A]{% endif", "%}[A]<think>\n{% endif")
TALK = (
    ("system", "Be brief."),
    ("user", "2+3?"),
    ("assistant", "<think>easy</think>5"),
    ("user", "And 4+4?\n"),
    ("assistant", " 8, of course"),
    ("user", "Thanks"),
)


def conversation(*talk: tuple[str, str]) -> Row:
    messages = tuple({"role": role, "content": content} for role, content in talk)
    return Row(row_id="s/0", source="s", rubric="", question="", answer="", completion="", messages=messages, fields={})


def chatml(template: str = CHATML, eos: str = "<|im_end|>") -> Any:
    from tokenizers import AddedToken

    tokenizer = bpe_tokenizer(iter(["And 4+4? Thanks, of course, 8 of course", "user assistant system"]), 320)
    tokenizer.add_tokens([AddedToken(tag, special=True, normalized=False) for tag in ("<|im_start|>", "<|im_end|>")])
    if eos:
        tokenizer.eos_token = eos
    tokenizer.chat_template = template
    return tokenizer


def plain(template: str) -> Any:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def learned(tokenizer: Any, which: Any = "all", talk: tuple[tuple[str, str], ...] = TALK) -> list[tuple[str, str]]:
    """(context, what trains) of every example, decoded."""
    turns = turns_of(conversation(*talk), tokenizer, which)
    return [
        (tokenizer.decode(token_ids[:first]), tokenizer.decode(token_ids[first:]))
        for token_ids, first in tokenised_turns(turns, tokenizer)
    ]


@pytest.mark.parametrize("template", [CHATML, CHATML_CLOSED], ids=["open", "closed"])
def test_each_turn_of_the_assistant_trains_and_ends_with_the_closing_mark(template: str) -> None:
    first = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+3?<|im_end|>\n<|im_start|>assistant\n"
    second = f"{first}<think>easy</think>5<|im_end|>\n<|im_start|>user\nAnd 4+4?\n<|im_end|>\n<|im_start|>assistant\n"
    expected = [(first, "<think>easy</think>5<|im_end|>"), (second, " 8, of course<|im_end|>")]
    assert learned(chatml(template)) == expected
    assert learned(chatml(template), "last") == expected[1:]


def test_the_tokens_are_those_of_the_whole_text_and_of_the_prompt_an_engine_gets() -> None:
    tokenizer = chatml(CHATML_CLOSED)
    turns = turns_of(conversation(*TALK), tokenizer, "all")
    assert [turn.turn_id for turn in turns] == ["s/0#1", "s/0#2"]
    for turn, (token_ids, first) in zip(turns, tokenised_turns(turns, tokenizer), strict=True):
        assert token_ids == tokenizer(turn.prompt + turn.reply)["input_ids"]
        assert token_ids[:first] == tokenizer(turn.prompt)["input_ids"]
        assert token_ids[-1] == tokenizer.eos_token_id


def test_one_question_is_asked_as_a_rollout_asks_it() -> None:
    tokenizer = chatml()
    (turn,) = turns_of(conversation(("user", "2+3?"), ("assistant", "5")), tokenizer, "all")
    assert (turn.turn_id, turn.prompt) == ("s/0", load_template("chat", tokenizer).render("2+3?"))


def test_a_model_that_ends_otherwise_than_its_template_learns_both_ends() -> None:
    tokenizer = chatml(CHATML_CLOSED, eos="")
    assert tokenizer.eos_token != "<|im_end|>"
    assert [reply for _, reply in learned(tokenizer)] == [
        f"<think>easy</think>5<|im_end|>{tokenizer.eos_token}",
        f" 8, of course<|im_end|>{tokenizer.eos_token}",
    ]


def test_a_template_without_a_closing_mark_gets_the_end_of_sequence() -> None:
    tokenizer = bpe_tokenizer(iter(["User Assistant"]), 320)
    end = tokenizer.eos_token
    assert learned(tokenizer, talk=(("user", "2+3?"), ("assistant", "5"))) == [("User: 2+3?\nAssistant: ", f"5{end}")]


def test_a_token_over_the_boundary_leaves_the_prompt_as_the_engine_gets_it() -> None:
    tokenizer = bpe_tokenizer(iter(["Assistant: five five five: five"] * 9), 400)
    (turn,) = turns_of(conversation(("user", "2+3?"), ("assistant", "five")), tokenizer, "all")
    prompt = tokenizer(turn.prompt)["input_ids"]
    assert tokenizer(turn.prompt + turn.reply)["input_ids"][: len(prompt)] != prompt, "the case is not met"
    ((token_ids, first),) = tokenised_turns([turn], tokenizer)
    assert token_ids[:first] == prompt
    assert tokenizer.decode(token_ids[first:]) == f"five{tokenizer.eos_token}"


def test_every_turn_is_learned_with_the_context_it_is_sampled_in() -> None:
    talk = (("user", "a"), ("assistant", "<think>t</think>b"), ("user", "c"), ("assistant", "<think>u</think>d"))
    end = character_tokenizer().eos_token
    assert learned(plain(FORGETS_THOUGHTS), talk=talk) == [
        ("[U]a[A]", f"<think>t</think>b[/A]{end}"),
        ("[U]a[A]b[/A][U]c[A]", f"<think>u</think>d[/A]{end}"),
    ]


def test_a_template_that_writes_a_turn_otherwise_than_it_asks_for_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"row s/0: the chat template .* give the rows as prompt and completion"):
        learned(plain(OPENS_THE_THOUGHT))


def test_a_conversation_that_the_template_refuses_is_named() -> None:
    refuses = "{% if messages[0].role != 'user' %}{{ raise_exception('must begin with a user') }}{% endif %}"
    with pytest.raises(InputError, match="row s/0: the chat template of the model refuses it: must begin with a user"):
        learned(plain(refuses))


def test_many_turns_keep_their_order() -> None:
    tokenizer = plain(FORGETS_THOUGHTS)
    turns = [Turn(turn_id=str(i), prompt=f"[U]{i}[A]", reply=str(i)) for i in range(2100)]
    decoded = [tokenizer.decode(ids[first:-1]) for ids, first in tokenised_turns(turns, tokenizer)]
    assert decoded == [str(i) for i in range(2100)]
