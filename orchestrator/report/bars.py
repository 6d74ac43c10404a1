"""Horizontal bars of segments, which stretch to their column. Colours are classes of the style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    colour: str
    """Class of the style sheet."""
    share: float
    """Part of the whole width that the segment takes, between 0 and 1."""
    words: str
    """Shown to the pointer and read aloud."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarPart:
    """A segment with its place."""

    colour: str
    words: str
    x: str
    """Left end, in per cent of the bar."""
    width: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    parts: tuple[BarPart, ...]
    spoken: str
    """The bar in words, for those who do not see it."""


def bar(segments: Sequence[Segment]) -> Bar:
    """The segments next to each other, from the left; those of no width are left out."""
    parts, left = [], 0.0
    for one in segments:
        if one.share > 0:
            parts.append(BarPart(colour=one.colour, words=one.words, x=_width(left), width=_width(one.share)))
        left += one.share
    return Bar(parts=tuple(parts), spoken="; ".join(part.words for part in parts))


def _width(share: float) -> str:
    """As SVG writes it: `12.5%`."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"
