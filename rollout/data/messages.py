"""Messages and tools of a row, in the forms in which files hold them."""

import json
from collections.abc import Mapping
from typing import Any

from rollout.data.readers import quote
from rollout.data.rows import Message
from rollout.errors import InputError

TOOLS = "tools"
"""Column of the tools of a conversation, where there is one."""


def messages_of(where: str, listed: Any, column: str) -> tuple[Message, ...]:
    """The messages of a column. Raises InputError when it holds anything but a list of messages."""
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{where}: column {column!r} is {quote(listed)}, not a list of messages")
    return tuple(_message(f"{where}: message {i} of column {column!r}", each) for i, each in enumerate(listed, 1))


def tools_of(where: str, value: Any) -> tuple[Mapping[str, Any], ...]:
    """The tools of a conversation: a list of objects, or JSON text of one; none where the column is missing or empty."""
    try:
        listed = json.loads(value) if isinstance(value, str) and value.strip() else value or ()
    except ValueError:
        listed = value
    if not isinstance(listed, list | tuple) or not all(isinstance(each, Mapping) for each in listed):
        raise InputError(f"{where}: column {TOOLS!r} is {quote(value)}, not a list of tools")
    return tuple(_without_none(each) for each in listed)


def _without_none(value: Any) -> Any:
    """A table gives every object the keys of all; what is not there is None."""
    if isinstance(value, Mapping):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value


def _message(where: str, value: Any) -> Message:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {quote(value)}, not an object with role and content")
    message = {"content": "", **_without_none(value)}
    if isinstance(message["content"], list) and all(part.get("type") == "text" for part in message["content"]):
        message["content"] = "".join(str(part.get("text", "")) for part in message["content"])
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            raise InputError(f"{where}: {key} is {quote(value.get(key))}, not text; it has: {', '.join(value)}")
    says_more = message.get("tool_calls") or str(message.get("reasoning_content", "")).strip()
    if not message["content"].strip() and message["role"] != "system" and not says_more:
        raise InputError(f"{where}: the content of role {value['role']!r} is empty; fill it or remove the row")
    for call in message.get("tool_calls", ()):
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        if isinstance(arguments := function.get("arguments"), str):
            # As an API writes them; chat templates write out an object.
            function["arguments"] = _parsed(arguments)
    return message


def _parsed(text: str) -> Any:
    """JSON text as what it says; other text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text
