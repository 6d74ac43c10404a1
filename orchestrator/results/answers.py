"""The same prompts answered by every model of a run: the samples that evaluations kept, brought together."""

from dataclasses import dataclass

from orchestrator.results.columns import Record
from orchestrator.results.table import Results, TableRow
from orchestrator.results.words import as_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A prompt of an evaluation set and what the models of a run answered."""

    prompt: str
    reference: str
    baseline: str
    """What the answers were compared with; empty: they were not."""
    answers: list[tuple[TableRow, Record | None]]
    """(model, its answer) for every model of which answers to this set were kept; None: not the one to this prompt."""

    @property
    def differ(self) -> bool:
        """Whether some models are right, or preferred, and others not."""
        return len({grade for _, answer in self.answers if answer and (grade := grade_of(answer)) is not None}) > 1


def grade_of(answer: Record) -> float | None:
    """How good an answer is: 1 right, or preferred to the baseline; 0 wrong, or not preferred; ½ a tie; None: not known."""
    correct = answer.get("correct")
    return float(correct) if isinstance(correct, bool) else as_finite(answer.get("won"))


def problems_of(results: Results, name: str) -> list[Problem]:
    """Prompts of a set with the answers of every model, those first on which the models differ."""
    columns: list[tuple[TableRow, dict[str, Record]]] = []
    for row in results.rows:
        samples = [s for s in row.records.get(name, {}).get("samples") or () if isinstance(s, dict)]
        if samples:
            columns.append((row, {_key(sample): sample for sample in samples}))
    # The last model's wording: the form in which a prompt is put may differ between stages.
    keys = dict.fromkeys(key for _, answers in reversed(columns) for key in answers)
    problems = []
    for key in keys:
        asked = next(answers[key] for _, answers in reversed(columns) if key in answers)
        problems.append(
            Problem(
                prompt=str(asked.get("prompt", "")),
                reference=str(asked.get("answer", "")),
                baseline=str(asked.get("baseline") or ""),
                answers=[(row, answers.get(key)) for row, answers in columns],
            )
        )
    return sorted(problems, key=lambda problem: not problem.differ)


def _key(sample: Record) -> str:
    """What names a prompt in every stage; records of earlier versions have only its text."""
    return str(sample.get("id") or f"{sample.get('prompt')}\n{sample.get('answer')}")
