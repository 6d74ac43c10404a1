"""Line and area charts as static SVG, readable without scripts.

A chart is drawn for a box of `WIDTH` × `HEIGHT` units that the page scales to its column. Colours are classes `s0`,
`s1`, …, which the style sheet fills in for light and dark. The values are repeated in `data-chart`, where the script
of the page finds them for its tooltips.
"""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
"""(x, y); x is a step."""

WIDTH, HEIGHT = 400, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 18
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
COLOURS = 7
"""Classes `s0` … `s6` of the style sheet; a further series starts over, dashed."""
MARKED_POINTS = 24
"""A line of at most this many points shows each of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line (or one layer of a stack) of a chart."""

    label: str
    points: tuple[Point, ...]
    """x ascending, y finite."""
    style: Literal["line", "dashed", "layer"] = "line"
    """`layer`: stacked on the layers before it; the others are drawn over the stack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What is drawn, and what a reader who never saw such a curve is told about it."""

    title: str
    unit: str = ""
    """Unit of the y axis; empty: a plain number."""
    hint: str = ""
    """One sentence: what to look for."""
    series: tuple[Series, ...]
    from_zero: bool = True
    """The y axis includes 0."""
    to: float | None = None
    """And this, so that charts of one scale can be compared."""
    marks: tuple[tuple[float, str], ...] = ()
    """(x, name): a part of the x axis with a name of its own starts here."""
    x_label: str = "step"
    legend: bool = True
    """Off where charts next to each other have one legend."""
    not_finite: int = 0
    """Values that were NaN or infinite and could not be drawn."""


def draw(chart: Chart) -> str:
    """The chart as an HTML `<figure>`; the empty string where there is nothing to draw."""
    series = [one for one in chart.series if one.points]
    if not series:
        return ""
    xs = sorted({x for one in series for x, _ in one.points})
    layers = _stack([one for one in series if one.style == "layer"], xs)
    heights = [y for top in layers for y in top] + [y for s in series if s.style != "layer" for _, y in s.points]
    if chart.to is not None:
        heights.append(chart.to)
    y_low, y_high, y_ticks = _axis(min(heights), max(heights), from_zero=chart.from_zero)
    x_low, x_high = (xs[0], xs[-1]) if xs[0] < xs[-1] else (xs[0] - 1, xs[0] + 1)
    scale = _Scale(x_low=x_low, x_high=x_high, y_low=y_low, y_high=y_high)
    body = [
        *_grid(scale, y_ticks, _x_ticks(x_low, x_high)),
        *_marks(scale, chart.marks),
        *_shapes(scale, series, layers, xs),
    ]
    spoken = html.escape(_spoken(chart, series))
    x_label = f'<text class="x-label" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}">{html.escape(chart.x_label)}</text>'
    return (
        f'<figure class="chart" data-chart="{html.escape(_values(chart, series, xs, scale))}">'
        f"<figcaption>{_caption(chart, series)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{spoken}">'
        f'{"".join(body)}{x_label}</svg><div class="below">{_below(chart)}</div></figure>'
    )


def thin(points: list[Point], limit: int, *, largest: bool = False) -> list[Point]:
    """At most `limit` points: neighbours are averaged, or, where a peak is what counts, the largest is kept."""
    if len(points) <= limit:
        return points
    size = math.ceil(len(points) / limit)
    thinned = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        ys = [y for _, y in bucket]
        thinned.append((bucket[-1][0], max(ys) if largest else math.fsum(ys) / len(ys)))
    return thinned


def short(value: float) -> str:
    """A number in about six characters, three digits or whole: `0.812`, `1250`, `12.5k`, `2e-6`."""
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    elif size >= 1e4:
        unit, suffix = next(pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if size >= pair[0])
        text = f"{value / unit:.4g}{suffix}"
    else:
        text = f"{value:.3g}" if size < 999.5 else f"{value:.0f}"
    return f"−{text[1:]}" if text.startswith("-") else text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Values → units of the box."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + PLOT_WIDTH * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        return TOP + PLOT_HEIGHT * (self.y_high - value) / (self.y_high - self.y_low)

    def path(self, points: list[Point]) -> str:
        """The `d` of a polyline."""
        return "M" + "L".join(f"{_places(self.x(x))} {_places(self.y(y))}" for x, y in points)


