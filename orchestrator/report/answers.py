"""The same prompts answered by every model of a run, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.report.escape import cut
from orchestrator.report.render import Section, render
from orchestrator.results.answers import Problem, grade_of, problems_of
from orchestrator.results.columns import Record
from orchestrator.results.table import Results, TableRow

BYTES = 450_000
"""Budget of all answers together."""
SHAPES = ((8, 1500), (6, 1200), (4, 1000), (4, 600), (3, 400), (2, 300), (1, 200))
"""Prompts of a set, characters of a text: the first that fits the budget is taken."""
REFERENCE_CHARACTERS = 200

GRADES: dict[str, dict[float | None, tuple[str, str]]] = {
    "correct": {1.0: ("right", "✓ correct"), 0.0: ("wrong", "✗ wrong")},
    "preferred": {1.0: ("right", "✓ preferred"), 0.5: ("", "a tie"), 0.0: ("wrong", "✗ not preferred")},
}
"""Grade → class of the style sheet and words, for answers that are right or wrong and for those that were compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCard:
    """What one model answered."""

    model: str
    css: str
    """Class of the style sheet."""
    grade: str
    """In words."""
    completion: str | None
    """None: no answer of this model was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredPrompt:
    prompt: str
    reference: str
    """Empty: there is none, as for programs that tests score."""
    baseline: str
    """What the answers were compared with; empty: they were not."""
    cards: tuple[AnswerCard, ...]


def answers_section(results: Results) -> Section | None:
    """The prompts of every set in the largest shape within the budget; None where no evaluation kept samples."""
    sets = {name: problems for name in results.sets if (problems := problems_of(results, name))}
    if not sets:
        return None
    for count, characters in SHAPES:
        section = _section(sets, count, characters)
        if len(render(section.template, section=section).encode("utf-8", "replace")) <= BYTES:
            break
    return section


def _section(sets: Mapping[str, Sequence[Problem]], count: int, characters: int) -> Section:
    content = {name: tuple(_prompt(one, characters) for one in problems[:count]) for name, problems in sets.items()}
    return Section(anchor="answers", title="Answers", template="answers.html.j2", content=content)


def _prompt(problem: Problem, characters: int) -> AnsweredPrompt:
    return AnsweredPrompt(
        prompt=cut(problem.prompt, characters),
        reference=cut(problem.reference, REFERENCE_CHARACTERS) if problem.reference.strip() else "",
        baseline=cut(problem.baseline, characters),
        cards=tuple(_card(row, answer, characters) for row, answer in problem.answers),
    )


def _card(row: TableRow, answer: Record | None, characters: int) -> AnswerCard:
    if answer is None:
        return AnswerCard(model=row.title, css="", grade="", completion=None)
    words = GRADES["preferred" if answer.get("correct") is None else "correct"]
    css, grade = words.get(grade_of(answer), ("", ""))
    completion = cut(str(answer.get("completion", "")), characters)
    return AnswerCard(model=row.title, css=css, grade=grade, completion=completion)
