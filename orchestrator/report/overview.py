"""The curves of every stage in one glance: for each kind of stage those that say whether it did its work."""

import html
import math
from collections.abc import Sequence

from orchestrator.config.stage_kinds import kind_of
from orchestrator.report.charts import Chart, Series, draw, shared_legend, thin
from orchestrator.results.columns import SHARES, cons_name
from orchestrator.results.table import Results
from orchestrator.run.record import Record, StageRecord, as_number

POINTS = 60
"""Of a series; these charts are small."""


def glance_section(stages: Sequence[StageRecord], results: Results) -> str:
    """Small charts by kind of stage, so that stages of a kind can be compared; empty where no stage has curves.

    Of a single stage only the accuracy: its other curves stand open below.
    """
    if len(stages) == 1:
        accuracy = draw(accuracy_chart(stages[0], results, legend=True))
        return (
            f'<section id="curves"><h2>Accuracy</h2><div class="charts">{accuracy}</div></section>' if accuracy else ""
        )
    blocks = [
        _reinforcement([stage for stage in stages if kind_of(stage).is_rl], results),
        _block(
            "Supervised fine-tuning", [_loss(stage) for stage in stages if kind_of(stage).learns_from == "examples"]
        ),
        _block("Preferences", [c for stage in stages if kind_of(stage).learns_from == "pairs" for c in _pairs(stage)]),
    ]
    body = "".join(blocks)
    return f'<section id="curves"><h2>Curves</h2>{body}</section>' if body else ""


def _block(title: str, charts: Sequence[Chart]) -> str:
    drawn = "".join(map(draw, charts))
    return f'<h3>{title}</h3><div class="charts small">{drawn}</div>' if drawn else ""


def _reinforcement(stages: Sequence[StageRecord], results: Results) -> str:
    """A line a stage: accuracy, length and reward next to each other."""
    lines = []
    for stage in stages:
        charts = "".join(map(draw, (accuracy_chart(stage, results), _length(stage, results), _reward(stage))))
        if charts:
            name = html.escape(stage.name)
            title = f'<h4><a href="#stage-{name}">{name}</a></h4>'
            lines.append(f'<article>{title}<div class="charts small">{charts}</div></article>')
    if not lines:
        return ""
    legend = shared_legend(list(results.leading)) if len(results.leading) > 1 else ""
    return f'<h3>Reinforcement learning</h3>{legend}<div class="glance">{"".join(lines)}</div>'


def accuracy_chart(stage: StageRecord, results: Results, legend: bool = False) -> Chart:
    """Every evaluation of a stage: the leading figure of each set, from where the stage began.

    `legend`: also where several sets could share one.
    """
    several = len(results.leading) > 1
    series = []
    for name, leading in results.leading.items():
        for key in (leading,) if several else SHARES:
            words = cons_name(stage.evals) if key == "cons@k" else key.replace("_", " ")
            line = _evaluated(stage.evals, [name], key, name if several else words, 100)
            series.append(_begun_at(line, _start(stage, results, name, key)))
    title = "Win rate" if results.usual == "win_rate" else "Accuracy"
    return Chart(title=title, unit="% of problems", series=tuple(series), to=100, legend=legend or not several)


def _start(stage: StageRecord, results: Results, name: str, key: str) -> float | None:
    """What the model that the stage began with was judged to be."""
    began = next((row.before for row in results.rows if row.stage == stage.name and row.before), None)
    return as_number(began.records.get(name, {}).get(key)) if began else None


def _begun_at(line: Series, start: float | None) -> Series:
    if start is None or not math.isfinite(start) or not line.points or line.points[0][0] <= 0:
        return line
    return Series(label=line.label, points=((0.0, 100 * start), *line.points))


def _length(stage: StageRecord, results: Results) -> Chart:
    series = (
        _steps(stage, "completion/length_mean", "training"),
        _evaluated(stage.evals, list(results.sets), "length_mean", "evaluations", 1),
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
    judged = [_evaluated(stage.pair_evals, [name], "accuracy", name, 100) for name in sets]
    ordered = (_steps(stage, "preference/accuracy", "training", 100), *judged)
    loss = _steps(stage, "learner/loss", "training")
    return [
        Chart(title=f"{stage.name}, loss", unit="nats per pair", series=(loss,)),
        Chart(title=f"{stage.name}, pairs in order", unit="%", to=100, series=ordered),
    ]


def _steps(stage: StageRecord, key: str, label: str, times: float = 1) -> Series:
    return _series(label, [(record["step"], record.get(key)) for record in stage.steps], times)


def _evaluated(records: Sequence[Record], sets: Sequence[str], key: str, label: str, times: float) -> Series:
    """Mean over sets at every step at which all of them were evaluated; of two evaluations of a set the later counts."""
    found: dict[float, dict[str, float]] = {}
    for record in records:
        value, name = as_number(record.get(key)), str(record.get("set", ""))
        if name in sets and value is not None and math.isfinite(value):
            found.setdefault(record["step"], {})[name] = value
    most = max(map(len, found.values()), default=0)
    means = [(step, sum(v.values()) / len(v)) for step, v in sorted(found.items()) if len(v) == most]
    return _series(label, means, times)


def _series(label: str, values: Sequence[tuple[float, object]], times: float) -> Series:
    points = [(float(x), times * y) for x, value in values if (y := as_number(value)) is not None and math.isfinite(y)]
    return Series(label=label, points=tuple(thin(points, POINTS)))
