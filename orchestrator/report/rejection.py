"""What became of the samples of rejection sampling: a bar for what is left after each filter."""

from dataclasses import dataclass

from orchestrator.report.bars import Bar, Segment, bar
from orchestrator.report.render import Section
from orchestrator.results.words import as_finite, percent
from orchestrator.run.record import Record, RunRecord, as_number

FIRST, LAST = ("truncated", "empty", "wrong"), ("surplus", "near_duplicate")
"""Reasons in the order in which orchestrator/data/selection.py applies them; the flags of the filters come between them."""
REASONS = {
    "truncated": "cut at the token limit",
    "empty": "nothing in the reply",
    "wrong": "wrong",
    "surplus": "more than are kept of a prompt",
    "near_duplicate": "nearly the same as another",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelRow:
    """What one filter dropped, or what there is at the beginning and at the end."""

    words: str
    bar: Bar
    count: str
    share: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """The samples of one stage, filter by filter."""

    stage: str
    facts: tuple[str, ...]
    rows: tuple[FunnelRow, ...]


def rejection_section(run: RunRecord) -> Section | None:
    """A funnel for every stage of rejection sampling; None where none has finished sampling."""
    funnels = tuple(_funnel(stage.name, stage.yields) for stage in run.stages if stage.yields)
    return Section(anchor="data", title="Data", template="rejection.html.j2", content=funnels) if funnels else None


def drops(record: Record) -> tuple[int, dict[str, int]]:
    """(samples, reason → samples that it dropped, in the order of the filters)."""
    counts = {str(name): int(as_number(count) or 0) for name, count in (record.get("yields") or {}).items()}
    samples = counts.pop("samples", 0)
    counts.pop("kept", None)
    flags = [name for name in counts if name not in (*FIRST, *LAST)]
    return samples, {name: counts[name] for name in (*FIRST, *flags, *LAST) if counts.get(name)}


def _funnel(stage: str, record: Record) -> Funnel:
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
    return Funnel(stage=stage, facts=tuple(_facts(record)), rows=tuple(rows))


def _row(words: str, segments: list[Segment], count: int, whole: int) -> FunnelRow:
    number = f"{count:,}".replace("-", "−")
    return FunnelRow(words=words, bar=bar(segments), count=number, share=percent(abs(count) / whole))


def _facts(record: Record) -> list[str]:
    prompts, overlapping, kept = (
        int(as_number(record.get(key)) or 0) for key in ("prompts", "prompts_overlapping", "prompts_kept")
    )
    facts = [f"{prompts:,} prompts"]
    if overlapping:
        facts.append(f"{overlapping:,} not asked, for they share a passage with an evaluation set")
    facts.append(f"rows for {kept:,} of them" + (f" ({percent(kept / prompts, 0)})" if prompts else ""))
    length = as_finite(record.get("length_mean"))
    if length is not None:
        facts.append(f"{length:.0f} tokens a row")
    return facts
