"""Fenced blocks of a text, as Markdown has them and as models write them. Linear in the length of the text."""

import re
from typing import NamedTuple

from rollout.data.thoughts import ANSWER_CLOSE, ANSWER_OPEN

_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})([^`]*)")
_LATE_FENCE = re.compile(r"[^`]*?()(`{3,})(py(?:thon)?[\d.]*\s*)", re.IGNORECASE)
"""An opening fence behind words of its line; only where it says that it is Python."""


class Block(NamedTuple):
    language: str
    """What stands behind the opening fence."""
    text: str
    """The lines between the fences, without the indentation of the opening one."""
    start: int
    """Offset of the opening fence."""
    end: int
    """Offset behind the closing fence; the length of the text where there is none."""
    closed: bool
    """Whether there is a closing fence."""


def fenced_blocks(text: str) -> list[Block]:
    """Every fenced block, in order; one that nobody closed goes to the end. Answer tags beside a fence are no part of it."""
    blocks: list[Block] = []
    opened: re.Match[str] | None = None
    content: list[str] = []
    ends: list[int] = []  # of the lines of the content
    start = end = -1
    for line in text.split("\n"):
        begin, end = end + 1, end + 1 + len(line)
        bare = line.strip().removeprefix(ANSWER_OPEN).removesuffix(ANSWER_CLOSE)
        fence = _FENCE.fullmatch(line if len(bare) == len(line.strip()) else bare)
        if opened is None:
            opened, content, ends = fence or _LATE_FENCE.fullmatch(line.rstrip()), [], []
            start = begin + line.index(opened[2]) if opened else -1
        elif fence and _closes(fence, opened):
            blocks.append(Block(opened[3].strip(), "\n".join(content), start, end, True))
            opened = None
        else:
            content.append(line.removeprefix(opened[1]))
            ends.append(end)
    if opened is not None:
        last = _late_close(content, opened[2])
        if last is None:
            blocks.append(Block(opened[3].strip(), "\n".join(content), start, len(text), False))
        else:
            inside = [*content[:last], _before_close(content[last]).removesuffix(opened[2])]
            blocks.append(Block(opened[3].strip(), "\n".join(inside), start, ends[last], True))
    return blocks


def _closes(fence: re.Match[str], opened: re.Match[str]) -> bool:
    same = fence[2][0] == opened[2][0] and len(fence[2]) >= len(opened[2]) and not fence[3].strip()
    return same and len(fence[1]) < len(opened[1]) + 4  # deeper, it belongs to the program: a docstring with a fence


def _late_close(content: list[str], mark: str) -> int | None:
    """In a block without a closing line, the first line that has the mark at its end."""
    return next((number for number, line in enumerate(content) if _before_close(line).endswith(mark)), None)


def _before_close(line: str) -> str:
    return line.rstrip().removesuffix(ANSWER_CLOSE).rstrip()
