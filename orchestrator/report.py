"""The HTML report of a run: evaluations, curves and samples in one file that opens anywhere.

Everything comes from the plain files of the run directory: `recipe.toml`, `metrics.jsonl` and `trajectories/`. The
page loads nothing from outside, and its content security policy forbids it to. Text that a model wrote is hostile: it
is escaped here, or handed to the script of the page as JSON, which puts it in as text and never as markup.
"""

import base64
import hashlib
import html
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.charts import Chart, Series, draw, thin
from rollout.errors import InputError

HERE = Path(__file__).parent

POINTS_A_SERIES = 200
"""A longer curve is thinned to this."""
SAMPLE_BYTES = 350_000
"""Budget of all browsable samples together."""
SAMPLE_SHAPES = (
    (12, 4, 8, 6000),
    (12, 4, 8, 3000),
    (12, 4, 8, 1500),
    (10, 3, 6, 1200),
    (8, 2, 4, 1000),
    (5, 2, 4, 900),
    (4, 2, 3, 500),
    (2, 1, 2, 200),
)
"""Steps of a stage, groups of a step, completions of a group, characters of a text: the first that fits is taken. Few
texts that can be followed are worth more than many stumps."""
EVAL_TEXT_LIMIT = 1500
"""Characters of one text in the before/after pairs."""

ACCURACIES = ("greedy", "pass@1", "cons@k")
"""Keys of an evaluation record that are shares of problems, the most telling first."""

Record = dict[str, Any]


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run directory and return its path. The run may still be going on.

    Raises:
        InputError: the directory holds no run, or its recipe or metrics cannot be read.
    """
    run = _read_run(run_dir)
    path = run_dir / "report.html"
    aside = run_dir / f".report-{os.getpid()}.html"
    try:
        # JSON may smuggle in half a surrogate pair, which UTF-8 cannot hold.
        aside.write_bytes(_page(run).encode("utf-8", "replace"))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def read_metrics(run_dir: Path) -> list[Record]:
    """The records of `metrics.jsonl` in order; none where the file does not exist yet.

    The last line may be torn (the run is writing it, or died while it did) and is then left out.

    Raises:
        InputError: any other line is not a JSON object.
    """
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), start=1) if line.strip()]
    records: list[Record] = []
    for number, line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif number != lines[-1][0]:
            raise InputError(f"{path}, line {number}: not a JSON object: {line[:60]!r}; remove the line to go on")
    return records


# What a run is ---------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Stage:
    """One stage of the recipe and what it has recorded so far."""

    name: str
    kind: str
    planned_steps: int
    """0: the recipe does not say."""
    steps: list[Record] = field(default_factory=list)
    evals: list[Record] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    """Unix seconds; more than one after a resume."""
    ended: bool = False
    seconds: float = 0.0
    """Time in the stage, without the gaps between a stop and its resume."""

    @property
    def last_step(self) -> int:
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def begun(self) -> bool:
        return bool(self.starts or self.steps or self.evals)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    directory: Path
    recipe: Record
    recipe_text: str
    stages: list[_Stage]
    first_time: float
    """Unix seconds of the first record; 0 when there is none."""
    last_time: float

    @property
    def finished(self) -> bool:
        return all(stage.ended for stage in self.stages)


def _read_run(run_dir: Path) -> _Run:
    path = run_dir / "recipe.toml"
    if not path.is_file():
        raise InputError(f"{run_dir}: holds no run (no recipe.toml in it); give the directory that a run writes to")
    try:
        text = path.read_text(encoding="utf-8")
        recipe = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}; restore it from the recipe of the run") from None
    records = read_metrics(run_dir)
    times = [time for record in records if (time := _number(record.get("time"))) is not None]
    return _Run(
        directory=run_dir,
        recipe=recipe,
        recipe_text=text,
        stages=_stages(recipe, records),
        first_time=min(times, default=0.0),
        last_time=max(times, default=0.0),
    )


def _stages(recipe: Record, records: list[Record]) -> list[_Stage]:
    """Stages of the recipe in order, then any that only the metrics know."""
    stages: dict[str, _Stage] = {}
    for entry in recipe.get("stages", []):
        name = str(entry.get("name", ""))
        planned = int(_number(entry.get("loop", {}).get("steps")) or 0)
        stages[name] = _Stage(name=name, kind=str(entry.get("kind", "")), planned_steps=planned)
    before: float | None = None
    for record in records:
        name = str(record.get("stage", ""))
        stage = stages.setdefault(name, _Stage(name=name, kind="grpo", planned_steps=0))
        _add(stage, record)
        time = _number(record.get("time"))
        if time is None:
            continue
        # The gap before a start is not time spent in the stage: the run was down, or another stage ran.
        if before is not None and record.get("event") != "start":
            stage.seconds += max(0.0, time - before)
        before = time
    return list(stages.values())


def _add(stage: _Stage, record: Record) -> None:
    kind = record.get("kind")
    if kind == "stage":
        time = _number(record.get("time"))
        if record.get("event") == "start":
            stage.starts.append(time or 0.0)
        stage.ended = record.get("event") == "end"
    elif kind in ("step", "eval") and _number(record.get("step")) is not None:
        step = record["step"]
        if kind == "eval":
            same = (record.get("set"), step, record.get("label"))
            stage.evals = [e for e in stage.evals if (e.get("set"), e["step"], e.get("label")) != same] + [record]
            return
        if stage.steps and step <= stage.steps[-1]["step"]:
            # A resume went back to a checkpoint: what came after it happened in a past that is no longer this run's.
            stage.steps = [earlier for earlier in stage.steps if earlier["step"] < step]
            stage.evals = [e for e in stage.evals if e["step"] < step or e.get("label") == "before"]
        stage.steps.append(record)


def _number(value: object) -> float | None:
    """The value as a float, NaN included; None where it is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


