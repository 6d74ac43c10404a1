"""Prompt templates: from a question to the exact text that is tokenised."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rollout.data.conversations import dialogue_prompt
from rollout.data.known_sets import PLACEHOLDER
from rollout.data.rows import Dialogue
from rollout.errors import InputError, did_you_mean

R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
    "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
    "User: {prompt}. Assistant:"
)
"""Table 1 of the DeepSeek-R1 paper (arXiv:2501.12948), with the question where the table has `prompt`."""

SHIPPED = ("plain", "r1-zero", "chat")
_MARK = "\ue000reply\ue000"


@dataclass(frozen=True, slots=True)
class Template:
    """Turns a question into the text of a prompt."""

    name: str
    """`plain`, `r1-zero`, `chat`, or the path of a file."""
    _render: Callable[[str], str]
    closing: str = ""
    """What a reply is closed with before the end of sequence: the mark of a chat template that ends a turn otherwise."""

    _converse: Callable[[Dialogue], str] | None = None
    """The same for a dialogue; None: the template writes one question and nothing else."""

    def render(self, asked: str | Dialogue) -> str:
        """The text that is tokenised. A question enters as it is, braces and all.

        Raises:
            InputError: a dialogue, and the template can write none, or drops something of it.
        """
        if isinstance(asked, str):
            return self._render(asked)
        if self._converse is None:
            raise InputError(f"row {asked.row_id}: {unwritten(asked, self.name)}")
        return self._converse(asked)

    def asking(self, form: str) -> "Template":
        """The same template for questions that are put into `form`, a text with `{prompt}` in it, first."""
        return replace(
            self,
            _render=lambda question: self.render(worded(question, form)),
            _converse=self._converse and (lambda dialogue: self.render(worded(dialogue, form))),
        )


def unwritten(dialogue: Dialogue, template: str) -> str:
    """What a template other than `chat` cannot write of a dialogue, and the way out."""
    roles = [message["role"] for message in dialogue.messages]
    other = next((role for role in roles if role != "user"), "")
    what = f"a turn of role {other!r}" if other else "tools" if dialogue.tools else f"{len(roles)} turns of the user"
    return f'the prompt has {what}, but data.template = {template!r} writes one question alone; set it to "chat"'


Asked = TypeVar("Asked", str, Dialogue)


def worded(asked: Asked, form: str) -> Asked:
    """A question in its form, a text with `{prompt}` in it; of a dialogue the last turn of the user."""
    fill = _filler(form)
    if isinstance(asked, str):
        return fill(asked)
    messages = list(asked.messages)
    last = max(place for place, message in enumerate(messages) if message["role"] == "user")
    messages[last] = {**messages[last], "content": fill(messages[last]["content"])}
    return replace(asked, messages=tuple(messages))


def load_template(name: str, tokenizer: Any) -> Template:
    """A template by name, or from a text file with `{prompt}` in it.

    Args:
        name: `plain` (the question alone), `r1-zero`, `chat` (the model's own chat template), or a path.
        tokenizer: of the model; only `chat` uses it.

    Raises:
        InputError: unknown name, unreadable file, no `{prompt}` in it, or a model without a chat template.
    """
    if name == "plain":
        return Template(name, str)
    if name == "r1-zero":
        return Template(name, _filler(R1_ZERO))
    if name == "chat":
        return _chat_template(tokenizer)
    return Template(name, _filler(_read(name)))


def _chat_template(tokenizer: Any) -> Template:
    if not getattr(tokenizer, "chat_template", None):
        model = getattr(tokenizer, "name_or_path", "") or "this model"
        raise InputError(
            f"data.template = 'chat': {model} has no chat template; use data.template=r1-zero or data.template=plain"
        )

    def render(question: str) -> str:
        messages = [{"role": "user", "content": question}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def converse(dialogue: Dialogue) -> str:
        return dialogue_prompt(dialogue, tokenizer)

    return Template("chat", render, _closing(tokenizer), converse)


def _closing(tokenizer: Any) -> str:
    """What the chat template of a tokenizer writes behind a turn of the assistant, without the end of sequence."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    _, shown, closing = text.rpartition(_MARK)
    # Line ends belong to what comes next, as in rollout/data/conversations.py.
    return closing.rstrip().removesuffix(tokenizer.eos_token or "").rstrip() if shown else ""


def _filler(text: str) -> Callable[[str], str]:
    # Not str.format: templates and questions (code, TeX) have braces of their own.
    return lambda question: text.replace(PLACEHOLDER, question)


def _read(name: str) -> str:
    """Text of a template file, without the one line end that editors put at the end of every file."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(
            f"data.template = {name!r}: not one of {', '.join(SHIPPED)}, and no file is there"
            f"{did_you_mean(name, SHIPPED)}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"data.template = {name!r}: cannot be read: {error}") from None
    if PLACEHOLDER not in text:
        raise InputError(f"data.template = {name!r}: the file has no {PLACEHOLDER} for the question; add it")
    return text.removesuffix("\n")
