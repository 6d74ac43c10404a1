"""Charts: what is drawn, and what is not."""

import re
from pathlib import Path

import pytest

from orchestrator.report.axes import short
from orchestrator.report.charts import Chart, Drawing, Series, draw, thin


def drawing(*series: Series, from_zero: bool = True) -> Drawing:
    drawn = draw(Chart(title="t", series=series, from_zero=from_zero))
    assert drawn is not None
    return drawn


def test_a_chart_without_points_is_not_drawn() -> None:
    assert draw(Chart(title="Empty", series=(Series(label="a", points=()),))) is None


@pytest.mark.parametrize("ys", [(0.0, 0.0), (5.0, 5.0), (-1e-9, 1e-9), (1e9, 3e9), (1.0, 1.0 + 1e-12), (-3.0, -1.0)])
@pytest.mark.parametrize("from_zero", [True, False])
def test_tick_labels_differ_and_lines_stay_inside(ys: tuple[float, float], from_zero: bool) -> None:
    points = tuple(enumerate(ys, start=1))
    drawn = drawing(Series(label="a", points=points), from_zero=from_zero)
    labels = [tick.label for tick in drawn.y_ticks]
    assert len(labels) == len(set(labels)) >= 2
    (line,) = drawn.lines
    assert len(line.dots) == 2
    for x, y in line.dots:
        assert 46 <= float(x) <= 390
        assert 10 <= float(y) <= 172


def test_layers_stand_on_each_other() -> None:
    low = Series(label="low", points=((1, 1.0), (2, 1.0)), style="layer")
    high = Series(label="high", points=((1, 3.0), (2, 3.0)), style="layer")
    first, second = (area.path for area in drawing(low, high).areas)
    # The upper edge of the stack, 4, is the top of the axis; the lower layer ends at a quarter of it.
    assert first.startswith("M46 131.5L")
    assert second.startswith("M46 10L")
    assert second.endswith("L46 131.5Z")


def test_thinning_keeps_means_or_peaks() -> None:
    points = [(float(x), float(x % 2)) for x in range(1, 101)]
    assert thin(points, 200) == points
    assert {y for _, y in thin(points, 50)} == {0.5}
    assert {y for _, y in thin(points, 50, largest=True)} == {1.0}
    assert thin(points, 50)[-1][0] == 100.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.8125, "0.812"), (-2e-6, "−2e-6"), (1e-4, "1e-4"), (1250, "1250"), (12_500, "12.5k"), (3e6, "3M")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_the_script_reads_what_a_chart_tells_it() -> None:
    script = (Path(__file__).parents[3] / "orchestrator/report/templates/report.js").read_text(encoding="utf-8")
    read = set(re.findall(r"\bdata\.(\w+)", script)) - {"set"}
    assert read == set(drawing(Series(label="a", points=((1, 1.0),))).values)
