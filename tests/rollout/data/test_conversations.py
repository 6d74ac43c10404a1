"""Which tokens of a conversation train, through real chat templates and real tokenizers."""

from dataclasses import replace
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
    asks_otherwise = FORGETS_THOUGHTS.replace("%}[A]{% endif", "%}[B]{% endif")
    with pytest.raises(InputError, match=r"row s/0: the chat template .* give the rows as prompt and completion"):
        learned(plain(asks_otherwise))


def test_a_template_that_opens_the_thought_learns_each_turn_with_one_thought() -> None:
    end = character_tokenizer().eos_token
    assert learned(plain(OPENS_THE_THOUGHT)) == [
        ("[U]Be brief.[U]2+3?[A]<think>\n", f"easy</think>5[/A]{end}"),
        ("[U]Be brief.[U]2+3?[A]5[/A][U]And 4+4?\n[A]<think>\n", f"\n</think>\n\n8, of course[/A]{end}"),
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "<think>\nsix sevens\n</think>\n\n42"},
        {"role": "assistant", "content": "42", "reasoning_content": "six sevens"},
        {"role": "assistant", "content": "", "reasoning_content": "six sevens"},
    ],
)
@pytest.mark.parametrize(
    "template",
    [
        # It shows what follows the thought alone, in every turn.
        "{% for m in messages %}{% if m.role == 'assistant' %}[A]{{ m.content.split('</think>')[-1] }}[/A]{% else %}"
        "[U]{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}[A]{% endif %}",
        # It reads `content` and nothing else.
        "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[/]{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
    ],
)
def test_a_thought_that_the_template_drops_is_learned_as_the_row_has_it(template: str, message: dict[str, str]) -> None:
    row = replace(conversation(), messages=({"role": "user", "content": "6*7?"}, message))
    (turn,) = turns_of(row, plain(template), "all")
    thought, _, answer = turn.reply.partition("</think>")
    assert thought == "<think>\nsix sevens\n"
    assert answer.strip().startswith(message["content"].rpartition("</think>")[2].strip())
    assert turn.reply.endswith("[/A]" if "[A]" in template else "[/]")


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 3, "b": ["ü", 4.5]}}}
TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {}}},)
READS_CALLS = (
    "{% if tools %}T{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}[/]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (READS_CALLS, ""),
        (READS_CALLS.replace("{{ tools | tojson }}", ""), "does not show the tool 'add'"),
        (READS_CALLS.replace("({{ c.function.arguments | tojson }})", ""), "drops the tool call of message 3"),
        (READS_CALLS.replace("m.tool_calls or []", "[]"), "drops the tool call of message 3"),
        (READS_CALLS.replace("[{{ m.role }}]{{ m.content }}", "{% if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endif %}"), "drops the content of message 1 \\(system\\): 'Be exact.'"),
        (READS_CALLS.replace("{{ m.content }}", "{% if m.role != 'tool' %}{{ m.content }}{% endif %}"), "drops the content of message 4"),
    ],
)  # fmt: skip
def test_what_a_template_drops_of_tools_calls_and_turns_is_told(template: str, problem: str) -> None:
    messages: tuple[dict[str, Any], ...] = (
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": "3+4?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "7.5"},
        {"role": "assistant", "content": "7"},
    )
    row = replace(conversation(), messages=messages, tools=TOOLS)
    if problem:
        with pytest.raises(InputError, match=rf"row s/0: the chat template of the model .*{problem}"):
            turns_of(row, plain(template), "all")
        return
    first, second = turns_of(row, plain(template), "all")
    assert (
        first.reply == 'add({"a": 3, "b": ["\\u00fc", 4.5]})[/]' or first.reply == 'add({"a": 3, "b": ["ü", 4.5]})[/]'
    )
    assert second.reply == "7[/]"


def test_a_conversation_that_the_template_refuses_is_named() -> None:
    refuses = "{% if messages[0].role != 'user' %}{{ raise_exception('must begin with a user') }}{% endif %}"
    with pytest.raises(InputError, match="row s/0: the chat template of the model refuses it: must begin with a user"):
        learned(plain(refuses))


def test_many_turns_keep_their_order() -> None:
    tokenizer = plain(FORGETS_THOUGHTS)
    turns = [Turn(turn_id=str(i), prompt=f"[U]{i}[A]", reply=str(i)) for i in range(2100)]
    decoded = [tokenizer.decode(ids[first:-1]) for ids, first in tokenised_turns(turns, tokenizer)]
    assert decoded == [str(i) for i in range(2100)]
