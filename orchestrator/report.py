"""The HTML report of a run: evaluations, curves and samples in one file that opens anywhere.

Everything comes from the plain files of the run directory: `recipe.toml`, `metrics.jsonl` and `trajectories/`. The
page loads nothing from outside, and its content security policy forbids it to. Text that a model wrote is hostile: it
passes through `report_text.py`.
"""

import base64
import hashlib
import html
import math
import os
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.report_curves import curves_section
from orchestrator.report_evals import eval_sets, evaluations_section, headline, pairs_section
from orchestrator.report_pairs import held_out_pairs
from orchestrator.report_samples import Samples, read_samples, samples_section
from orchestrator.report_text import as_json
from orchestrator.run_record import RunRecord, StageRecord, as_number, read_run

HERE = Path(__file__).parent

WORDS = {
    "sft": "supervised fine-tuning",
    "grpo": "reinforcement learning, GRPO",
    "reward_model": "reward model",
    "dpo": "direct preference optimisation",
}
"""Kinds of stages."""

POINTS_A_SERIES = 200
"""A longer curve is thinned to this."""


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run directory and return its path. The run may still be going on.

    Raises:
        InputError: the directory holds no run, or its recipe or metrics cannot be read.
    """
    run = read_run(run_dir)
    path = run_dir / "report.html"
    aside = run_dir / f".report-{os.getpid()}.html"
    try:
        # JSON may smuggle in half a surrogate pair, which UTF-8 cannot hold.
        aside.write_bytes(_page(run).encode("utf-8", "replace"))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def _page(run: RunRecord) -> str:
    style = (HERE / "report.css").read_text(encoding="utf-8")
    script = (HERE / "report.js").read_text(encoding="utf-8")
    # The same recipe with more stages has more charts; the file stays small.
    limit = max(50, POINTS_A_SERIES * 3 // max(3, len(run.stages)))
    samples = read_samples(run)
    stages = "".join(_stage_section(stage, limit) for stage in run.stages if stage.begun)
    name = html.escape(str(run.recipe.get("name", run.directory.name)))
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'"
    sections = [evaluations_section(run), stages, pairs_section(run), samples_section(samples), _recipe(run)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{name} · RayZero</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
        f"{_header(run, name, samples)}\n<main>\n{''.join(sections)}\n</main>\n"
        f'<script type="application/json" id="samples-data">{as_json(samples.stages)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _hash(source: str) -> str:
    """The source expression that lets exactly this inline style or script pass the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _header(run: RunRecord, name: str, samples: Samples) -> str:
    facts = [
        ("Status", _status(run)),
        ("Stages", " → ".join(f"{stage.name} ({stage.kind})" for stage in run.stages)),
        ("Started", _date(run.first_time)),
        ("Took", _duration(sum(stage.seconds for stage in run.stages))),
        ("Seed", str(run.recipe.get("seed", "–"))),
    ]
    links = [("evaluations", "Evaluations")] if eval_sets(run) else []
    links += [(f"stage-{stage.name}", stage.name) for stage in run.stages if stage.begun]
    links += [("pairs", "Before and after")] if any(e.get("samples") for s in run.stages for e in s.evals) else []
    links += [("samples", "Training samples")] if samples.stages or samples.unreadable else []
    links += [("recipe", "Recipe")]
    nav = "".join(f'<a href="#{html.escape(anchor)}">{html.escape(title)}</a>' for anchor, title in links)
    lead = html.escape(str(run.recipe.get("description", "")))
    rows = "".join(f"<div><dt>{key}</dt><dd>{html.escape(value)}</dd></div>" for key, value in facts)
    return (
        f'<header class="page"><h1>{name}</h1><p class="lead">{lead}</p>'
        f'<dl class="facts">{rows}</dl>{headline(run)}<nav aria-label="Sections">{nav}</nav></header>'
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


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _stage_section(stage: StageRecord, limit: int) -> str:
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
    words = WORDS.get(stage.kind, stage.kind)
    name = html.escape(stage.name)
    return (
        f'<section id="stage-{name}"><h2>{name} <span class="unit">{html.escape(words)}</span></h2>'
        f'<p class="stage-facts">{html.escape(" · ".join(facts))}</p>{curves_section(stage, limit)}'
        f"{held_out_pairs(stage)}</section>"
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
