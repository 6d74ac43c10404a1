"""What became of the samples of rejection sampling, as HTML: a bar for what is left after each filter."""

import html
import math

from orchestrator.report.bars import Segment, bar
from orchestrator.run.record import Record, RunRecord, as_number

FIRST, LAST = ("truncated", "empty", "wrong"), ("surplus", "near_duplicate")
"""Reasons in the order in which orchestrator/data/selection.py applies them; between them the flags of the filters."""
REASONS = {
    "truncated": "cut at the token limit",
    "empty": "nothing in the reply",
    "wrong": "wrong",
    "surplus": "more than are kept of a prompt",
    "near_duplicate": "nearly the same as another",
}


def yields_section(run: RunRecord) -> str:
    """A funnel a stage; empty where none has finished sampling."""
    funnels = "".join(_funnel(stage.name, stage.yields) for stage in run.stages if stage.yields)
    return f'<section id="data"><h2>Data yields</h2><div class="funnels">{funnels}</div></section>' if funnels else ""


def drops(record: Record) -> tuple[int, dict[str, int]]:
    """(samples, reason → samples that it dropped, in the order of the filters)."""
    counts = {str(name): int(as_number(count) or 0) for name, count in (record.get("yields") or {}).items()}
    samples = counts.pop("samples", 0)
    counts.pop("kept", None)
    flags = [name for name in counts if name not in (*FIRST, *LAST)]
    return samples, {name: counts[name] for name in (*FIRST, *flags, *LAST) if counts.get(name)}


def _funnel(name: str, record: Record) -> str:
    samples, dropped = drops(record)
    whole = max(samples, 1)
    rows = [_row("sampled", [Segment("s0", 1.0, f"{samples:,} samples")], samples, whole)]
    left = samples
    for reason, count in dropped.items():
        left -= count
        words = REASONS.get(reason, reason.replace("_", " "))
        segments = [
            Segment("s0", left / whole, f"{left:,} left"),
            Segment("lost", count / whole, f"{count:,} dropped: {words}"),
        ]
        rows.append(_row(words, segments, -count, whole))
    rows.append(_row("kept as rows", [Segment("kept", left / whole, f"{left:,} kept")], left, whole))
    return (
        f'<article class="funnel"><h3>{html.escape(name)}</h3><p class="stage-facts">{html.escape(_facts(record))}</p>'
        f'<div class="bars">{"".join(rows)}</div></article>'
    )


def _row(words: str, segments: list[Segment], count: int, whole: int) -> str:
    number = f"{count:,}".replace("-", "−")
    share = f"{abs(count) / whole:.1%}".replace("%", " %")
    return f"<p><span>{html.escape(words)}</span>{bar(segments)}<b>{number} <i>{share}</i></b></p>"


def _facts(record: Record) -> str:
    prompts, overlapping, kept = (
        int(as_number(record.get(key)) or 0) for key in ("prompts", "prompts_overlapping", "prompts_kept")
    )
    facts = [f"{prompts:,} prompts"]
    if overlapping:
        facts.append(f"{overlapping:,} not asked, for they share a passage with an evaluation set")
    facts.append(f"rows for {kept:,} of them" + (f" ({kept / prompts:.0%})".replace("%", " %") if prompts else ""))
    length = as_number(record.get("length_mean"))
    if length is not None and math.isfinite(length):
        facts.append(f"{length:.0f} tokens a row")
    return " · ".join(facts)
