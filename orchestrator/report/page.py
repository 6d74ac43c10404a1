"""The HTML report of a run: its table, pipeline, curves, data, answers, times and samples in one file that opens anywhere.

Beside it the table alone, as Markdown to quote and as JSON for programs.

Everything comes from the plain files of the run directory: `recipe.toml`, `metrics.jsonl` and `trajectories/`. The
page loads nothing from outside, and its content security policy forbids it to. Text that a model wrote is hostile: it
passes through `escape.py`.
"""

import base64
import hashlib
import html
import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.report.answers import answers_section
from orchestrator.report.curves import curves_section
from orchestrator.report.escape import as_json
from orchestrator.report.overview import glance_section
from orchestrator.report.pairs import held_out_pairs
from orchestrator.report.phases import time_section
from orchestrator.report.pipeline_graph import picture_section
from orchestrator.report.rejection import yields_section
from orchestrator.report.samples import read_samples, samples_section
from orchestrator.report.table import headline, results_section
from orchestrator.results.lineage import KIND_WORDS
from orchestrator.results.table import Results, results_of
from orchestrator.results.table import as_json as results_as_json
from orchestrator.results.table_text import markdown
from orchestrator.results.words import duration
from orchestrator.run.record import RunRecord, StageRecord, as_number, read_run

HERE = Path(__file__).parent

POINTS_A_SERIES = 200
"""A longer curve is thinned to this."""
OPEN_STAGES = 1
"""In a run of more, the charts of each stage are folded away at first."""


def write_report(run_dir: Path) -> Path:
    """Write `report.html`, `table.md` and `table.json` into a run directory; returns the path of the first. The run may
    still be going on.

    Raises:
        InputError: the directory holds no run, or its recipe or metrics cannot be read.
    """
    run = read_run(run_dir)
    results = results_of(run)
    _replace(run_dir / "table.md", markdown(results))
    _replace(run_dir / "table.json", json.dumps(results_as_json(results), indent=1, allow_nan=False) + "\n")
    path = run_dir / "report.html"
    _replace(path, _page(run, results))
    return path


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        # JSON may smuggle in half a surrogate pair, which UTF-8 cannot hold.
        aside.write_bytes(text.encode("utf-8", "replace"))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _page(run: RunRecord, results: Results) -> str:
    style = (HERE / "report.css").read_text(encoding="utf-8")
    script = (HERE / "report.js").read_text(encoding="utf-8")
    # The same recipe with more stages has more charts; the file stays small.
    limit = max(50, POINTS_A_SERIES * 3 // max(3, len(run.stages)))
    samples = read_samples(run)
    begun = [stage for stage in run.stages if stage.begun]
    name = html.escape(str(run.recipe.get("name", run.directory.name)))
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'"
    sections = [
        ("results", "Results", results_section(results)),
        ("pipeline", "Pipeline", picture_section(run, results)),
        ("curves", "Curves", glance_section(begun, results)),
        ("data", "Data", yields_section(run)),
        ("answers", "Answers", answers_section(results)),
        ("time", "Time", time_section(run)),
        ("stages", "Stages", _stages_section(begun, limit)),
        ("samples", "Training samples", samples_section(samples)),
        ("recipe", "Recipe", _recipe(run)),
    ]
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, section in sections if section)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{name} · RayZero</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
        f'{_header(run, name, results)}\n<nav aria-label="Sections">{links}</nav>\n'
        f"<main>\n{''.join(section for _, _, section in sections)}\n</main>\n"
        f'<script type="application/json" id="samples-data">{as_json(samples.stages)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _hash(source: str) -> str:
    """The source expression that lets exactly this inline style or script pass the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _header(run: RunRecord, name: str, results: Results) -> str:
    facts = [
        ("Status", _status(run)),
        ("Stages", f"{len(run.stages)}"),
        ("Started", _date(run.first_time)),
        ("Took", duration(sum(stage.seconds for stage in run.stages))),
        ("Seed", str(run.recipe.get("seed", "–"))),
    ]
    lead = html.escape(str(run.recipe.get("description", "")))
    rows = "".join(f"<div><dt>{key}</dt><dd>{html.escape(value)}</dd></div>" for key, value in facts)
    return (
        f'<header class="page"><h1>{name}</h1><p class="lead">{lead}</p>'
        f'<dl class="facts">{rows}</dl>{headline(results)}</header>'
    )


def _status(run: RunRecord) -> str:
    if run.finished:
        return "finished"
    current = next((stage for stage in reversed(run.stages) if stage.begun), None)
    if current is None:
        return "nothing recorded yet"
    steps = f"step {current.last_step:,}" + (f" of {current.planned_steps:,}" if current.planned_steps else "")
    return f"not finished: {current.name}, {steps}; last record {_date(run.last_time)}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %b %Y, %H:%M UTC") if seconds else "–"


def _stages_section(stages: list[StageRecord], limit: int) -> str:
    """Every chart of every stage; empty before the first has begun."""
    if not stages:
        return ""
    blocks = "".join(_stage(stage, limit, opened=len(stages) <= OPEN_STAGES) for stage in stages)
    return f'<section id="stages"><h2>Stages</h2>{blocks}</section>'


def _stage(stage: StageRecord, limit: int, opened: bool) -> str:
    facts = []
    if stage.steps:
        facts = [f"{stage.last_step:,}" + (f" of {stage.planned_steps:,}" if stage.planned_steps else "") + " steps"]
    facts.append(duration(stage.seconds))
    if len(stage.starts) > 1:
        facts.append(f"resumed {len(stage.starts) - 1}×")
    facts += [_counts(stage)] if stage.steps and "count/taken" in stage.steps[-1] else []
    if not stage.ended:
        facts.append("not finished")
    size = math.ceil(len(stage.steps) / limit)
    if size > 1:
        facts.append(f"each point stands for {size} steps")
    words = KIND_WORDS.get(stage.kind, stage.kind)
    name = html.escape(stage.name)
    title = f'{name} <span class="unit">{html.escape(" · ".join((words, *facts)))}</span>'
    body = f"{curves_section(stage, limit)}{held_out_pairs(stage)}"
    if not body:
        return f'<p class="stage" id="stage-{name}">{title}</p>'
    # The anchor is inside: a browser opens what it has to show.
    return (
        f'<details class="stage"{" open" if opened else ""}><summary>{title}</summary>'
        f'<div id="stage-{name}">{body}</div></details>'
    )


def _counts(stage: StageRecord) -> str:
    """Where the prompts of a stage have gone; they must add up."""
    last = stage.steps[-1]
    taken, trained, dropped, waiting = (
        int(as_number(last.get(f"count/{name}")) or 0) for name in ("taken", "trained", "dropped", "in_flight")
    )
    text = f"{taken:,} prompts taken: {trained:,} trained, {dropped:,} dropped, {waiting:,} in flight"
    return text if taken == trained + dropped + waiting else f"{text} (these should add up and do not)"


def _recipe(run: RunRecord) -> str:
    return (
        '<section id="recipe"><h2>Recipe</h2><details><summary>As it was resolved for this run</summary>'
        f'<pre class="recipe" tabindex="0">{html.escape(run.recipe_text)}</pre></details></section>'
    )
