"""The table of all models as HTML: the headline, the overview, and every figure of each set folded away."""

import html
import math
from collections.abc import Sequence

from orchestrator.results.columns import SHARES
from orchestrator.results.table import Column, Results, TableRow
from orchestrator.results.words import parameter_words, percent

MOST_IN_HEADLINE = 3
"""Sets; of more the headline tells the mean."""


def headline(results: Results) -> str:
    """The accuracy of the first and of the last model of the first line, in large type."""
    if not results.rows:
        return ""
    rows = results.groups[0][1]
    if len(results.leading) > MOST_IN_HEADLINE:
        told = [(column, "mean over sets") for column in results.over_sets[:1]]
    else:
        told = [
            (column, name)
            for name, key in results.leading.items()
            for column in results.columns_of(name)
            if column.figure.key == key
        ]
    lines = []
    for column, name in told:
        known = [(row, value) for row in rows if (value := column.cell(row).value) is not None]
        if not known or column.figure.key not in SHARES:
            continue
        numbers, models = f"<b>{percent(known[-1][1])}</b>", known[-1][0].title
        if len(known) > 1:
            numbers = f"<span>{percent(known[0][1])} <i>→</i></span> {numbers}"
            models = f"{known[0][0].title} → {models}"
        words = f"{name}, {SHARES[column.figure.key]}: {models}"
        lines.append(f'<li><p class="big">{numbers}</p><p>{html.escape(words)}</p></li>')
    return f'<ul class="headline">{"".join(lines)}</ul>' if lines else ""


def results_section(results: Results) -> str:
    """Empty where nothing was evaluated."""
    if not results.rows:
        return ""
    by_set, means = results.by_set, results.over_sets
    only = next(iter(results.sets))
    over = "mean over sets" if by_set else _set_title(results, only)
    tables = "".join(
        f"<h3>{_set_title(results, name)}</h3>{_table(results, [('', results.columns_of(name))], f'Figures of {name}')}"
        for name in results.sets
        if by_set or len(results.columns_of(name)) > len(means)
    )
    shown = [(f"{SHARES.get(results.usual, '')} by set", by_set), (over, means)]
    return (
        f'<section id="results"><h2>Results</h2>{_table(results, shown, "All models")}'
        f'<p class="hint">{_notes(results)}</p>{_folded(tables)}</section>'
    )


def _folded(tables: str) -> str:
    return f'<details class="folded"><summary>Every figure of every set</summary>{tables}</details>' if tables else ""


def _set_title(results: Results, name: str) -> str:
    problems = results.sets[name]
    return html.escape(name) + (f' <span class="unit">{problems:,} problems</span>' if problems else "")


def _table(results: Results, groups: Sequence[tuple[str, Sequence[Column]]], label: str) -> str:
    groups = [(title, columns) for title, columns in groups if columns]
    columns = [column for _, own in groups for column in own]
    firsts = {own[0].key for _, own in groups[1:]}
    over = "".join(f'<th colspan="{len(own)}" scope="colgroup">{title}</th>' for title, own in groups)
    over = f'<tr class="over"><td></td>{over}</tr>' if any(title for title, _ in groups) else ""
    heads = "".join(_head(column, column.key in firsts) for column in columns)
    best = {column.key: column.best(results.rows) for column in columns}
    body = []
    for key, rows in results.groups:
        title = html.escape(_group_title(results, key, rows))
        body.append(f'<tr class="set"><th colspan="{len(columns) + 1}" scope="colgroup"><span>{title}</span></th></tr>')
        for place, row in enumerate(rows):
            cells = "".join(
                _cell(column, row, row.title in best[column.key], column.key in firsts) for column in columns
            )
            css = ' class="anew"' if place and row.begins_line else ""
            body.append(f"<tr{css}>{_row_head(row)}{cells}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}"><table class="results">'
        f'<thead>{over}<tr><th scope="col">model</th>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _head(column: Column, first: bool) -> str:
    unit = f' <span class="unit">{column.figure.unit}</span>' if column.figure.unit else ""
    css = ' class="first"' if first else ""
    return f'<th scope="col"{css}>{html.escape(column.head)}{unit}</th>'


def _row_head(row: TableRow) -> str:
    words = f"{row.kind} {row.origin}".strip()
    link = f'<a href="#stage-{html.escape(row.stage)}">{html.escape(row.title)}</a>'
    return f'<th scope="row">{link}<small>{html.escape(words)}</small></th>'


def _cell(column: Column, row: TableRow, best: bool, first: bool) -> str:
    cell, change = column.cell(row), column.change(row)
    text = html.escape(column.figure.bare(cell.value))
    if cell.value is not None and not cell.complete:
        text += "*"
    text = f"<b>{text}</b>" if best else text
    if change is not None:
        words = column.figure.change(change)
        up = {"+": "up", "−": "down"}.get(words[0], "") if column.figure.better else ""
        text += f'<small class="change {up}">{words}</small>'
    return f'<td class="first">{text}</td>' if first else f"<td>{text}</td>"


def _group_title(results: Results, key: str, rows: Sequence[TableRow]) -> str:
    teachers = list(dict.fromkeys(name for row in rows for name in row.taught_by))
    size = next((row.parameters for row in rows if row.parameters), 0)
    words = [f"Students of {', '.join(teachers)}" if teachers else "", results.initial[key], parameter_words(size)]
    return " · ".join(filter(None, words))


def _notes(results: Results) -> str:
    columns = [*results.by_set, *results.over_sets]
    keys = {column.figure.key for column in results.over_sets}
    notes = []
    if any(column.best(results.rows) for column in columns):
        notes.append("Bold: the best of its column.")
    if any(row.before for row in results.rows):
        notes.append("Small: the change against the model that it was trained from.")
    if any(row.begins_line for _, rows in results.groups for row in rows[1:]):
        notes.append("A heavier rule: here training starts anew from the initial model.")
    said = {
        "greedy": "Greedy: one answer without chance.",
        "pass@1": "Pass@1: mean over k sampled answers.",
        "cons@k": "Cons@k: the majority of the k.",
        "win_rate": "Win rate: prompts whose answer is preferred to the one that it is compared with, ties for one half.",
        "unscored": "Unscored: completions that nothing could judge; they are in no other figure.",
    }
    notes += [text for key, text in said.items() if key in keys]
    if any(
        not column.cell(row).complete and column.cell(row).value is not None
        for column in columns
        for row in results.rows
    ):
        notes.append("* Mean over fewer sets than the others of its column, and not compared with them.")
    fewest = min(filter(None, results.sets.values()), default=0)
    if fewest:
        # 95 % interval of a share near one half, the widest case.
        points = 1.96 * 50 / math.sqrt(fewest)
        notes.append(f"With {fewest:,} problems, differences below {points:.0f} points may be chance.")
    return " ".join(notes)
