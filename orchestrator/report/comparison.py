"""The page of `rayzero compare`: what is better and how sure, the tables, curves of all sides, and what their recipes differ in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.report.charts import DrawingGroup, draw_all
from orchestrator.report.evaluations import OVER_STEPS, Lines, over_k_charts, over_steps, section
from orchestrator.report.header import Header
from orchestrator.report.render import Section, render
from orchestrator.results.columns import Record
from orchestrator.results.comparison import OVER_SETS, Comparison
from orchestrator.results.comparison_text import (
    change,
    head,
    interval,
    p_words,
    sentences,
    settings_told,
    sureness,
    title,
    verdict,
)
from orchestrator.results.outcomes import fingerprint_of
from orchestrator.run.files import write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCells:
    """A side beside the first: of one figure."""

    change: str
    p: str
    verdict: str
    sureness: str
    """How sure that is, in words."""
    css: str
    """Class of the style sheet: `up` for the better, `down` for the worse; empty: neither, or not sure."""
    counts: str
    """On how many problems there is more, and on how many less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRow:
    head: str
    estimates: tuple[str, ...]
    pairs: tuple[PairCells, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTable:
    title: str
    rows: tuple[FigureRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    sentences: tuple[str, ...]
    letters: tuple[str, ...]
    sets: tuple[SetTable, ...]
    notes: tuple[str, ...]


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the page of a comparison; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, comparison_page(comparison).encode("utf-8", "replace"))
    return path


def comparison_page(comparison: Comparison) -> str:
    """The page, in one file that loads nothing."""
    sides = comparison.sides
    told = list(settings_told(comparison))
    sections = [
        Section(anchor="results", title="Results", template="comparison.html.j2", content=_tables(comparison)),
        section(groups) if (groups := _groups(comparison)) else None,
        Section(anchor="settings", title="Settings", template="settings.html.j2", content=told) if told else None,
    ]
    names = list(dict.fromkeys(side.name for side in sides))
    header = Header(
        name=" against ".join(names) if len(names) > 1 else names[0],
        lead="The same problems, answered by each side." if len(sides) > 1 else "Figures with their intervals.",
        facts={side.letter: f"{side.words}: {', '.join(run.named for run in side.runs)}" for side in sides},
        headline=(),
    )
    shown = [each for each in sections if each]
    return render("page.html.j2", header=header, refresh=0, sections=shown, samples=[])


def _tables(comparison: Comparison) -> Tables:
    others = comparison.sides[1:]
    sets = []
    for each in comparison.sets:
        rows = []
        for row in each.rows:
            pairs = []
            for side, found in zip(others, row.differences, strict=True):
                better = {True: "up", False: "down"}[found.estimate.value > 0]
                pairs.append(
                    PairCells(
                        change=change(row.figure, found),
                        p=p_words(found.p),
                        verdict=verdict(row, found, side.letter),
                        sureness=sureness(found),
                        css=better if found.sure and row.figure.better else "",
                        counts="" if each.name == OVER_SETS else f"more on {found.more:,}, less on {found.less:,}",
                    )
                )
            estimates = tuple(interval(row.figure, one) for one in row.estimates)
            rows.append(FigureRow(head=head(row.figure), estimates=estimates, pairs=tuple(pairs)))
        sets.append(SetTable(title=title(each), rows=tuple(rows)))
    return Tables(
        sentences=tuple(sentences(comparison)),
        letters=tuple(side.letter for side in comparison.sides),
        sets=tuple(sets),
        notes=tuple(comparison.notes),
    )


def _groups(comparison: Comparison) -> list[DrawingGroup]:
    """Curves of every set: a line a side."""
    groups = []
    for each in comparison.sets:
        if each.name == OVER_SETS:
            continue
        lines: Lines = {
            side.letter: [_history(run.history, run.records[each.name]) for run in side.runs]
            for side in comparison.sides
        }
        several = any(
            len({record["step"] for record in records if "step" in record}) > 1
            for runs in lines.values()
            for records in runs
        )
        charts = [over_steps(lines, key) for key, *_ in OVER_STEPS] if several else []
        if drawings := draw_all([*charts, *over_k_charts(lines)]):
            groups.append(DrawingGroup(title=each.name, drawings=drawings))
    return groups


def _history(history: tuple[Record, ...], newest: Mapping[str, object]) -> list[Record]:
    """Evaluations of one set on the problems of the newest, which comes last; a file of `rayzero eval` has no steps."""
    same = [
        record
        for record in history
        if record.get("set") == newest.get("set") and fingerprint_of(record) == fingerprint_of(newest)
    ]
    return [*(record for record in same if record is not newest), newest]
