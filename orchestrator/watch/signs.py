"""Bars and sparklines of characters, in Unicode or in ASCII."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Signs:
    """The characters that a terminal can show."""

    levels: str
    """From the lowest to the highest."""
    full: str
    empty: str
    done: str
    now: str
    later: str
    arrow: str

    def bar(self, share: float, width: int) -> str:
        """`share` of `width` columns filled; something that is not nothing has one."""
        filled = min(width, round(share * width)) if share > 0 else 0
        filled = max(filled, 1 if share > 0.002 else 0)
        return self.full * filled

    def progress(self, share: float, width: int) -> str:
        """A bar with its rest."""
        filled = math.floor(min(1.0, max(0.0, share)) * width)
        return self.full * filled + self.empty * (width - filled)

    def spark(self, values: Sequence[float], width: int) -> str:
        """A curve of at most `width` columns, from its own least to its own greatest value; each column is a mean.

        A curve that does not move lies in the middle.
        """
        if not values:
            return ""
        columns = min(width, len(values))
        edges = [round(i * len(values) / columns) for i in range(columns + 1)]
        means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
        low, high = min(means), max(means)
        top = len(self.levels) - 1
        if high - low <= 1e-12 * max(abs(high), abs(low)):
            return self.levels[top // 2] * columns
        return "".join(self.levels[round((mean - low) / (high - low) * top)] for mean in means)


UNICODE = Signs("▁▂▃▄▅▆▇█", "█", "░", "✓", "▶", "·", "→")
ASCII = Signs("_.-=*#", "#", ".", "+", ">", "-", "->")


def signs_for(encoding: str | None) -> Signs:
    """The signs that an encoding has."""
    try:
        "".join((UNICODE.levels, UNICODE.empty, UNICODE.done, UNICODE.now, UNICODE.arrow)).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE
