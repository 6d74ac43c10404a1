"""The curves of every stage in one glance: for each kind of stage those that say whether it did its work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.config.stage_kinds import kind_of
from orchestrator.report.charts import Chart, Drawing, DrawingGroup, Key, Series, draw, draw_all, shared_legend, thin
from orchestrator.report.render import Section
from orchestrator.results.columns import SHARES, cons_name
from orchestrator.results.table import Results
from orchestrator.results.words import as_finite
from orchestrator.run.record import Record, StageRecord

POINTS = 60
"""Most points of a series; these charts are small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageGlance:
    """A stage of reinforcement learning: accuracy, length and reward next to each other."""

    stage: str
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    accuracy: Drawing | None
    """The accuracy of the only stage, whose other curves stand open below; None: there are several."""
    legend: tuple[Key, ...] = ()
    """Legend that all charts of accuracy share; empty: each has its own."""
    glances: tuple[StageGlance, ...] = ()
    groups: tuple[DrawingGroup, ...] = ()
    """The charts of stages that learn from examples or pairs."""


def overview_section(stages: Sequence[StageRecord], results: Results) -> Section | None:
    """Small charts by kind of stage, so that stages of a kind can be compared; None where no stage has curves."""
    if len(stages) == 1:
        accuracy = draw(accuracy_chart(stages[0], results, legend=True))
        return _section(Overview(accuracy=accuracy)) if accuracy else None
    glances = tuple(_glances([stage for stage in stages if kind_of(stage).is_rl], results))
    charts = {
        "Supervised fine-tuning": [_loss(stage) for stage in stages if kind_of(stage).learns_from == "examples"],
        "Preferences": [c for stage in stages if kind_of(stage).learns_from == "pairs" for c in _pairs(stage)],
    }
    groups = [DrawingGroup(title=title, drawings=draw_all(own)) for title, own in charts.items()]
    groups = [group for group in groups if group.drawings]
    if not glances and not groups:
        return None
    legend = shared_legend(list(results.leading)) if glances and len(results.leading) > 1 else ()
    return _section(Overview(accuracy=None, legend=legend, glances=glances, groups=tuple(groups)))


def _section(overview: Overview) -> Section:
    return Section(anchor="curves", title="Curves", template="overview.html.j2", content=overview)


def _glances(stages: Sequence[StageRecord], results: Results) -> Iterator[StageGlance]:
    for stage in stages:
        drawings = draw_all((accuracy_chart(stage, results), _length(stage, results), _reward(stage)))
        if drawings:
            yield StageGlance(stage=stage.name, drawings=drawings)


def accuracy_chart(stage: StageRecord, results: Results, legend: bool = False) -> Chart:
    """Every evaluation of a stage: the leading figure of each set, from where the stage began.

    `legend`: also where several sets could share one.
    """
    several = len(results.leading) > 1
    series = []
    for name, leading in results.leading.items():
        for key in (leading,) if several else SHARES:
            words = cons_name(stage.evals) if key == "cons@k" else key.replace("_", " ")
            line = _evaluations(stage.evals, [name], key, name if several else words, 100)
            series.append(_begin_at(line, _start(stage, results, name, key)))
    title = "Win rate" if results.usual == "win_rate" else "Accuracy"
    return Chart(title=title, unit="% of problems", series=tuple(series), to=100, legend=legend or not several)


def _start(stage: StageRecord, results: Results, name: str, key: str) -> float | None:
    """The figure of the model that the stage began with; None: it was not evaluated."""
    began = next((row.before for row in results.rows if row.stage == stage.name and row.before), None)
    return as_finite(began.records.get(name, {}).get(key)) if began else None


def _begin_at(line: Series, start: float | None) -> Series:
    if start is None or not line.points or line.points[0][0] <= 0:
        return line
    return Series(label=line.label, points=((0.0, 100 * start), *line.points))


def _length(stage: StageRecord, results: Results) -> Chart:
    series = (
        _steps(stage, "completion/length_mean", "training"),
        _evaluations(stage.evals, list(results.sets), "length_mean", "evaluations", 1),
    )
    return Chart(title="Completion length", unit="tokens", series=series)


def _reward(stage: StageRecord) -> Chart:
    return Chart(title="Reward", series=(_steps(stage, "reward/mean", "reward"),))


def _loss(stage: StageRecord) -> Chart:
    held_out = sorted({key for record in stage.steps for key in record if key.startswith("held_out_loss/")})
    others = [_steps(stage, key, key.removeprefix("held_out_loss/")) for key in held_out]
    return Chart(
        title=f"{stage.name}, loss", unit="nats per token", series=(_steps(stage, "learner/loss", "training"), *others)
    )


def _pairs(stage: StageRecord) -> list[Chart]:
    sets = dict.fromkeys(str(record.get("set", "")) for record in stage.pair_evals)
    held_out = [_evaluations(stage.pair_evals, [name], "accuracy", name, 100) for name in sets]
    ordered = (_steps(stage, "preference/accuracy", "training", 100), *held_out)
    loss = _steps(stage, "learner/loss", "training")
    return [
        Chart(title=f"{stage.name}, loss", unit="nats per pair", series=(loss,)),
        Chart(title=f"{stage.name}, pairs in order", unit="%", to=100, series=ordered),
    ]


def _steps(stage: StageRecord, key: str, label: str, times: float = 1) -> Series:
    return _series(label, [(record["step"], record.get(key)) for record in stage.steps], times)


def _evaluations(records: Sequence[Record], sets: Sequence[str], key: str, label: str, times: float) -> Series:
    """Mean over sets at every step at which all of them were evaluated; of two evaluations of a set the later counts."""
    found: dict[float, dict[str, float]] = {}
    for record in records:
        value, name = as_finite(record.get(key)), str(record.get("set", ""))
        if name in sets and value is not None:
            found.setdefault(record["step"], {})[name] = value
    most = max(map(len, found.values()), default=0)
    means = [(step, sum(v.values()) / len(v)) for step, v in sorted(found.items()) if len(v) == most]
    return _series(label, means, times)


def _series(label: str, values: Sequence[tuple[float, object]], times: float) -> Series:
    points = [(float(x), times * y) for x, value in values if (y := as_finite(value)) is not None]
    return Series(label=label, points=tuple(thin(points, POINTS)))