# Curves ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    """How the keys of step records become one chart."""

    title: str
    lines: tuple[tuple[str, str], ...]
    """(key, label)."""
    hint: str
    unit: str = ""
    times: float = 1.0
    """Factor from the recorded unit to the shown one."""
    from_zero: bool = True
    kind: Literal["", "sft", "grpo"] = ""
    """Only for stages of this kind; empty: for all."""
    rest_of: str = ""
    """Further series: every other key with this prefix."""
    layers: tuple[str, ...] = ()
    """Keys that are stacked as areas."""


CURVES: tuple[tuple[str, tuple[_Curve, ...]], ...] = (
    (
        "Learning",
        (
            _Curve(
                title="Reward",
                lines=(("reward/mean", "reward"),),
                rest_of="reward/",
                from_zero=False,
                hint="The mean reward should climb; its parts, before weighting, say what it climbs on.",
            ),
            _Curve(
                title="Loss",
                unit="nats per token",
                lines=(("learner/loss", "loss"),),
                kind="sft",
                hint="Should fall, then flatten; a late rise means that the learning rate is too high.",
            ),
            _Curve(
                title="Completion length",
                unit="tokens",
                lines=(("completion/length_mean", "mean length"),),
                hint="Growth together with reward is reasoning; growth without it is rambling.",
            ),
            _Curve(
                title="Wasted samples",
                unit="%",
                times=100,
                lines=(
                    ("groups/no_signal_share", "groups without signal"),
                    ("completion/truncated_share", "truncated completions"),
                ),
                hint="Without signal: all rewards of a group are equal, its problem is too hard or too easy. "
                "Truncated: cut at the token limit.",
            ),
        ),
    ),
    (
        "Policy",
        (
            _Curve(
                title="KL to the reference",
                unit="nats per token",
                lines=(("kl/ref", "KL"),),
                hint="How far the policy has moved from where the stage began; a slow rise is healthy.",
            ),
            _Curve(
                title="Entropy",
                unit="nats per token",
                lines=(("policy/entropy", "entropy"),),
                hint="How undecided the policy is; a fast drop to zero means that it has stopped exploring.",
            ),
            _Curve(
                title="Clipped tokens",
                unit="%",
                times=100,
                lines=(("policy/clip_fraction", "clipped"),),
                hint="Tokens whose update was cut off by the clip range; a few per cent is normal.",
            ),
            _Curve(
                title="Loss",
                lines=(("learner/loss", "loss"),),
                kind="grpo",
                from_zero=False,
                hint="Hovers near zero by construction; the reward, not the loss, shows progress.",
            ),
            _Curve(
                title="Gradient norm",
                lines=(("learner/grad_norm", "gradient norm"),),
                hint="Before clipping; spikes mark batches that would have thrown the model off.",
            ),
            _Curve(
                title="Learning rate",
                lines=(("learner/lr", "learning rate"),),
                hint="The schedule as it was applied.",
            ),
        ),
    ),
    (
        "Sampler against learner",
        (
            _Curve(
                title="Staleness",
                unit="policy versions",
                lines=(("staleness/mean", "mean"), ("staleness/max", "largest")),
                hint="Age of the trained tokens; never above the recipe's max_staleness, 0 is exactly on-policy.",
            ),
            _Curve(
                title="Mismatch, KL",
                unit="nats per token",
                lines=(("mismatch/kl", "KL"),),
                hint="Sampler and learner compute the same probabilities in two ways; should be tiny and level.",
            ),
            _Curve(
                title="Mismatch, largest",
                unit="nats",
                lines=(("mismatch/max", "largest"),),
                hint="The same for the worst token of the batch.",
            ),
            _Curve(
                title="Audit after a publish",
                unit="nats",
                lines=(("audit/max_diff", "largest difference"),),
                hint="Engine against learner on fixed prompts; a jump means that the engines hold other weights.",
            ),
            _Curve(
                title="Importance weight",
                lines=(("importance/mean", "mean weight"),),
                from_zero=False,
                hint="Corrects for the mismatch; stays near 1 when sampler and learner agree.",
            ),
            _Curve(
                title="Capped importance weights",
                unit="% of tokens",
                times=100,
                lines=(("importance/capped_share", "capped"),),
                hint="Tokens whose weight hit the cap; more than a few per cent biases the update.",
            ),
        ),
    ),
    (
        "Speed",
        (
            _Curve(
                title="Throughput",
                unit="tokens/s",
                lines=(("throughput/tokens_per_s", "tokens/s"),),
                hint="Should be level; it moves with completion length and with the number of replicas.",
            ),
            _Curve(
                title="Time by phase",
                unit="s per step",
                kind="grpo",
                lines=(
                    ("time/generate_s", "generate"),
                    ("time/score_s", "score"),
                    ("time/train_s", "train"),
                    ("time/publish_s", "publish"),
                    ("time/idle_s", "idle"),
                    ("time/overlap_s", "overlap"),
                    ("time/step_s", "whole step"),
                ),
                layers=("time/generate_s", "time/score_s", "time/train_s", "time/publish_s", "time/idle_s"),
                hint="Overlap is generation going on during training: the stack may then stand above the whole step.",
            ),
            _Curve(
                title="Publish",
                unit="s",
                lines=(("publish/seconds", "whole publish"), ("publish/pause_s", "engines paused")),
                hint="Handing new weights to the engines; the pause is what generation loses.",
            ),
        ),
    ),
)


