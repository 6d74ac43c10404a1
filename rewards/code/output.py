"""Whether what a program printed is what its test expects: line by line, token by token, numbers as numbers.

Blanks separate tokens, how many plays no part, and lines without tokens are left out. A number with a fraction is met within
a tolerance; a whole number where one is expected must be that number. Anything else compares as text, and so do digits that
begin with a needless zero (`007`), which are no number's usual form. Linear in the length of both texts.
"""

import re
from collections.abc import Iterator
from decimal import Context, Decimal

from rewards.sandbox.types import Tolerance

_NUMBER = re.compile(rb"(?<![\w.])([+-]?(?:(?:0|[1-9]\d*)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,4})?)(?![\w.])")
"""A number that stands by itself: alone, or between brackets, commas and the like."""
_WHOLE = re.compile(rb"[+-]?\d+")
_LONGEST = 1000
"""Characters of the longest number; what is longer is text."""
_EXACTLY = Context(prec=2 * _LONGEST)


def same_output(printed: bytes, expected: bytes, tolerance: Tolerance) -> bool:
    """Whether both have the same lines, but for blanks, empty lines and numbers that the tolerance calls equal."""
    lines, wanted = _lines(printed), _lines(expected)
    for line in wanted:
        given = next(lines, None)
        if given != line and (given is None or not _same_line(given, line, tolerance)):
            return False
    return next(lines, None) is None


def _lines(text: bytes) -> Iterator[list[bytes]]:
    """The tokens of each line that has some."""
    return filter(None, map(bytes.split, text.split(b"\n")))


def _same_line(given: list[bytes], wanted: list[bytes], tolerance: Tolerance) -> bool:
    return len(given) == len(wanted) and all(
        one == other or _same_token(one, other, tolerance) for one, other in zip(given, wanted, strict=True)
    )


def _same_token(given: bytes, wanted: bytes, tolerance: Tolerance) -> bool:
    """Text and numbers take turns in both: `(0.5,1)` is text, number, text, number, text."""
    parts, others = _NUMBER.split(given), _NUMBER.split(wanted)
    return len(parts) == len(others) and all(
        one == other or (place % 2 == 1 and _same_number(one, other, tolerance))
        for place, (one, other) in enumerate(zip(parts, others, strict=True))
    )


def _same_number(given: bytes, wanted: bytes, tolerance: Tolerance) -> bool:
    if max(len(given), len(wanted)) > _LONGEST:
        return False
    one, other = Decimal(given.decode()), Decimal(wanted.decode())
    if one == other:
        return True
    if _WHOLE.fullmatch(wanted):
        return not _WHOLE.fullmatch(given) and _distance(one, other) <= tolerance.absolute
    return _distance(one, other) <= max(Decimal(tolerance.absolute), abs(other) * Decimal(tolerance.relative))


def _distance(one: Decimal, other: Decimal) -> Decimal:
    return abs(_EXACTLY.subtract(one, other))