def _places(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _stack(layers: list[Series], xs: list[float]) -> list[list[float]]:
    """Upper edge of the floor and of each layer at every x; a layer without a value there has thickness 0."""
    if not layers:
        return []
    tops = [[0.0] * len(xs)]
    for layer in layers:
        values = dict(layer.points)
        tops.append([below + values.get(x, 0.0) for below, x in zip(tops[-1], xs, strict=True)])
    return tops


def _axis(low: float, high: float, *, from_zero: bool) -> tuple[float, float, list[float]]:
    """Ends and ticks of the y axis: round numbers that enclose the values."""
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    # A line that is constant up to rounding must look flat, and its tick labels must differ.
    margin = max(abs(low), abs(high)) * 1e-3
    if high - low <= margin:
        low, high = (low - margin, high + margin) if margin else (0.0, 1.0)
    size = _round_step((high - low) / 4)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return first * size, last * size, [index * size for index in range(first, last + 1)]


def _round_step(size: float) -> float:
    """The smallest of 1, 2, 2.5, 5, 10 × 10ⁿ that is at least `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(base * power for base in (1, 2, 2.5, 5, 10) if base * power >= size * (1 - 1e-9))


def _x_ticks(low: float, high: float) -> list[float]:
    """Whole numbers only: there is no half step."""
    size = max(1.0, _round_step((high - low) / 5))
    if size == 2.5:
        size = 5.0
    return [index * size for index in range(math.ceil(low / size), math.floor(high / size) + 1)]


def _tick_labels(ticks: list[float]) -> list[str]:
    """As many places as the ticks need to differ, the same for all of them."""
    largest, size = max(abs(tick) for tick in ticks), ticks[1] - ticks[0]
    if largest >= 1e4 or largest < 1e-3:
        return [short(tick) if tick else "0" for tick in ticks]
    places = max(0, -math.floor(math.log10(size) + 1e-9))
    if abs(round(size, places) - size) > size * 1e-6:
        places += 1
    return [f"{tick:.{places}f}".replace("-", "−") if tick else "0" for tick in ticks]


def _grid(scale: _Scale, y_ticks: list[float], x_ticks: list[float]) -> list[str]:
    parts = []
    for tick, label in zip(y_ticks, _tick_labels(y_ticks), strict=True):
        y = _places(scale.y(tick))
        css = "axis" if tick == y_ticks[0] else "grid"
        parts.append(f'<path class="{css}" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="y-tick" x="{LEFT - 6}" y="{_places(scale.y(tick) + 3.5)}">{label}</text>')
    for tick in x_ticks:
        x = scale.x(tick)
        # The name of the axis stands at the right end.
        if x < WIDTH - RIGHT - 34:
            parts.append(f'<text class="x-tick" x="{_places(x)}" y="{HEIGHT - 4}">{short(tick)}</text>')
    return parts


def _marks(scale: _Scale, marks: tuple[tuple[float, str], ...]) -> list[str]:
    parts = []
    for index, (start, name) in enumerate(marks):
        end = marks[index + 1][0] if index + 1 < len(marks) else scale.x_high
        left = scale.x(max(start, scale.x_low))
        room = int((scale.x(min(end, scale.x_high)) - left) / 6.2)
        if start > scale.x_low:
            parts.append(f'<path class="mark" d="M{_places(left)} {TOP}V{HEIGHT - BOTTOM}"/>')
        label = name if len(name) <= room else f"{name[: room - 1]}…" if room >= 4 else ""
        if label:
            label = html.escape(label)
            parts.append(f'<text class="mark-label" x="{_places(left)}" y="{TOP - 3}">{label}</text>')
    return parts


def _shapes(scale: _Scale, series: list[Series], layers: list[list[float]], xs: list[float]) -> list[str]:
    """Layers below, lines above; colours follow the order of the series."""
    areas, lines = [], []
    layer = 0
    colours = _colours(series)
    for index, one in enumerate(series):
        if one.style == "layer":
            layer += 1
            outline = [*zip(xs, layers[layer], strict=True), *reversed(list(zip(xs, layers[layer - 1], strict=True)))]
            areas.append(f'<path class="layer {colours[index]}" d="{scale.path(outline)}Z"/>')
            continue
        css = f"line {colours[index]}{' dashed' if one.style == 'dashed' or index >= COLOURS else ''}"
        if len(one.points) > 1:
            lines.append(f'<path class="{css}" d="{scale.path(list(one.points))}"/>')
        if len(one.points) <= MARKED_POINTS:
            places = [(_places(scale.x(x)), _places(scale.y(y))) for x, y in one.points]
            lines += [f'<circle class="dot {colours[index]}" cx="{x}" cy="{y}" r="2.4"/>' for x, y in places]
    return areas + lines


def _colours(series: list[Series]) -> list[str]:
    """A class for each series; lines over a stack are in ink, to stand out from the layers."""
    stacked = any(one.style == "layer" for one in series)
    return ["ink" if stacked and one.style != "layer" else f"s{index % COLOURS}" for index, one in enumerate(series)]


def _caption(chart: Chart, series: list[Series]) -> str:
    """Title with unit, and the legend with the last value of each series."""
    unit = f' <span class="unit">{html.escape(chart.unit)}</span>' if chart.unit else ""
    if not chart.legend:
        return f'<p class="chart-title">{html.escape(chart.title)}{unit}</p>'
    if len(series) == 1:
        last = f'<span class="last">{short(series[0].points[-1][1])}</span>'
        return f'<p class="chart-title">{html.escape(chart.title)}{unit}{last}</p>'
    keys = "".join(
        f'<li><i class="key {one.style} {colour}"></i>{html.escape(one.label)} <b>{short(one.points[-1][1])}</b></li>'
        for one, colour in zip(series, _colours(series), strict=True)
    )
    return f'<p class="chart-title">{html.escape(chart.title)}{unit}</p><ul class="legend">{keys}</ul>'


def shared_legend(labels: Sequence[str]) -> str:
    """Of lines of these names, in the order of their charts, where each chart has all of them."""
    keys = "".join(
        f'<li><i class="key line s{place % COLOURS}"></i>{html.escape(label)}</li>'
        for place, label in enumerate(labels)
    )
    return f'<ul class="legend">{keys}</ul>'


def _below(chart: Chart) -> str:
    """The hint, and a warning where values could not be drawn."""
    warning = ""
    if chart.not_finite:
        values = "value was" if chart.not_finite == 1 else "values were"
        warning = f'<p class="warning">{chart.not_finite} {values} NaN or infinite and could not be drawn.</p>'
    hint = f'<p class="hint">{html.escape(chart.hint)}</p>' if chart.hint else ""
    return hint + warning


def _spoken(chart: Chart, series: list[Series]) -> str:
    """The chart in a sentence, for those who do not see it."""
    parts = [
        f"{one.label}: {short(one.points[0][1])} at {chart.x_label} {short(one.points[0][0])}, "
        f"{short(one.points[-1][1])} at {chart.x_label} {short(one.points[-1][0])}"
        for one in series
    ]
    return f"{chart.title}{f' in {chart.unit}' if chart.unit else ''}. {'; '.join(parts)}."


def _values(chart: Chart, series: list[Series], xs: list[float], scale: _Scale) -> str:
    """JSON for the tooltips: the x values once, per series its label, class and y values (null: none there)."""
    rows = []
    for one, colour in zip(series, _colours(series), strict=True):
        values = dict(one.points)
        rows.append({"n": one.label, "c": f"{one.style} {colour}", "y": [_rounded(values.get(x)) for x in xs]})
    box = [_rounded(scale.x_low), _rounded(scale.x_high), LEFT, PLOT_WIDTH, TOP, PLOT_HEIGHT]
    marks = [[_rounded(x), name] for x, name in chart.marks]
    data = {"label": chart.x_label, "box": box, "x": [_rounded(x) for x in xs], "s": rows, "marks": marks}
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _rounded(value: float | None) -> float | int | None:
    """Five significant digits, and no `.0`."""
    if value is None:
        return None
    number = float(f"{value:.5g}") if abs(value) < 1e5 else float(round(value))
    return int(number) if number.is_integer() and abs(number) < 1e15 else number