def _chart(curve: _Curve, stage: _Stage, limit: int) -> Chart:
    """The chart of a curve; without points where the stage did not record its keys."""
    lines = list(curve.lines)
    if curve.rest_of:
        known = {key for key, _ in lines}
        keys = sorted({key for record in stage.steps for key in record if key.startswith(curve.rest_of)} - known)
        lines += [(key, key.removeprefix(curve.rest_of)) for key in keys]
    series, not_finite = [], 0
    for key, label in lines:
        values = [(float(r["step"]), y) for r in stage.steps if (y := _number(r.get(key))) is not None]
        points = [(x, y * curve.times) for x, y in values if math.isfinite(y)]
        not_finite += len(values) - len(points)
        style: Literal["line", "dashed", "layer"] = "line"
        if curve.layers:
            style = "layer" if key in curve.layers else "dashed" if "overlap" in key else "line"
            if style == "layer" and not any(y for _, y in points):
                continue
        series.append(Series(label=label, points=tuple(thin(points, limit, largest="/max" in key)), style=style))
    return Chart(
        title=curve.title,
        unit=curve.unit,
        hint=curve.hint,
        series=tuple(series),
        from_zero=curve.from_zero,
        not_finite=not_finite,
    )


def _curves(stage: _Stage, limit: int) -> str:
    """All charts of a stage, under the headings of their groups; empty where nothing was recorded."""
    groups = []
    for heading, curves in CURVES:
        kind = "sft" if stage.kind == "sft" else "grpo"
        charts = "".join(draw(_chart(curve, stage, limit)) for curve in curves if curve.kind in ("", kind))
        if charts:
            groups.append((heading, charts))
    if stage.kind == "sft":
        return f'<div class="charts">{"".join(charts for _, charts in groups)}</div>' if groups else ""
    return "".join(f'<h3>{heading}</h3><div class="charts">{charts}</div>' for heading, charts in groups)


