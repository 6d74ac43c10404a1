"""Worked examples, or a text, that stand before every question."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rollout.data.conversations import dialogue_prompt
from rollout.data.known_sets import PLACEHOLDER
from rollout.data.readers import reader_of
from rollout.data.rows import HUB, Dialogue, Message, Row, Source
from rollout.data.sources import load_rows
from rollout.data.template_settings import FewShot, is_chat
from rollout.data.templates import SYSTEM_ROLES, Template
from rollout.errors import InputError

BETWEEN = "\n\n"
"""What stands between examples, and between the last and the question."""
NAMED = "data.few_shot"


def with_few_shot(template: Template, few_shot: FewShot, tokenizer: Any) -> Template:
    """A template that writes examples before every question.

    A text is put before the question. Examples are turns of user and assistant in a chat template; elsewhere each is the prompt
    with its completion directly behind it, as an example is learned.

    Raises:
        InputError: the file cannot be read, or the chat template drops something of an example.
    """
    if not is_text(few_shot.path):
        rows = examples_of(few_shot)
        if not is_chat(template.name):
            return template.behind("".join(_written(rows, template)))
        turns = [message for row in rows for message in _turns(row)]
        _check_shown(turns, tokenizer)
        return template.behind(turns)
    return template.asking(text_of(few_shot) + BETWEEN + PLACEHOLDER)


def check_file(few_shot: FewShot) -> None:
    """Raises InputError when the file cannot be read, or its rows are no examples."""
    if is_text(few_shot.path):
        text_of(few_shot)
    else:
        examples_of(few_shot)


def example_questions(few_shot: FewShot) -> frozenset[str]:
    """The questions of the examples, without white space at their ends; none of a text."""
    return frozenset() if is_text(few_shot.path) else frozenset(row.question.strip() for row in examples_of(few_shot))


def is_text(path: str) -> bool:
    """Whether a file is text, rather than data in a format that sources have."""
    file = Path(path).expanduser()
    return not path.startswith(HUB) and not file.is_dir() and reader_of(file) is None


def text_of(few_shot: FewShot) -> str:
    """The text, without the line ends at its end. Raises InputError."""
    named, path = f"{NAMED}.path = {few_shot.path!r}", Path(few_shot.path).expanduser()
    try:
        text = path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{named}: cannot be read: {error}") from None
    if not text.strip():
        raise InputError(f"{named}: the file is empty")
    if PLACEHOLDER in text:
        raise InputError(
            f"{named}: the file has {PLACEHOLDER} in it, as a template has: give it as data.template, or remove the mark"
        )
    return text


def examples_of(few_shot: FewShot) -> list[Row]:
    """The rows of a data file of examples. Raises InputError."""
    source = Source(
        name="few_shot",
        path=few_shot.path,
        prompt_column=few_shot.prompt_column,
        completion_column=few_shot.completion_column,
        answer_column="",
        limit=few_shot.limit,
    )
    try:
        return load_rows(source, seed=0)
    except InputError as problem:
        message = str(problem).removeprefix(f"source {source.name!r}: ")
        raise InputError(f"{NAMED}: {message}") from None


def _written(rows: Sequence[Row], template: Template) -> Iterator[str]:
    for row in rows:
        prompt = template.of_row(row)
        yield prompt + template.reply_of_row(row, prompt, row.completion) + BETWEEN


def _turns(row: Row) -> list[Message]:
    asked = row.dialogue.messages if row.dialogue else ({"role": "user", "content": row.question},)
    if any(message["role"] in SYSTEM_ROLES for message in asked):
        raise InputError(
            f"{NAMED}: {row.place} has a system turn, of which a conversation has one: say it in data.system"
        )
    return [*asked, {"role": "assistant", "content": row.completion}]


def _check_shown(turns: Sequence[Message], tokenizer: Any) -> None:
    """Raises InputError where a chat template drops something of the examples, a thought included."""
    try:
        dialogue_prompt(
            Dialogue(row_id="", messages=(*turns, {"role": "user", "content": "?"})), tokenizer, thoughts=True
        )
    except InputError as problem:
        raise InputError(f"{NAMED}: {problem}") from None
