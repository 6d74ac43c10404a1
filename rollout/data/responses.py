"""Responses of a row that are given as conversations: what is said before the last turn is the prompt, the last turn the response.

So a preference pair may be two conversations that go the same way up to their last turns, with the prompt in a column of its own
or without one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rollout.data.columns import found_values
from rollout.data.conversations import as_text
from rollout.data.messages import messages_of
from rollout.data.readers import quote
from rollout.data.rows import Message, Source
from rollout.errors import InputError

COLUMNS = ("completion_column", "chosen_column", "rejected_column", "baseline_column")
"""Keys of a source that name responses."""


def with_responses(where: str, values: Mapping[str, Any], source: Source) -> Mapping[str, Any]:
    """The values of a row with its conversations taken apart: responses are text, and the prompt is what they answer.

    Raises:
        InputError: a conversation does not end with the assistant, or two of them do not answer the same.
    """
    texts: dict[str, str] = {}
    head: Sequence[Message] = ()
    headed = ""
    for column in dict.fromkeys(filter(None, (getattr(source, key) for key in COLUMNS))):
        value = next(found_values(values, column), None)
        if not _is_conversation(value):
            continue
        *before, last = messages_of(where, value, column)
        if last["role"] != "assistant" or last.get("tool_calls"):
            does = "calls tools" if last.get("tool_calls") else f"is of role {last['role']!r}"
            raise InputError(
                f"{where}: column {column!r}: its last message {does}; a response is a text that the assistant writes"
            )
        if before and head and before != head:
            raise InputError(
                f"{where}: columns {headed!r} and {column!r} differ before their last messages, and one turn of the assistant is "
                "compared: cut both behind the turn in which they part"
            )
        if before and not head:
            head, headed = before, column
        texts[column] = as_text(last)
    if not head:
        return {**values, **texts} if texts else values
    given = next(found_values(values, source.prompt_column), None)
    if not given and source.prompt_column != "prompt":
        return {**values, **texts}  # a column that was named and is not there is told by who reads it
    _check_same(where, given, source.prompt_column, head, headed)
    return {**values, **texts, source.prompt_column: list(head)}


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _check_same(where: str, given: Any, column: str, head: Sequence[Message], headed: str) -> None:
    """Raises InputError where the prompt of a row is not what its response answers."""
    if _is_conversation(given):
        same = list(messages_of(where, given, column)) == list(head)
    else:
        same = not given or str(given).strip() == head[-1]["content"].strip()
    if not same:
        raise InputError(
            f"{where}: the prompt in column {column!r} is {quote(given)}, but {headed!r} answers "
            f"{quote(head[-1]['content'])}; remove one of the two"
        )
