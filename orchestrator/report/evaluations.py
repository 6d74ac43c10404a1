"""Charts of evaluations with intervals: figures over steps, and pass@k and cons@k over k; of a run, and of sides next to each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.report.charts import Chart, DrawingGroup, Series, draw_all
from orchestrator.report.render import Section
from orchestrator.results.bootstrap import Estimate, estimate, over_runs, resampled_means
from orchestrator.results.columns import Record
from orchestrator.results.outcomes import consensus, coverage, fingerprint_of, outcomes_of, samples_of, values_of
from orchestrator.run.record import StageRecord

BY_INTERVAL = "Shaded: 95 % interval by the choice of problems."
OVER_STEPS = (
    ("greedy", "Greedy accuracy", "% of problems", 100, "One answer without chance."),
    (
        "pass@1",
        "Accuracy of samples, pass@1",
        "% of samples",
        100,
        "Share of the k samples of a problem that is right.",
    ),
    ("cons@k", "Accuracy of the vote, cons@k", "% of problems", 100, "The most frequent of the k answers is right."),
    ("won", "Win rate", "% of prompts", 100, "Ties for one half."),
    ("tokens", "Length", "tokens", 1, "Growth together with accuracy is reasoning."),
    (
        "reflections",
        "Re-checks",
        "a thought",
        1,
        "How often a thought says that it checks itself, by the recipe's word list.",
    ),
)
"""(key, title, unit, factor, hint) of the charts over steps."""
TOGETHER = ("greedy", "pass@1", "cons@k")
"""Keys that share a chart where one run is shown."""
FEWEST_STEPS = 2
"""A chart over steps has at least so many."""

RESAMPLES = 1_000
"""Resamples of the bands: fewer than for a test, for they are drawn again while a run goes on."""
OPEN_GROUPS = 3
"""More groups of charts are folded away at first."""

Lines = Mapping[str, Sequence[Sequence[Record]]]
"""Label → the evaluations of every run of it, of one set, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    groups: tuple[DrawingGroup, ...]
    hint: str
    opened: bool


def evaluations_section(stages: Sequence[StageRecord]) -> Section | None:
    """The charts of every stage and set of a run; None where no evaluation kept what it counted."""
    groups = []
    for stage in stages:
        for name in dict.fromkeys(str(record.get("set", "")) for record in stage.evals):
            records = [record for record in stage.evals if record.get("set") == name and fingerprint_of(record)]
            # Intervals are of one set of problems.
            records = [record for record in records if fingerprint_of(record) == fingerprint_of(records[-1])]
            charts = [*_accuracies(records), *_over_k_of_run(records)]
            drawings = draw_all(charts)
            if drawings:
                groups.append(DrawingGroup(title=f"{stage.name}, {name}", drawings=drawings))
    return section(groups) if groups else None


def section(groups: Sequence[DrawingGroup]) -> Section:
    content = Evaluations(groups=tuple(groups), hint=BY_INTERVAL, opened=len(groups) <= OPEN_GROUPS)
    return Section(anchor="evaluations", title="Evaluations", template="evaluations.html.j2", content=content)


def over_steps(lines: Lines, key: str) -> Chart:
    """One figure over the steps at which every run of a label was evaluated, a line a label."""
    _, title, unit, times, hint = next(each for each in OVER_STEPS if each[0] == key)
    series = tuple(_line(label, runs, key, times) for label, runs in lines.items())
    return Chart(title=title, unit=unit, hint=hint, series=series)


def over_k(lines: Lines, of: Callable[[Record], np.ndarray], title: str, hint: str) -> Chart:
    """A figure of the newest evaluations over k, a line a label."""
    series = []
    for label, runs in lines.items():
        tables = [of(records[-1]) for records in runs]
        most = min(map(len, tables))
        points = {k: [table[k - 1] for table in tables] for k in range(1, most + 1)}
        series.append(_series(label, points, 100))
    return Chart(title=title, unit="% of problems", hint=hint, series=tuple(series), x_label="k")


