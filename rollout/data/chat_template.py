"""Chat templates as text: read from a file, parsed, and dressed with what a recipe says of them.

What a recipe says becomes part of the template itself, in front of it: everything that renders with the tokenizer (training,
evaluation, reward models, whoever loads an export) then reads the same, and no call has to carry it along.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from rollout.data.conversations import rendered
from rollout.data.template_settings import CHAT, Dress
from rollout.errors import InputError, did_you_mean

GIVEN = ("messages", "tools", "documents", "add_generation_prompt")
"""Variables that every rendering gives a template; special tokens (`bos_token`) besides."""
PROBE = "\ue000question\ue000"


def dress(tokenizer: Any, said: Dress) -> None:
    """Give a tokenizer the chat template that a recipe says. One without a template stays without.

    Args:
        tokenizer: anything with a `chat_template` and `apply_chat_template`.

    Raises:
        InputError: the file cannot be read or is no template, an argument is not read by it, or it drops the system message.
    """
    held = tokenizer.chat_template if said.template == CHAT else read_file(said.template)
    if not held or not said:
        return
    # Some models have a template of their own for conversations with tools.
    texts = dict(held) if isinstance(held, Mapping) else {"default": held}
    check_args(list(texts.values()), said)
    head = "".join(_head(said))
    dressed = {name: text if text.startswith(head) else head + text for name, text in texts.items()}
    tokenizer.chat_template = dressed if isinstance(held, Mapping) else dressed["default"]
    if said.system:
        _check_system(tokenizer, said)


def read_file(name: str) -> str:
    """The text of a chat template in a file.

    Raises:
        InputError: it is not there, or not Jinja (with the line), or reads no messages.
    """
    path = Path(name).expanduser()
    named = f"data.template = {name!r}"
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{named}: no file is there{did_you_mean(path.name, beside)}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{named}: cannot be read: {error}") from None
    try:
        _environment().compile(text)
    except TemplateSyntaxError as error:
        raise InputError(f"{path}:{error.lineno}: not a chat template (Jinja): {error.message}") from None
    if "messages" not in variables(text):
        raise InputError(
            f"{named}: it reads no `messages`, so it is no chat template; a text with {{prompt}} in it has another suffix "
            "(.txt)"
        )
    return text


def variables(text: str) -> set[str]:
    """Variables that a template reads and does not itself make. Raises TemplateSyntaxError."""
    environment = _environment()
    found = meta.find_undeclared_variables(environment.parse(text))
    return found - environment.globals.keys() - {"raise_exception", "strftime_now"}


def _arguments(text: str) -> set[str]:
    """Variables that somebody is to give a template: without those that it makes itself in some branch."""
    tree = _environment().parse(text)
    made = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    asked = [each.node for each in tree.find_all(nodes.Test) if each.name in ("defined", "undefined")]
    asked += [each.node for each in tree.find_all(nodes.Filter) if each.name in ("default", "d") and each.node]
    optional = {each.name for each in asked if isinstance(each, nodes.Name)}
    own = variables(text) - (made - optional)
    return {name for name in own if name not in GIVEN and not name.endswith("_token")}


def check_args(texts: Sequence[str], said: Dress) -> None:
    """Raises InputError for an argument that none of the templates of a model reads."""
    read: set[str] = set()
    for text in texts:
        try:
            read |= variables(text)
        except TemplateSyntaxError as error:
            raise InputError(f"the chat template of the model, line {error.lineno}: {error.message}") from None
    own = sorted(set().union(*map(_arguments, texts)))
    for name in said.args:
        named = f"data.template_args.{name}"
        if name in GIVEN or name.endswith("_token"):
            raise InputError(f"{named}: `{name}` is what the rows and the tokenizer give to a template; remove it")
        if name not in read:
            whose = "the model's chat template" if said.template == CHAT else said.template
            listed = f"it reads: {', '.join(own)}" if own else "it reads no arguments"
            raise InputError(f"{named}: {whose} does not read {name!r}{did_you_mean(name, own)}; {listed}")


def _check_system(tokenizer: Any, said: Dress) -> None:
    """Raises InputError where a template refuses or drops a system message."""
    try:
        shown = rendered([{"role": "user", "content": PROBE}], tokenizer, ask=True)
    except InputError as problem:
        raise InputError(f"data.system: {problem}; {SYSTEM_ELSE}") from None
    if " ".join(said.system.split()) not in " ".join(shown.split()):
        raise InputError(f"data.system: the chat template drops the system message; {SYSTEM_ELSE}")


SYSTEM_ELSE = "say it in prompt_form of the sources, or give a template that shows it (data.template)"


def _head(said: Dress) -> Iterator[str]:
    """What is put in front of a template, as its first line: the line end behind it is the one that such a line takes with it."""
    for name, value in said.args.items():
        yield f"{{% if {name} is not defined %}}{{% set {name} = {literal(value)} %}}{{% endif %}}"
    if said.system:
        first = "messages[0]['role'] not in ['system', 'developer']"
        message = f"[{{'role': 'system', 'content': {literal(said.system)}}}]"
        yield f"{{% if not messages or {first} %}}{{% set messages = {message} + messages | list %}}{{% endif %}}"
    if said.args or said.system:
        yield "\n"


def literal(value: Any) -> str:
    """A value in Jinja's words, on one line. Strings have the escapes of Python."""
    if isinstance(value, str):
        return '"' + value.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(str(key))}: {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


class _Generation(Extension):
    """`{% generation %}`, which `transformers` has for marking what an assistant says; it renders what is in it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


@cache
def _environment() -> Environment:
    """For reading templates only: `transformers` renders them, and takes long to import."""
    return Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"], autoescape=False
    )
