"""Where a text may be divided: brackets and separators."""

import re
from collections.abc import Collection

_OPEN, _CLOSE = "([{", ")]}"
_WITHIN = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d])(?!,\d)")


def split(text: str, separator: str, kept: Collection[int] = ()) -> list[str]:
    """At separators outside of all brackets, but for those at the positions `kept`."""
    if separator not in text:
        return [text]
    parts, level, begin, at = [], 0, 0, 0
    while at < len(text):
        sign = text[at]
        if sign in _OPEN:
            level += 1
        elif sign in _CLOSE:
            level = max(0, level - 1)
        elif level == 0 and at not in kept and text.startswith(separator, at):
            parts.append(text[begin:at])
            begin = at + len(separator)
            at = begin - 1
        at += 1
    return [*parts, text[begin:]]


def split_commas(text: str) -> list[str]:
    """At commas, but for those within a number: 1,000, 2,000 are two, and 1,000\\pi is one."""
    within = {match.start() + at for match in _WITHIN.finditer(text) for at, sign in enumerate(match[0]) if sign == ","}
    return split(text, ",", within)


def depth_at(text: str, end: int) -> int:
    """Brackets that are open before `end`."""
    return sum((sign in _OPEN) - (sign in _CLOSE) for sign in text[:end])


def closing(text: str, start: int, mixed: bool = False) -> int:
    """Where the bracket at `start` is closed; -1 where it is not. Mixed: `(` may be closed by `]`, as in intervals."""
    level = 0
    for at in range(start, len(text)):
        level += (text[at] in _OPEN) - (text[at] in _CLOSE)
        if level == 0:
            matches = _CLOSE[_OPEN.index(text[start])] == text[at] or (mixed and text[at] in ")]")
            return at if matches else -1
    return -1
