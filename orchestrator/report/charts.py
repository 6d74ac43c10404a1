"""Line and area charts, as the values that the page's template draws: static SVG, readable without scripts.

By hand: a plotting library would put pictures here that do not follow light and dark, or its own script into every report.

Colours are classes `s0`, `s1`, …, which the style sheet fills in for light and dark. The values of a chart are given once
more as JSON, where the script of the page finds them for its tooltips.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.report.axes import BOX, Box, Scale, XTick, YTick, one_place, short, x_ticks, y_axis, y_ticks

Point = tuple[float, float]
"""(x, y); x is a step."""

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
    band: tuple[tuple[float, float, float], ...] = ()
    """(x, low, high) of an interval round the line, x ascending; empty: none is drawn."""


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
    """The y axis includes this value, so that charts of one scale can be compared."""
    x_label: str = "step"
    legend: bool = True
    """Off where charts next to each other have one legend."""
    not_finite: int = 0
    """Values that were NaN or infinite and could not be drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An entry of a legend."""

    css: str
    """Classes of the style sheet."""
    label: str
    last: str = ""
    """Last value of the series; empty: not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """A layer of a stack."""

    css: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    css: str
    path: str
    """Empty for a single point."""
    colour: str
    """Class of the dots."""
    dots: tuple[tuple[str, str], ...]
    """(x, y) of every point; empty where there are too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A chart with every place in it worked out, in units of the box."""

    chart: Chart
    box: Box
    last: str
    """Last value of the only series; empty where there are several, or no legend."""
    keys: tuple[Key, ...]
    y_ticks: tuple[YTick, ...]
    x_ticks: tuple[XTick, ...]
    areas: tuple[Area, ...]
    lines: tuple[Line, ...]
    spoken: str
    """The chart in a sentence, for those who do not see it."""
    values: dict[str, Any]
    """What the tooltips tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingGroup:
    """Drawings next to each other."""

    title: str
    """Empty: no heading."""
    drawings: tuple[Drawing, ...]


def draw_all(charts: Iterable[Chart]) -> tuple[Drawing, ...]:
    """The charts in which there is something to draw."""
    return tuple(drawing for chart in charts if (drawing := draw(chart)))


def draw(chart: Chart) -> Drawing | None:
    """The chart worked out; None where there is nothing to draw."""
    series = [one for one in chart.series if one.points]
    if not series:
        return None
    xs = sorted({x for one in series for x, _ in one.points})
    edges = _stack([one for one in series if one.style == "layer"], xs)
    heights = [y for edge in edges for y in edge] + [y for s in series if s.style != "layer" for _, y in s.points]
    heights += [y for one in series for _, low, high in one.band for y in (low, high)]
    if chart.to is not None:
        heights.append(chart.to)
    levels = y_axis(min(heights), max(heights), from_zero=chart.from_zero)
    x_low, x_high = (xs[0], xs[-1]) if xs[0] < xs[-1] else (xs[0] - 1, xs[0] + 1)
    scale = Scale(x_low=x_low, x_high=x_high, y_low=levels[0], y_high=levels[-1])
    colours = _colours(series)
    return Drawing(
        chart=chart,
        box=BOX,
        last=short(series[0].points[-1][1]) if chart.legend and len(series) == 1 else "",
        keys=_keys(series, colours) if chart.legend and len(series) > 1 else (),
        y_ticks=tuple(y_ticks(scale, levels)),
        x_ticks=tuple(x_ticks(scale)),
        areas=(*_areas(scale, series, colours, edges, xs), *_bands(scale, series, colours)),
        lines=_lines(scale, series, colours),
        spoken=_spoken(chart, series),
        values=_values(chart, series, colours, xs, scale),
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


def shared_legend(labels: Sequence[str]) -> tuple[Key, ...]:
    """One legend for several charts, each of which has lines of all these names in this order."""
    return tuple(Key(css=f"line s{place % COLOURS}", label=label) for place, label in enumerate(labels))


def _stack(layers: list[Series], xs: list[float]) -> list[list[float]]:
    """Upper edge of the floor and of each layer at every x; a layer without a value there has thickness 0."""
    if not layers:
        return []
    edges = [[0.0] * len(xs)]
    for layer in layers:
        values = dict(layer.points)
        edges.append([below + values.get(x, 0.0) for below, x in zip(edges[-1], xs, strict=True)])
    return edges


def _colours(series: list[Series]) -> list[str]:
    """A class for each series; lines over a stack are in ink, to stand out from the layers."""
    stacked = any(one.style == "layer" for one in series)
    return ["ink" if stacked and one.style != "layer" else f"s{index % COLOURS}" for index, one in enumerate(series)]


def _keys(series: list[Series], colours: list[str]) -> tuple[Key, ...]:
    return tuple(
        Key(css=f"{one.style} {colour}", label=one.label, last=short(one.points[-1][1]))
        for one, colour in zip(series, colours, strict=True)
    )


def _areas(
    scale: Scale, series: list[Series], colours: list[str], edges: list[list[float]], xs: list[float]
) -> tuple[Area, ...]:
    """The layers, each between its edge and the one below it."""
    layers = [colour for one, colour in zip(series, colours, strict=True) if one.style == "layer"]
    areas = []
    for place, colour in enumerate(layers):
        low, high = (list(zip(xs, edge, strict=True)) for edge in edges[place : place + 2])
        areas.append(Area(css=f"layer {colour}", path=f"{scale.path([*high, *reversed(low)])}Z"))
    return tuple(areas)


def _bands(scale: Scale, series: list[Series], colours: list[str]) -> Iterator[Area]:
    """The intervals round the lines."""
    for one, colour in zip(series, colours, strict=True):
        if len(one.band) > 1:
            edge = [(x, high) for x, _, high in one.band] + [(x, low) for x, low, _ in reversed(one.band)]
            yield Area(css=f"band {colour}", path=f"{scale.path(edge)}Z")


def _lines(scale: Scale, series: list[Series], colours: list[str]) -> tuple[Line, ...]:
    lines = []
    for index, (one, colour) in enumerate(zip(series, colours, strict=True)):
        if one.style == "layer":
            continue
        dashed = one.style == "dashed" or index >= COLOURS
        few = len(one.points) <= MARKED_POINTS
        lines.append(
            Line(
                css=f"line {colour}{' dashed' if dashed else ''}",
                path=scale.path(one.points) if len(one.points) > 1 else "",
                colour=colour,
                dots=tuple((one_place(scale.x(x)), one_place(scale.y(y))) for x, y in one.points if few),
            )
        )
    return tuple(lines)


def _spoken(chart: Chart, series: list[Series]) -> str:
    parts = [
        f"{one.label}: {short(one.points[0][1])} at {chart.x_label} {short(one.points[0][0])}, "
        f"{short(one.points[-1][1])} at {chart.x_label} {short(one.points[-1][0])}"
        for one in series
    ]
    return f"{chart.title}{f' in {chart.unit}' if chart.unit else ''}. {'; '.join(parts)}."


def _values(chart: Chart, series: list[Series], colours: list[str], xs: list[float], scale: Scale) -> dict[str, Any]:
    """The x values once, and the label, the class and the y values of each series (null: none there)."""
    rows = []
    for one, colour in zip(series, colours, strict=True):
        values = dict(one.points)
        rows.append({"n": one.label, "c": f"{one.style} {colour}", "y": [_round(values.get(x)) for x in xs]})
    box = [_round(scale.x_low), _round(scale.x_high), BOX.left, BOX.plot_width, BOX.top, BOX.plot_height]
    return {"label": chart.x_label, "box": box, "x": [_round(x) for x in xs], "s": rows}


def _round(value: float | None) -> float | int | None:
    """Five significant digits, and no `.0`."""
    if value is None:
        return None
    number = float(f"{value:.5g}") if abs(value) < 1e5 else float(round(value))
    return int(number) if number.is_integer() and abs(number) < 1e15 else number