def _accuracy_charts(run: _Run) -> str:
    """One chart an evaluation set, over all stages in a row."""
    marks, offsets, offset = [], {}, 0.0
    for stage in run.stages:
        offsets[stage.name] = offset
        if stage.begun:
            marks.append((offset, stage.name))
        offset += max([stage.last_step, *(e["step"] for e in stage.evals)])
    charts = []
    for name in _eval_sets(run):
        series = []
        for key in ACCURACIES:
            points = {
                offsets[stage.name] + record["step"]: 100 * y
                for stage in run.stages
                for record in stage.evals
                if record.get("set") == name and (y := _number(record.get(key))) is not None and math.isfinite(y)
            }
            label = _cons_name(run) if key == "cons@k" else key
            series.append(Series(label=label, points=tuple(sorted(points.items()))))
        charts.append(
            draw(
                Chart(
                    title=f"Accuracy on {name}",
                    unit="% of problems",
                    hint="Problems that training never saw; this, more than the training reward, is the result.",
                    series=tuple(series),
                    marks=tuple(marks),
                    x_label="step",
                )
            )
        )
    return "".join(charts)


# Evaluations -----------------------------------------------------------------------------------------------------


def _eval_sets(run: _Run) -> list[str]:
    """Names of the evaluation sets, in the order in which they first occur."""
    return list(dict.fromkeys(str(record.get("set", "")) for stage in run.stages for record in stage.evals))


def _milestones(run: _Run, name: str) -> Iterator[tuple[str, Record]]:
    """(when, record) of one evaluation set: before everything, then the last one of each stage."""
    first = True
    for stage in run.stages:
        evals = [record for record in stage.evals if str(record.get("set", "")) == name]
        before = [record for record in evals if record.get("label") == "before"]
        later = [record for record in evals if record.get("label") != "before"]
        if first and before:
            yield f"before {stage.name}", before[0]
        if evals:
            first = False
        if later:
            record = next((r for r in reversed(later) if r.get("label") == "after"), later[-1])
            done = record.get("label") == "after"
            yield f"after {stage.name}" if done else f"{stage.name}, step {record['step']:,}", record


def _cons_name(run: _Run) -> str:
    """`cons@4` where every evaluation used the same k, else `cons@k`."""
    ks = {int(k) for stage in run.stages for record in stage.evals if (k := _number(record.get("k")))}
    return f"cons@{ks.pop()}" if len(ks) == 1 else "cons@k"


def _percent(value: object) -> str:
    number = _number(value)
    return "–" if number is None or not math.isfinite(number) else f"{100 * number:.1f} %"


def _decimal(value: object) -> str:
    number = _number(value)
    return "–" if number is None or not math.isfinite(number) else f"{number:,.1f}"


