"""Prompt templates: from a question to the exact text that is tokenised."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rollout.data.conversations import dialogue_prompt, rendered
from rollout.data.known_sets import PLACEHOLDER
from rollout.data.rows import Dialogue, Message, Row
from rollout.data.template_settings import JINJA, SHIPPED, is_chat
from rollout.data.thoughts import learned_behind
from rollout.errors import InputError, did_you_mean

R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
    "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
    "User: {prompt}. Assistant:"
)
"""Table 1 of the DeepSeek-R1 paper (arXiv:2501.12948), with the question where the table has `prompt`."""

NO_CHAT_TEMPLATE = "use data.template=r1-zero or data.template=plain, or give one in a file: data.template=FILE.jinja"
"""What to do with a model that has no chat template."""
_MARK = "\ue000reply\ue000"


@dataclass(frozen=True, slots=True)
class Template:
    """Turns a question into the text of a prompt."""

    name: str
    """`plain`, `r1-zero`, `chat`, or the path of a file of text or of Jinja."""
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

    def of_row(self, row: Row) -> str:
        """The text of what a row asks. Raises InputError, with the row, where it cannot be written."""
        try:
            return self.render(row.asked)
        except InputError as problem:
            named = f"row {row.row_id}: "
            raise InputError(f"{named}{str(problem).removeprefix(named)}") from None

    def reply_of_row(self, row: Row, prompt: str, given: str) -> str:
        """A response that a row has, as it stands behind its prompt, with what closes a reply. Raises InputError, with the row."""
        try:
            return learned_behind(prompt, given) + self.closing
        except InputError as problem:
            raise InputError(f"row {row.row_id}: {problem}") from None

    def asking(self, form: str) -> "Template":
        """The same template for questions that are put into `form`, a text with `{prompt}` in it, first."""
        return replace(
            self,
            _render=lambda question: self.render(worded(question, form)),
            _converse=self._converse and (lambda dialogue: self.render(worded(dialogue, form))),
        )

    def behind(self, shots: str | Sequence[Message]) -> "Template":
        """The same template with something before every prompt: text, or turns of a conversation, which stand behind a system
        turn and which chat templates alone can write.
        """
        if isinstance(shots, str):
            return replace(self, _render=lambda question: shots + self.render(question))
        converse = self._converse
        assert converse is not None, f"{self.name} writes no turns"

        def write(dialogue: Dialogue) -> str:
            first = next(
                (i for i, message in enumerate(dialogue.messages) if message["role"] not in SYSTEM_ROLES),
                len(dialogue.messages),
            )
            messages = (*dialogue.messages[:first], *shots, *dialogue.messages[first:])
            return converse(replace(dialogue, messages=messages))

        def ask(question: str) -> str:
            return write(Dialogue(row_id="", messages=({"role": "user", "content": question},)))

        return replace(self, _render=ask, _converse=write)


def unwritten(dialogue: Dialogue, template: str) -> str:
    """What a template other than `chat` cannot write of a dialogue, and the way out."""
    roles = [message["role"] for message in dialogue.messages]
    other = next((role for role in roles if role != "user"), "")
    what = f"a turn of role {other!r}" if other else "tools" if dialogue.tools else f"{len(roles)} turns of the user"
    return f'the prompt has {what}, but data.template = {template!r} writes one question alone; set it to "chat"'


SYSTEM_ROLES = ("system", "developer")


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
        name: `plain` (the question alone), `r1-zero`, `chat` (the model's own chat template), or the path of a file; one of
            Jinja is the chat template that the tokenizer has been dressed with (rollout/data/chat_template.py).
        tokenizer: of the model; only chat templates use it.

    Raises:
        InputError: unknown name, unreadable file, no `{prompt}` in it, or a model without a chat template.
    """
    if name == "plain":
        return Template(name, str)
    if name == "r1-zero":
        return Template(name, _filler(R1_ZERO))
    if is_chat(name):
        return _chat_template(name, tokenizer)
    return Template(name, _filler(_read(name)))


def _chat_template(name: str, tokenizer: Any) -> Template:
    if not getattr(tokenizer, "chat_template", None):
        model = getattr(tokenizer, "name_or_path", "") or "this model"
        raise InputError(f"data.template = {name!r}: {model} has no chat template; {NO_CHAT_TEMPLATE}")

    def render(question: str) -> str:
        return rendered([{"role": "user", "content": question}], tokenizer, ask=True)

    def converse(dialogue: Dialogue) -> str:
        return dialogue_prompt(dialogue, tokenizer)

    return Template(name, render, _closing(tokenizer), converse)


def _closing(tokenizer: Any) -> str:
    """What the chat template of a tokenizer writes behind a turn of the assistant, without the end of sequence."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    text = rendered(messages, tokenizer, ask=False)
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
        jinja = f"name it {path.stem}{JINJA[0]} if it is a chat template" if "{%" in text or "{{" in text else "add it"
        raise InputError(f"data.template = {name!r}: the file has no {PLACEHOLDER} for the question; {jinja}")
    return text.removesuffix("\n")
