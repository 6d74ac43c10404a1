"""A comparison in words and as tables of text."""

from collections.abc import Iterator

from orchestrator.results.bootstrap import Estimate
from orchestrator.results.columns import Figure
from orchestrator.results.comparison import OVER_SETS, Compared, Comparison, SetComparison
from orchestrator.results.paired import Difference
from orchestrator.results.sides import differences

SURENESS = ((0.001, "almost certain"), (0.01, "very likely"), (0.05, "likely"))
"""p below which a difference is called so."""
SETTINGS_TOLD = 8
"""Settings that differ which are listed."""


def sentences(comparison: Comparison) -> Iterator[str]:
    """One for every set and side: whether it is better than the first, by the most telling figure, and how sure that is."""
    first, *others = comparison.sides
    for each in comparison.sets:
        row = each.rows[0]
        for place, side in enumerate(others):
            yield f"{each.name}: {_sentence(row, row.differences[place], first.letter, side.letter)}"


def _sentence(row: Compared, found: Difference, a: str, b: str) -> str:
    figure, unit = row.figure, _unit(row.figure)
    low, high = figure.change(found.estimate.low), figure.change(found.estimate.high)
    amount = f"{figure.change(found.estimate.value)}{unit} in {figure.head} (95 %: {low} to {high}; {p_words(found.p)})"
    if not found.sure:
        return f"no clear difference between {a} and {b}: {amount}"
    better = found.estimate.value > 0
    if figure.better:
        return f"{b} is {'better' if better else 'worse'} than {a}, {sureness(found)}: {amount}"
    return f"{b} has {'more' if better else 'less'} than {a}, {sureness(found)}: {amount}"


def _unit(figure: Figure) -> str:
    return {"%": " points", "tokens": " tokens"}.get(figure.unit, "")


def sureness(found: Difference) -> str:
    """How sure a difference is, in words."""
    return next((words for bound, words in SURENESS if found.p < bound), "may be chance")


def verdict(row: Compared, found: Difference, letter: str) -> str:
    """`B better`; for a figure in which neither direction is better `B more`; `unclear` where the difference may be chance."""
    if not found.sure:
        return "unclear"
    up = found.estimate.value > 0
    return f"{letter} {('better' if up else 'worse') if row.figure.better else ('more' if up else 'less')}"


def p_words(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(figure: Figure, estimate: Estimate) -> str:
    """`71.2 (68.0–74.3)`."""
    low, high = figure.bare(estimate.low), figure.bare(estimate.high)
    return f"{figure.bare(estimate.value)} ({low}{' to ' if estimate.low < 0 else '–'}{high})".replace("-", "−")


def change(figure: Figure, found: Difference) -> str:
    """`+3.1 (+0.4 to +5.8)`."""
    estimate = found.estimate
    return f"{figure.change(estimate.value)} ({figure.change(estimate.low)} to {figure.change(estimate.high)})"


def head(figure: Figure) -> str:
    return f"{figure.head} %" if figure.unit == "%" else figure.head


def title(each: SetComparison) -> str:
    return each.name if each.name == OVER_SETS else f"{each.name}, {each.problems:,} problems"


def tables(comparison: Comparison) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """(title, heads, rows) of every set, and of every side beside the first where there are several."""
    first, *others = comparison.sides
    for each in comparison.sets:
        if not others:
            rows = [[head(row.figure), interval(row.figure, row.estimates[0])] for row in each.rows]
            yield title(each), ["figure", f"{first.letter} (95 %)"], rows
        for place, side in enumerate(others):
            lines = []
            for row in each.rows:
                found = row.differences[place]
                estimates = [interval(row.figure, row.estimates[at]) for at in (0, place + 1)]
                lines.append(
                    [
                        head(row.figure),
                        *estimates,
                        change(row.figure, found),
                        p_words(found.p).removeprefix("p = ").removeprefix("p "),
                        verdict(row, found, side.letter),
                    ]
                )
            heads = [
                "figure",
                f"{first.letter} (95 %)",
                f"{side.letter} (95 %)",
                f"{side.letter} − {first.letter}",
                "p",
                "verdict",
            ]
            yield title(each), heads, lines


def settings_told(comparison: Comparison) -> Iterator[str]:
    """What the recipes of the sides differ in."""
    first, *others = comparison.sides
    for side in others:
        found = differences(first, side)
        more = f" and {len(found) - SETTINGS_TOLD} more" if len(found) > SETTINGS_TOLD else ""
        if found:
            yield f"{first.letter} → {side.letter}: {'; '.join(found[:SETTINGS_TOLD])}{more}"