def _headline(run: _Run) -> str:
    """Per evaluation set the accuracy at the beginning and now, in large type."""
    lines = []
    for name in _eval_sets(run):
        records = [record for _, record in _milestones(run, name)]
        measured = {key: [y for r in records if (y := _number(r.get(key))) is not None] for key in ACCURACIES}
        key = next((key for key in ACCURACIES if measured[key]), None)
        if key is None:
            continue
        values = measured[key]
        numbers = f"<b>{_percent(values[-1])}</b>"
        if len(values) > 1:
            numbers = f"<span>{_percent(values[0])} <i>→</i></span> {numbers}"
        lines.append(f'<li><p class="big">{numbers}</p><p>{html.escape(name)}, {html.escape(key)} accuracy</p></li>')
    return f'<ul class="headline">{"".join(lines)}</ul>' if lines else ""


def _eval_table(run: _Run) -> str:
    heads = ("", "greedy", "pass@1", _cons_name(run), "format", "mean length")
    body, fewest = [], math.inf
    for name in _eval_sets(run):
        rows = list(_milestones(run, name))
        problems = max((int(_number(record.get("problems")) or 0) for _, record in rows), default=0)
        fewest = min(fewest, problems or math.inf)
        title = html.escape(name) + (f' <span class="unit">{problems:,} problems</span>' if problems else "")
        body.append(f'<tr class="set"><th colspan="{len(heads)}" scope="colgroup">{title}</th></tr>')
        for when, record in rows:
            cells = [
                *(_percent(record.get(key)) for key in (*ACCURACIES, "format")),
                _decimal(record.get("length_mean")),
            ]
            row = "".join(f"<td>{cell}</td>" for cell in cells)
            body.append(f'<tr><th scope="row">{html.escape(when)}</th>{row}</tr>')
    note = "Greedy: one answer without chance. Pass@1: mean over k sampled answers. Cons@k: the majority of the k."
    if math.isfinite(fewest):
        # 95 % interval of a share near one half, the widest case.
        points = 1.96 * 50 / math.sqrt(fewest)
        note += f" With {int(fewest):,} problems, differences below {points:.0f} points may be chance."
    head = "".join(f'<th scope="col">{title}</th>' for title in heads)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Evaluations">'
        f'<table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div><p class="hint">{note}</p>'
    )


def _evaluations(run: _Run) -> str:
    if not _eval_sets(run):
        return ""
    return (
        '<section id="evaluations"><h2>Evaluations</h2><div class="split">'
        f'<div>{_eval_table(run)}</div><div class="charts">{_accuracy_charts(run)}</div></div></section>'
    )


def _pairs(run: _Run) -> str:
    """Answers to the same problems at the first and at the last evaluation, side by side."""
    sections = []
    for name in _eval_sets(run):
        sampled = [(when, record) for when, record in _milestones(run, name) if record.get("samples")]
        if not sampled:
            continue
        sides = [sampled[0], sampled[-1]] if len(sampled) > 1 else sampled
        columns = [
            {(str(s.get("prompt")), str(s.get("answer"))): s for s in record["samples"] if isinstance(s, dict)}
            for _, record in sides
        ]
        problems = list(dict.fromkeys(problem for column in reversed(columns) for problem in column))
        blocks = []
        for problem in problems[:8]:
            answers = [(when, column.get(problem)) for (when, _), column in zip(sides, columns, strict=True)]
            cards = "".join(_card(when, answer) for when, answer in answers)
            blocks.append(
                f'<div class="problem"><pre class="prompt" tabindex="0">{_text(problem[0])}</pre>'
                f'<p class="answer">reference answer <b>{html.escape(_cut(problem[1], 200))}</b></p>'
                f'<div class="cards">{cards}</div></div>'
            )
        title = html.escape(f"{name}: {' and '.join(when for when, _ in sides)}")
        sections.append(f"<details open><summary>{title}</summary>{''.join(blocks)}</details>")
    if not sections:
        return ""
    return f'<section id="pairs"><h2>Before and after</h2>{"".join(sections)}</section>'


