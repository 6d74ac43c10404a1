"""The same prompts answered by every model of a run, side by side, as HTML."""

import html
from collections.abc import Sequence

from orchestrator.report.escape import as_html, cut
from orchestrator.results.answers import Problem, problems_of, verdict_of
from orchestrator.results.columns import Record
from orchestrator.results.table import Results, TableRow

BYTES = 450_000
"""Budget of all answers together."""
SHAPES = ((8, 1500), (6, 1200), (4, 1000), (4, 600), (3, 400), (2, 300), (1, 200))
"""Prompts of a set, characters of a text: the first that fits the budget is taken."""


VERDICTS: dict[str, dict[float | None, tuple[str, str]]] = {
    "correct": {1.0: ("right", "✓ correct"), 0.0: ("wrong", "✗ wrong")},
    "preferred": {1.0: ("right", "✓ preferred"), 0.5: ("", "a tie"), 0.0: ("wrong", "✗ not preferred")},
}
"""Verdict → class and words, where an answer is right or wrong and where it was compared."""


def answers_section(results: Results) -> str:
    """Empty where no evaluation kept samples."""
    sets = {name: problems for name in results.sets if (problems := problems_of(results, name))}
    if not sets:
        return ""
    body = ""
    for count, characters in SHAPES:
        body = "".join(
            _set(name, problems[:count], characters, opened=place == 0)
            for place, (name, problems) in enumerate(sets.items())
        )
        if len(body.encode("utf-8", "replace")) <= BYTES:
            break
    chosen = "Of the prompts whose answers are kept, those first on which the models differ."
    return (
        '<section id="answers"><h2>The same prompts, by every model</h2>'
        f'<p class="hint">{chosen} Each was answered once, greedily where the evaluation does so.</p>{body}</section>'
    )


def _set(name: str, problems: Sequence[Problem], characters: int, opened: bool) -> str:
    blocks = "".join(_problem(problem, characters) for problem in problems)
    return f"<details{' open' if opened else ''}><summary>{html.escape(name)}</summary>{blocks}</details>"


def _problem(problem: Problem, characters: int) -> str:
    reference = html.escape(cut(problem.reference, 200))
    # Problems that are judged by tests have none.
    told = f'<p class="answer">reference answer <b>{reference}</b></p>' if problem.reference.strip() else ""
    if problem.baseline:
        told += f'<p class="answer">compared with: {as_html(problem.baseline, characters)}</p>'
    cards = "".join(_card(row, answer, characters) for row, answer in problem.answers)
    return (
        f'<div class="problem"><pre class="prompt" tabindex="0">{as_html(problem.prompt, characters)}</pre>{told}'
        f'<div class="cards side" tabindex="0" role="region" aria-label="Answers of every model">{cards}</div></div>'
    )


def _card(row: TableRow, answer: Record | None, characters: int) -> str:
    title = html.escape(row.title)
    if answer is None:
        return f'<article class="card"><header><b>{title}</b><span>not kept</span></header></article>'
    words = VERDICTS["preferred" if answer.get("correct") is None else "correct"]
    css, verdict = words.get(verdict_of(answer), ("", ""))
    return (
        f'<article class="card {css}"><header><b>{title}</b><span class="verdict">{verdict}</span></header>'
        f"<pre>{as_html(str(answer.get('completion', '')), characters)}</pre></article>"
    )
