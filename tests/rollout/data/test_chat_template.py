"""What a recipe says of a chat template, through real renderings of templates in the forms that models have them."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from learner.model.small import character_tokenizer
from rollout.data.chat_template import dress, literal, read_file, variables
from rollout.data.template_settings import Dress
from rollout.data.templates import load_template
from rollout.data.tokens import prompt_tokens
from rollout.errors import InputError

ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + ASK
# The first system turn is read before the loop, as Llama 3 and Qwen do, with a default where there is none.
HEADED = (
    "{{- bos_token }}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set said = messages[0]['content'] | trim %}\n"
    "    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set said = 'You are helpful.' %}\n{%- endif %}\n"
    "{{- '<sys>' + said + '</sys>' }}\n{%- for m in messages %}\n    {{- '<' + m.role + '>' + m.content }}\n{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
# Begins with white space that its own blocks would take, and reads an argument in a macro and under a default.
THINKS = (
    "  {% macro closed() %}{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endmacro %}\n{% if not day is defined %}{% set day = 'Monday' %}{% endif %}\n"
    "{% for m in messages %}{% if m.role == 'nobody' %}{% break %}{% endif %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "Today: {{ day }}\n{% if add_generation_prompt %}{% generation %}<assistant>{% endgeneration %}{{ closed() }}{% endif %}"
)
DROPS = "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}" + ASK
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
TRICKY = 'You are "terse".\n{{ not }} {% a %} \\n {prompt} \U0001f600 é'
USER = {"role": "user", "content": "6*7?"}
OWN = [{"role": "system", "content": "Mine."}, USER]


def with_template(text: Any) -> Any:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = text
    return tokenizer


def dressed(text: Any, **said: Any) -> Any:
    tokenizer = with_template(text)
    dress(tokenizer, Dress(**said))
    return tokenizer


def write(tokenizer: Any, *messages: dict[str, str], **args: Any) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, **args))


@pytest.mark.parametrize("text", [CHATML, HEADED, "\n" + CHATML, "  " + HEADED, THINKS])
@pytest.mark.parametrize("system", ["You are terse.", TRICKY])
def test_a_system_message_is_read_as_if_the_row_had_brought_it(text: str, system: str) -> None:
    plain, tokenizer = with_template(text), dressed(text, system=system)
    assert write(tokenizer, USER) == write(plain, {"role": "system", "content": system}, USER)
    assert write(tokenizer, *OWN) == write(plain, *OWN)
    developer = {"role": "developer", "content": "Mine."}
    assert write(tokenizer, developer, USER) == write(plain, developer, USER)


@pytest.mark.parametrize(
    "args",
    [{"enable_thinking": False}, {"enable_thinking": True}, {"day": TRICKY}, {"day": 3, "enable_thinking": False}],
)
def test_arguments_are_read_as_if_every_call_had_brought_them(args: dict[str, Any]) -> None:
    plain, tokenizer = with_template(THINKS), dressed(THINKS, args=args)
    assert write(tokenizer, USER) == write(plain, USER, **args)
    # Whoever says something else in a call is heard.
    assert write(tokenizer, USER, day="Friday") == write(plain, USER, **args | {"day": "Friday"})


def test_an_argument_may_be_a_list_or_a_table() -> None:
    text = "{{ extra.names | join(',') }}{{ extra.on }}{{ extra.size + 1 }}" + CHATML
    extra = {"names": ['a"', "b"], "on": True, "size": 0.5}
    assert write(dressed(text, args={"extra": extra}), USER) == 'a",bTrue1.5' + write(with_template(CHATML), USER)
    assert literal({"a": [1, False, -2.5]}) == '{"a": [1, false, -2.5]}'


def test_what_is_said_twice_counts_once_and_a_later_stage_comes_first() -> None:
    once = dressed(THINKS, system="A", args={"day": "x"})
    twice = with_template(once.chat_template)
    dress(twice, Dress(system="A", args={"day": "x"}))
    assert twice.chat_template == once.chat_template
    dress(twice, Dress(system="B", args={"day": "y"}))
    assert write(twice, USER) == write(dressed(THINKS, system="B", args={"day": "y"}), USER)


def test_a_file_takes_the_place_of_the_template_and_is_saved_with_the_tokenizer(tmp_path: Path) -> None:
    file = tmp_path / "my.jinja"
    file.write_text(CHATML + "\n")
    tokenizer = dressed(None, template=str(file), system="Be brief.")
    tokenizer.save_pretrained(tmp_path / "saved")
    back = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert write(back, USER) == write(tokenizer, USER)
    assert write(back, USER).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n6*7?")
    assert load_template(str(file), tokenizer).closing == "<|im_end|>"


def test_a_template_of_its_own_for_tools_is_dressed_too() -> None:
    tokenizer = dressed({"default": CHATML, "tool_use": "tools " + CHATML}, system="S")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert write(tokenizer, USER, tools=tools).startswith("tools <|im_start|>system\nS<|im_end|>")
    assert write(tokenizer, USER).startswith("<|im_start|>system\nS<|im_end|>")


def test_a_prompt_begins_with_one_bos_whatever_is_said() -> None:
    tokenizer = dressed("{{ bos_token }}" + CHATML, system="S")
    tokenizer.bos_token = "<|end|>"
    (ids,) = prompt_tokens(tokenizer, [write(tokenizer, USER)])
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("text", "said", "message"),
    [
        (THINKS, {"args": {"enable_thinkin": False}}, "template_args.enable_thinkin: the model's chat template does not read "
         "'enable_thinkin'; did you mean 'enable_thinking'?; it reads: day, enable_thinking"),
        (CHATML, {"args": {"enable_thinking": False}}, "it reads no arguments"),
        (CHATML, {"args": {"messages": []}}, "`messages` is what the rows and the tokenizer give"),
        ("{{ bos_token }}" + CHATML, {"args": {"bos_token": "x"}}, "`bos_token` is what the rows and the tokenizer give"),
        (DROPS, {"system": "S y s"}, "data.system: the chat template drops the system message; say it in prompt_form"),
        (REFUSES, {"system": "S"}, "data.system: the chat template of the model refuses it: System role not supported"),
        ("{% if %}", {"args": {"a": 1}}, "the chat template of the model, line 1: Expected an expression"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_template_is_refused(text: str, said: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        dressed(text, **said)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a\n{% for m in messages %}\n{{ m.content }\n{% endfor %}",
            "my.jinja:3: not a chat template (Jinja): unexpected '}'",
        ),
        ("{% for m in messages %}\n{{ m.content", "my.jinja:2: not a chat template (Jinja)"),
        ("{{ messages | shout }}", "my.jinja:1: not a chat template (Jinja): No filter named 'shout'"),
        (
            "Question: {prompt}",
            "it reads no `messages`, so it is no chat template; a text with {prompt} in it has another suffix",
        ),
    ],
)
def test_a_file_that_is_no_chat_template(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "my.jinja").write_text(text)
    with pytest.raises(InputError) as caught:
        read_file(str(tmp_path / "my.jinja"))
    assert message in str(caught.value)


def test_a_file_that_is_not_there_and_one_with_the_suffix_of_text(tmp_path: Path) -> None:
    (tmp_path / "my.jinja").write_text(CHATML)
    with pytest.raises(InputError, match=r"no file is there; did you mean 'my\.jinja'"):
        read_file(str(tmp_path / "mine.jinja"))
    (tmp_path / "my.txt").write_text(CHATML)
    with pytest.raises(InputError, match=r"has no \{prompt\} .*; name it my\.jinja if it is a chat template"):
        load_template(str(tmp_path / "my.txt"), None)


def test_variables_are_those_that_somebody_must_give() -> None:
    assert variables(THINKS) == {"messages", "add_generation_prompt", "enable_thinking", "day"}
    assert variables("{% set x = namespace(a=1) %}{{ x.a }}{{ strftime_now('%Y') }}{{ raise_exception('') }}") == set()
