"""Horizontal bars of segments as static SVG that stretches to its column. Colours are classes of the style sheet."""

import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    colour: str
    """Class of the style sheet."""
    share: float
    """Of the whole width, between 0 and 1."""
    words: str
    """Shown to the pointer and read aloud."""


def bar(segments: Sequence[Segment]) -> str:
    """The segments next to each other, from the left; those of no width are left out."""
    parts, left = [], 0.0
    for one in segments:
        if one.share > 0:
            parts.append(
                f'<rect class="{one.colour}" x="{_percent(left)}" width="{_percent(one.share)}" height="100%">'
                f"<title>{html.escape(one.words)}</title></rect>"
            )
        left += one.share
    spoken = html.escape("; ".join(one.words for one in segments if one.share > 0))
    return f'<svg class="bar" role="img" aria-label="{spoken}">{"".join(parts)}</svg>'


def _percent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"
