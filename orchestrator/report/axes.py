"""The box of a chart, its axes, and the numbers on them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Size of a chart and of the margins around its plot, in units that the page scales to its column."""

    width: int = 400
    height: int = 190
    left: int = 46
    right: int = 10
    top: int = 10
    bottom: int = 18

    @property
    def plot_width(self) -> int:
        return self.width - self.left - self.right

    @property
    def plot_height(self) -> int:
        return self.height - self.top - self.bottom


BOX = Box()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values → units of the box."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return BOX.left + BOX.plot_width * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        return BOX.top + BOX.plot_height * (self.y_high - value) / (self.y_high - self.y_low)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        """The `d` of a polyline."""
        return "M" + "L".join(f"{one_place(self.x(x))} {one_place(self.y(y))}" for x, y in points)


@dataclass(frozen=True, slots=True, kw_only=True)
class YTick:
    """A level line and its number."""

    css: str
    """Class of the style sheet."""
    y: str
    text_y: str
    """Base line of the number."""
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class XTick:
    """A number below the plot."""

    x: str
    label: str


def one_place(value: float) -> str:
    """A coordinate: `131.5`, `10`."""
    return f"{value:.1f}".removesuffix(".0")


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


def y_axis(low: float, high: float, *, from_zero: bool) -> list[float]:
    """Ticks of the y axis: round numbers, the first and the last of which enclose the values."""
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    # A line that is constant up to rounding must look flat, and its tick labels must differ.
    margin = max(abs(low), abs(high)) * 1e-3
    if high - low <= margin:
        low, high = (low - margin, high + margin) if margin else (0.0, 1.0)
    size = _round_step((high - low) / 4)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [index * size for index in range(first, last + 1)]


def y_ticks(scale: Scale, values: Sequence[float]) -> list[YTick]:
    """Values of the y axis as they are drawn; the lowest is the axis itself."""
    return [
        YTick(
            css="grid" if index else "axis",
            y=one_place(scale.y(value)),
            text_y=one_place(scale.y(value) + 3.5),
            label=label,
        )
        for index, (value, label) in enumerate(zip(values, _tick_labels(values), strict=True))
    ]


def x_ticks(scale: Scale) -> list[XTick]:
    """Numbers below the plot, whole ones only: there is no half step."""
    low, high = scale.x_low, scale.x_high
    size = max(1.0, _round_step((high - low) / 5))
    if size == 2.5:
        size = 5.0
    ticks = [index * size for index in range(math.ceil(low / size), math.floor(high / size) + 1)]
    # The name of the axis stands at the right end.
    room = BOX.width - BOX.right - 34
    return [XTick(x=one_place(scale.x(tick)), label=short(tick)) for tick in ticks if scale.x(tick) < room]


def _round_step(size: float) -> float:
    """The smallest of 1, 2, 2.5, 5, 10 × 10ⁿ that is at least `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(base * power for base in (1, 2, 2.5, 5, 10) if base * power >= size * (1 - 1e-9))


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """As many places as the ticks need to differ, the same for all of them."""
    largest, size = max(abs(tick) for tick in ticks), ticks[1] - ticks[0]
    if largest >= 1e4 or largest < 1e-3:
        return [short(tick) if tick else "0" for tick in ticks]
    places = max(0, -math.floor(math.log10(size) + 1e-9))
    if abs(round(size, places) - size) > size * 1e-6:
        places += 1
    return [f"{tick:.{places}f}".replace("-", "−") if tick else "0" for tick in ticks]