def _card(when: str, sample: Record | None) -> str:
    if sample is None:
        return f'<article class="card"><header>{html.escape(when)}<span>not sampled</span></header></article>'
    css, verdict = ("right", "✓ correct") if sample.get("correct") is True else ("wrong", "✗ wrong")
    if sample.get("correct") is None:
        css = verdict = ""
    return (
        f'<article class="card {css}"><header>{html.escape(when)}<span class="verdict">{verdict}</span></header>'
        f'<pre tabindex="0">{_text(str(sample.get("completion", "")))}</pre></article>'
    )


def _text(text: str) -> str:
    """Text of a model, cut and escaped, its R1 tags set apart."""
    escaped = html.escape(_cut(text, EVAL_TEXT_LIMIT))
    return re.sub(r"(&lt;/?(?:think|answer)&gt;)", r'<span class="tag">\1</span>', escaped)


def _cut(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than `limit`: the answer stands at the end."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    return f"{text[:head]}\n[… {len(text) - limit:,} characters left out …]\n{text[-tail:]}"


# Training samples ------------------------------------------------------------------------------------------------

TRAJECTORY_COLUMNS = (
    "group_id", "prompt", "answer", "completion", "source", "finish_reason",
    "reward", "status", "reward_parts", "advantage", "staleness", "token_ids",
)  # fmt: skip


def _samples(run: _Run) -> list[Record]:
    """Per stage with trajectories the browsable steps, within the budget of bytes."""
    read = [(stage.name, _sampled_steps(run.directory / "trajectories" / stage.name)) for stage in run.stages]
    stages = [(name, steps) for name, steps in read if steps]
    budget = SAMPLE_BYTES // max(1, len(stages))
    return [{"stage": name, "steps": kept} for name, steps in stages if (kept := _within(steps, budget))]


def _sampled_steps(folder: Path) -> list[Record]:
    """Samples of a stage in the largest shape: its steps evenly spaced, the first and the last among them."""
    files = sorted((path for path in folder.glob("step-*.parquet")), key=_step_of)
    steps = []
    for path in _spaced(files, SAMPLE_SHAPES[0][0]):
        try:
            # Not `read_table`, which would make columns out of `key=value` parts of the path.
            with pq.ParquetFile(path) as file:
                table = file.read(columns=[c for c in TRAJECTORY_COLUMNS if c in file.schema_arrow.names])
        except (pa.ArrowInvalid, OSError):
            # The run is writing it right now, or died while it did.
            continue
        steps.append({"step": _step_of(path), "groups": _groups(table)})
    return steps


def _step_of(path: Path) -> int:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _spaced(items: list[Any], count: int) -> list[Any]:
    """At most `count` items, evenly spaced, both ends among them."""
    if len(items) <= count:
        return items
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def _groups(table: pa.Table) -> list[Record]:
    """The first groups of a step, just as they come: a choice would colour the picture."""
    lengths = None
    if "token_ids" in table.column_names:
        lengths = pc.list_value_length(table["token_ids"]).to_pylist()
        table = table.drop_columns(["token_ids"])
    ids = table["group_id"].to_pylist() if "group_id" in table.column_names else [""] * len(table)
    rows: dict[str, list[int]] = {}
    for index, group_id in enumerate(ids):
        rows.setdefault(str(group_id), []).append(index)
    groups = []
    for group_id, indices in list(rows.items())[: SAMPLE_SHAPES[0][1]]:
        shown = indices[: SAMPLE_SHAPES[0][2]]
        records = table.take(shown).to_pylist()
        completions = [_completion(r, lengths[i] if lengths else None) for r, i in zip(records, shown, strict=True)]
        groups.append(
            {
                "id": group_id,
                "source": str(records[0].get("source") or ""),
                "prompt": str(records[0].get("prompt") or ""),
                "answer": str(records[0].get("answer") or ""),
                "size": len(indices),
                "completions": completions,
            }
        )
    return groups


def _completion(row: Record, tokens: int | None) -> Record:
    """What the page shows of one completion. `right` is None where no `accuracy` was scored."""
    parts = row.get("reward_parts") or {}
    pairs = [(str(name), _finite(value)) for name, value in (parts.items() if isinstance(parts, dict) else parts)]
    accuracy = next((value for name, value in pairs if name == "accuracy"), None)
    return {
        "text": str(row.get("completion") or ""),
        "reward": _finite(row.get("reward")),
        "parts": [pair for pair in pairs if pair[1] is not None],
        "advantage": _finite(row.get("advantage")),
        "right": None if accuracy is None or row.get("status") == "error" else accuracy >= 1,
        "status": str(row.get("status") or "ok"),
        "finish": str(row.get("finish_reason") or ""),
        "staleness": _finite(row.get("staleness")),
        "tokens": tokens,
    }


def _finite(value: object) -> float | None:
    """Rounded for the page; None for what JSON cannot hold."""
    number = _number(value)
    return None if number is None or not math.isfinite(number) else float(f"{number:.4g}")


def _within(steps: list[Record], budget: int) -> list[Record]:
    """As much of the samples as fits into `budget` bytes."""
    for count, groups, completions, characters in SAMPLE_SHAPES:
        kept = [_reduced(step, groups, completions, characters) for step in _spaced(steps, count)]
        if len(_json(kept).encode("utf-8", "replace")) <= budget:
            return kept
    return []


def _reduced(step: Record, groups: int, completions: int, characters: int) -> Record:
    kept = [
        {
            **group,
            "prompt": _cut(group["prompt"], characters),
            "answer": _cut(group["answer"], characters),
            "completions": [
                {**one, "text": _cut(one["text"], characters)} for one in group["completions"][:completions]
            ],
        }
        for group in step["groups"][:groups]
    ]
    return {"step": step["step"], "groups": kept}


def _json(data: object) -> str:
    """JSON that can stand inside a `<script>` element, whatever the texts in it hold."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _browsers(samples: list[Record]) -> str:
    """The controls for training samples; the script fills in the rest."""
    if not samples:
        return ""
    parts = []
    for index, stage in enumerate(samples):
        last = len(stage["steps"]) - 1
        filters = "".join(
            f'<label><input type="radio" name="filter-{index}" value="{value}"{" checked" if value == "all" else ""}>'
            f"<span>{value}</span></label>"
            for value in ("all", "correct", "wrong")
        )
        parts.append(
            f'<div class="browser" data-stage="{index}"><h3>{html.escape(stage["stage"])}</h3>'
            '<div class="controls" hidden>'
            '<label class="slider"><span>Step</span>'
            f'<input type="range" min="0" max="{last}" value="{last}" step="1">'
            f'<output></output></label><fieldset class="filters"><legend>Show</legend>{filters}</fieldset></div>'
            '<div class="groups"><noscript>Scripts are off: samples cannot be browsed.</noscript>'
            "</div></div>"
        )
    return (
        '<section id="samples"><h2>Training samples</h2>'
        '<p class="hint">The first groups of each step, not chosen. The learner makes completions with a positive '
        f"advantage more likely and those with a negative one less.</p>{''.join(parts)}</section>"
    )


# The page --------------------------------------------------------------------------------------------------------


def _page(run: _Run) -> str:
    style = (HERE / "report.css").read_text(encoding="utf-8")
    script = (HERE / "report.js").read_text(encoding="utf-8")
    # The same recipe with more stages has more charts; the file stays small.
    limit = max(50, POINTS_A_SERIES * 3 // max(3, len(run.stages)))
    samples = _samples(run)
    stages = "".join(_stage_section(stage, limit) for stage in run.stages if stage.begun)
    name = html.escape(str(run.recipe.get("name", run.directory.name)))
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'"
    sections = [_evaluations(run), stages, _pairs(run), _browsers(samples), _recipe(run)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{name} · RayZero</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
        f"{_header(run, name, samples)}\n<main>\n{''.join(sections)}\n</main>\n"
        f'<script type="application/json" id="samples-data">{_json(samples)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _hash(source: str) -> str:
    """The source expression that lets exactly this inline style or script pass the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _header(run: _Run, name: str, samples: list[Record]) -> str:
    facts = [
        ("Status", _status(run)),
        ("Stages", " → ".join(f"{stage.name} ({stage.kind})" for stage in run.stages)),
        ("Started", _date(run.first_time)),
        ("Took", _duration(sum(stage.seconds for stage in run.stages))),
        ("Seed", str(run.recipe.get("seed", "–"))),
    ]
    links = [("evaluations", "Evaluations")] if _eval_sets(run) else []
    links += [(f"stage-{stage.name}", stage.name) for stage in run.stages if stage.begun]
    links += [("pairs", "Before and after")] if any(e.get("samples") for s in run.stages for e in s.evals) else []
    links += [("samples", "Training samples")] if samples else []
    links += [("recipe", "Recipe")]
    nav = "".join(f'<a href="#{html.escape(anchor)}">{html.escape(title)}</a>' for anchor, title in links)
    lead = html.escape(str(run.recipe.get("description", "")))
    rows = "".join(f"<div><dt>{key}</dt><dd>{html.escape(value)}</dd></div>" for key, value in facts)
    return (
        f'<header class="page"><h1>{name}</h1><p class="lead">{lead}</p>'
        f'<dl class="facts">{rows}</dl>{_headline(run)}<nav aria-label="Sections">{nav}</nav></header>'
    )


def _status(run: _Run) -> str:
    if run.finished:
        return "finished"
    current = next((stage for stage in reversed(run.stages) if stage.begun), None)
    if current is None:
        return "nothing recorded yet"
    steps = f"step {current.last_step:,}" + (f" of {current.planned_steps:,}" if current.planned_steps else "")
    return f"not finished: {current.name}, {steps}; last record {_date(run.last_time)}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %b %Y, %H:%M UTC") if seconds else "–"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _stage_section(stage: _Stage, limit: int) -> str:
    facts = [f"{stage.last_step:,}" + (f" of {stage.planned_steps:,}" if stage.planned_steps else "") + " steps"]
    facts.append(_duration(stage.seconds))
    if len(stage.starts) > 1:
        facts.append(f"resumed {len(stage.starts) - 1}×")
    facts += [_counts(stage)] if stage.steps and "count/taken" in stage.steps[-1] else []
    if not stage.ended:
        facts.append("not finished")
    size = math.ceil(len(stage.steps) / limit)
    if size > 1:
        facts.append(f"each point stands for {size} steps")
    words = {"sft": "supervised fine-tuning", "grpo": "reinforcement learning, GRPO"}.get(stage.kind, stage.kind)
    name = html.escape(stage.name)
    return (
        f'<section id="stage-{name}"><h2>{name} <span class="unit">{html.escape(words)}</span></h2>'
        f'<p class="stage-facts">{html.escape(" · ".join(facts))}</p>{_curves(stage, limit)}</section>'
    )


def _counts(stage: _Stage) -> str:
    """Where the prompts of a stage have gone; they must add up."""
    last = stage.steps[-1]
    taken, trained, dropped, waiting = (
        int(_number(last.get(f"count/{name}")) or 0) for name in ("taken", "trained", "dropped", "in_flight")
    )
    text = f"{taken:,} prompts taken: {trained:,} trained, {dropped:,} dropped, {waiting:,} in flight"
    return text if taken == trained + dropped + waiting else f"{text} (these should add up and do not)"


def _recipe(run: _Run) -> str:
    return (
        '<section id="recipe"><h2>Recipe</h2><details><summary>As it was resolved for this run</summary>'
        f'<pre class="recipe" tabindex="0">{html.escape(run.recipe_text)}</pre></details></section>'
    )
