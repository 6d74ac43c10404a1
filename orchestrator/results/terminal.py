"""The result of a run on a terminal, as its end prints it."""

from orchestrator.display import Display
from orchestrator.results.answers import problems_of
from orchestrator.results.table import Results
from orchestrator.results.table_text import notes, parts

SAMPLES_PRINTED = 3
"""Prompts whose answers are shown."""


def print_results(results: Results, display: Display) -> None:
    """The table of all models, and answers of the first and of the last one of the first line to the same prompts."""
    for part in parts(results, display.width):
        display.table(f"{results.name}: {part.title}", part.heads, part.rows)
        if part.left_out:
            display.note(f"{', '.join(part.left_out)}: in table.md")
    for note in notes(results):
        display.note(note)
    problems = next((kept for name in results.sets if (kept := problems_of(results, name))), [])[:SAMPLES_PRINTED]
    if problems:
        display.note("\nAnswers to the same prompts, those first on which the models differ:")
    shown = [row for _, rows in results.groups[:1] for row in dict.fromkeys((rows[0], rows[-1]))]
    for row in shown:
        answers = [answer for problem in problems for own, answer in problem.answers if own is row and answer]
        if answers:
            display.samples(row.title, answers)
