"""What a recipe says of templates: names, and what is said of a chat template besides. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CHAT = "chat"
"""Name of the model's own chat template."""
SHIPPED = ("plain", "r1-zero", CHAT)
"""Names of templates that are no files."""
JINJA = (".jinja", ".jinja2", ".j2")
"""Suffixes of chat templates in files."""


def is_chat(name: str) -> bool:
    """Whether `data.template` is a chat template: the model's own, or one in a file."""
    return name == CHAT or name.lower().endswith(JINJA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dress:
    """What a recipe says of the chat template of a model."""

    template: str = CHAT
    """`chat`, or the path of a Jinja file."""
    system: str = ""
    """System message of conversations that bring none; empty: none."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the template."""

    def __bool__(self) -> bool:
        """Whether there is anything to be said."""
        return self.template != CHAT or bool(self.system or self.args)


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShot:
    """Where the examples before every question come from."""

    path: str
    """A data file of examples, as of a source, or a file of text."""
    prompt_column: str = "prompt"
    completion_column: str = "completion"
    limit: int = 0
    """Take only the first rows; 0: all."""