def can_vote(lines: Lines) -> bool:
    """Whether every run's newest evaluation has several samples with votes."""
    return _several(lines) and all("votes" in outcomes_of(records[-1]) for runs in lines.values() for records in runs)


def over_k_charts(lines: Lines) -> list[Chart]:
    """pass@k and cons@k of the newest evaluations, where all have several samples."""
    charts = []
    if can_vote(lines):
        charts.append(over_k(lines, consensus, "Vote of k, cons@k", "What the majority of k samples is worth."))
    if _several(lines):
        charts.append(
            over_k(
                lines,
                coverage,
                "Best of k, pass@k",
                "At least one of k samples is right: what the model can do at all.",
            )
        )
    return charts


def _several(lines: Lines) -> bool:
    return bool(lines) and all(samples_of(records[-1]) > 1 for runs in lines.values() for records in runs)


def _accuracies(records: Sequence[Record]) -> list[Chart]:
    """Charts over steps of one run: the accuracies together, then length and re-checks."""
    runs = [records]
    words = {"cons@k": f"cons@{samples_of(records[-1])}"} if records else {}
    together = tuple(_line(words.get(key, key), runs, key, 100) for key in TOGETHER)
    others = [over_steps({key: runs}, key) for key, *_ in OVER_STEPS if key not in TOGETHER]
    shown = [Chart(title="Accuracy", unit="% of problems", series=together), *others]
    return [chart for chart in shown if any(len(one.points) >= FEWEST_STEPS for one in chart.series)]


def _over_k_of_run(records: Sequence[Record]) -> list[Chart]:
    if not records:
        return []
    first, last = records[0], records[-1]
    lines: dict[str, list[list[Record]]] = {f"step {last['step']}": [[last]]}
    if first["step"] != last["step"]:
        lines = {f"step {first['step']}": [[first]], **lines}
    charts = []
    if _several(lines):
        series = [one for chart in over_k_charts(lines) for one in _renamed(chart)]
        charts = [
            Chart(
                title="Vote and best of k",
                unit="% of problems",
                x_label="k",
                hint="cons@k: the majority of k samples is right; pass@k: at least one is.",
                series=tuple(series),
            )
        ]
    return charts


def _renamed(chart: Chart) -> list[Series]:
    name = chart.title.rpartition(", ")[2]
    return [Series(label=f"{name}, {one.label}", points=one.points, band=one.band) for one in chart.series]


def _line(label: str, runs: Sequence[Sequence[Record]], key: str, times: float) -> Series:
    """A figure over the steps that all runs have."""
    by_run = [{int(record["step"]): record for record in records if "step" in record} for records in runs]
    points = {}
    for step in sorted(set.intersection(*map(set, by_run))) if by_run else ():
        records = [each[step] for each in by_run]
        values = [values_of(record, key if key != "cons@k" else f"cons@{samples_of(record)}") for record in records]
        known = [each for each in values if each is not None]
        if len(known) == len(values):
            points[step] = known
    if key == "reflections" and not any(np.nansum(each) for values in points.values() for each in values):
        points = {}
    return _series(label, points, times)


def _series(label: str, points: Mapping[int, Sequence[np.ndarray]], times: float) -> Series:
    """A line with its band. `points`: x → [P] values by problem of every run."""
    found = _estimates(points)
    return Series(
        label=label,
        points=tuple((float(x), times * each.value) for x, each in found.items()),
        band=tuple((float(x), times * each.low, times * each.high) for x, each in found.items()),
    )


def _estimates(points: Mapping[int, Sequence[np.ndarray]]) -> dict[int, Estimate]:
    points = {x: values for x, values in points.items() if not all(np.isnan(each).all() for each in values)}
    if not points:
        return {}
    counts = [len(values) for values in points.values()]
    means = resampled_means(np.concatenate([np.array(values) for values in points.values()]), resamples=RESAMPLES)
    parts = np.split(means, np.cumsum(counts)[:-1])
    return {
        x: estimate(float(np.nanmean(values)), over_runs(drawn, seed=1))
        for (x, values), drawn in zip(points.items(), parts, strict=True)
    }
