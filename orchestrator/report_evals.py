"""The evaluations of a run: headline, table, accuracy over all stages, and answers before and after, as HTML."""

import html
import math
from collections.abc import Iterator

from orchestrator.charts import Chart, Series, draw
from orchestrator.eval_figures import SHARES, columns, cons_name, percent
from orchestrator.report_text import as_html, cut
from orchestrator.run_record import Record, RunRecord, as_number

EVAL_TEXT_LIMIT = 1500
"""Characters of one text in the before/after pairs."""


def eval_sets(run: RunRecord) -> list[str]:
    """Names of the evaluation sets, in the order in which they first occur."""
    return list(dict.fromkeys(str(record.get("set", "")) for stage in run.stages for record in stage.evals))


def headline(run: RunRecord) -> str:
    """Per evaluation set the accuracy, or else the win rate, at the beginning and now, in large type."""
    lines = []
    for name in eval_sets(run):
        records = [record for _, record in _milestones(run, name)]
        measured = {key: [y for r in records if (y := as_number(r.get(key))) is not None] for key in SHARES}
        key = next((key for key in SHARES if measured[key]), None)
        if key is None:
            continue
        values = measured[key]
        numbers = f"<b>{percent(values[-1])}</b>"
        if len(values) > 1:
            numbers = f"<span>{percent(values[0])} <i>→</i></span> {numbers}"
        lines.append(f'<li><p class="big">{numbers}</p><p>{html.escape(name)}, {html.escape(SHARES[key])}</p></li>')
    return f'<ul class="headline">{"".join(lines)}</ul>' if lines else ""


def evaluations_section(run: RunRecord) -> str:
    """The table and the accuracy over all stages; empty where nothing was evaluated."""
    if not eval_sets(run):
        return ""
    return (
        '<section id="evaluations"><h2>Evaluations</h2><div class="split">'
        f'<div>{_eval_table(run)}</div><div class="charts">{_accuracy_charts(run)}</div></div></section>'
    )


def _eval_table(run: RunRecord) -> str:
    figures = columns(record for name in eval_sets(run) for _, record in _milestones(run, name))
    heads = ["", *(figure.head for figure in figures)]
    body, fewest = [], math.inf
    for name in eval_sets(run):
        rows = list(_milestones(run, name))
        problems = max((int(as_number(record.get("problems")) or 0) for _, record in rows), default=0)
        fewest = min(fewest, problems or math.inf)
        title = html.escape(name) + (f' <span class="unit">{problems:,} problems</span>' if problems else "")
        body.append(f'<tr class="set"><th colspan="{len(heads)}" scope="colgroup">{title}</th></tr>')
        for when, record in rows:
            row = "".join(f"<td>{html.escape(figure.cell(record))}</td>" for figure in figures)
            body.append(f'<tr><th scope="row">{html.escape(when)}</th>{row}</tr>')
    note = "Greedy: one answer without chance. Pass@1: mean over k sampled answers. Cons@k: the majority of the k."
    if math.isfinite(fewest):
        # 95 % interval of a share near one half, the widest case.
        points = 1.96 * 50 / math.sqrt(fewest)
        note += f" With {int(fewest):,} problems, differences below {points:.0f} points may be chance."
    if any(figure.head == "win rate" for figure in figures):
        note += " Win rate: share of prompts whose answer a judge prefers to a given one, ties for one half."
    if any(figure.head == "unscored" for figure in figures):
        note += " Unscored: completions that nothing could judge; they are in no other figure."
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in heads)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Evaluations">'
        f'<table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div><p class="hint">{note}</p>'
    )


def _accuracy_charts(run: RunRecord) -> str:
    """One chart an evaluation set, over all stages in a row."""
    marks, offsets, offset = [], {}, 0.0
    for stage in run.stages:
        offsets[stage.name] = offset
        if stage.begun:
            marks.append((offset, stage.name))
        offset += max([stage.last_step, *(e["step"] for e in stage.evals)])
    all_records = [record for stage in run.stages for record in stage.evals]
    charts = []
    for name in eval_sets(run):
        series = []
        for key in SHARES:
            points = {
                offsets[stage.name] + record["step"]: 100 * y
                for stage in run.stages
                for record in stage.evals
                if record.get("set") == name and (y := as_number(record.get(key))) is not None and math.isfinite(y)
            }
            label = cons_name(all_records) if key == "cons@k" else key.replace("_", " ")
            series.append(Series(label=label, points=tuple(sorted(points.items()))))
        accurate = any(each.points for each in series[:-1]) or not series[-1].points
        charts.append(
            draw(
                Chart(
                    title=f"{'Accuracy' if accurate else 'Win rate'} on {name}",
                    unit="% of problems",
                    hint="Problems that training never saw; this, more than the training reward, is the result.",
                    series=tuple(series),
                    marks=tuple(marks),
                    x_label="step",
                )
            )
        )
    return "".join(charts)


def pairs_section(run: RunRecord) -> str:
    """Answers to the same problems at the first and at the last evaluation, side by side."""
    sections = []
    for name in eval_sets(run):
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
                f'<div class="problem"><pre class="prompt" tabindex="0">{as_html(problem[0], EVAL_TEXT_LIMIT)}</pre>'
                f"{_reference(problem[1])}{_baseline(columns, problem)}"
                f'<div class="cards">{cards}</div></div>'
            )
        title = html.escape(f"{name}: {' and '.join(when for when, _ in sides)}")
        sections.append(f"<details open><summary>{title}</summary>{''.join(blocks)}</details>")
    if not sections:
        return ""
    return f'<section id="pairs"><h2>Before and after</h2>{"".join(sections)}</section>'


def _reference(answer: str) -> str:
    """Problems that are judged by tests have none."""
    return f'<p class="answer">reference answer <b>{html.escape(cut(answer, 200))}</b></p>' if answer.strip() else ""


def _baseline(columns: list[dict[tuple[str, str], Record]], problem: tuple[str, str]) -> str:
    """What the answers were compared with, where they were."""
    texts = [str(column[problem]["baseline"]) for column in columns if column.get(problem, {}).get("baseline")]
    return f'<p class="answer">to win against: {as_html(texts[-1], EVAL_TEXT_LIMIT)}</p>' if texts else ""


def _card(when: str, sample: Record | None) -> str:
    if sample is None:
        return f'<article class="card"><header>{html.escape(when)}<span>not sampled</span></header></article>'
    css, verdict = ("right", "✓ correct") if sample.get("correct") is True else ("wrong", "✗ wrong")
    if sample.get("correct") is None:
        css, verdict = _WON.get(as_number(sample.get("won")), ("", ""))
    return (
        f'<article class="card {css}"><header>{html.escape(when)}<span class="verdict">{verdict}</span></header>'
        f'<pre tabindex="0">{as_html(str(sample.get("completion", "")), EVAL_TEXT_LIMIT)}</pre></article>'
    )


_WON: dict[float | None, tuple[str, str]] = {
    1.0: ("right", "✓ preferred"),
    0.5: ("", "a tie"),
    0.0: ("wrong", "✗ lost"),
}
"""Where nothing is right or wrong: class and words of what was won."""


def _milestones(run: RunRecord, name: str) -> Iterator[tuple[str, Record]]:
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
