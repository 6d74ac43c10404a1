"""Rows of a `.json` file: a list of objects, or objects one behind the other, a line each or over several.

Read piece by piece: such a file may hold more than memory does.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rollout.data.json_text import DECODER, json_text
from rollout.data.text_files import pieces
from rollout.errors import InputError

_BLANKS = re.compile(r"[ \t\r\n]*")
_NEAR = 16
"""Characters; where an error stands nearer to the end of what was read, more text may mend it."""


class _Text:
    """What is read of a file and not yet decoded."""

    def __init__(self, path: Path) -> None:
        self._pieces = pieces(path)
        self.held = ""
        self.place = 0
        """Where in `held` the next thing begins."""
        self.line = 1
        """Number of the line of `place`."""
        self.ended = False

    def more(self) -> None:
        """Reads on, about as much again as is held: what is long is not tried piece by piece."""
        parts = [self.held[self.place :]]
        size = len(parts[0])
        wanted = 2 * size
        while not self.ended and size <= wanted:
            part = next(self._pieces, None)
            self.ended = part is None
            parts.append(part or "")
            size += len(parts[-1])
        self.held, self.place = "".join(parts), 0

    def go_to(self, place: int) -> None:
        self.line += self.held.count("\n", self.place, place)
        self.place = place

    def sign(self) -> str:
        """The next character that is no blank, to which it goes; empty at the end."""
        while True:
            blanks = _BLANKS.match(self.held, self.place)
            assert blanks is not None, "an empty match is one"
            self.go_to(blanks.end())
            if self.place < len(self.held) or self.ended:
                return self.held[self.place : self.place + 1]
            self.more()


def json_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where it stands, column → value) of every row.

    Raises:
        InputError: the text is no JSON, something in it is not an object, or it goes on behind the list.
    """
    text = _Text(path)
    if text.sign() == "[":
        yield from _listed(path, text)
        return
    while text.sign():
        where = f"{path}:{text.line}"
        yield where, _object(text, where)


def _listed(path: Path, text: _Text) -> Iterator[tuple[str, Mapping[str, Any]]]:
    row = 0
    text.go_to(text.place + 1)
    if text.sign() != "]":
        while True:
            where = f"{path}: row {row} (from 0)"
            yield where, _object(text, where)
            row += 1
            if text.sign() != ",":
                break
            text.go_to(text.place + 1)
    if text.sign() != "]":
        raise InputError(f"{path}:{text.line}: not valid JSON: neither a comma nor ] behind row {row - 1} (from 0)")
    text.go_to(text.place + 1)
    if text.sign():
        raise InputError(f"{path}:{text.line}: not valid JSON: there is more behind the list")


def _object(text: _Text, where: str) -> Mapping[str, Any]:
    text.sign()
    while True:
        try:
            value, end = DECODER.raw_decode(text.held, text.place)
        except json.JSONDecodeError as error:
            cut = error.msg.startswith("Unterminated string") or error.pos >= len(text.held) - _NEAR
            if cut and not text.ended:
                text.more()
                continue
            text.go_to(error.pos)
            raise InputError(f"{where}: not valid JSON: {error.msg} at line {text.line} column {error.colno}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON: {error}") from None
        if not isinstance(value, dict):
            shown = json_text(value)
            raise InputError(f"{where}: is {shown[:60]}, not an object with columns")
        text.go_to(end)
        return value
