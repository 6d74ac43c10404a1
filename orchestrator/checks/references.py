"""Whether the references of a source are answers that `accuracy` can compare with."""

from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.config.recipe import Stage
from orchestrator.config.sections.data import SourceSection
from rollout.errors import InputError

if TYPE_CHECKING:
    from rollout.data.rows import Row

MOST_NAMED = 4
"""Different references that a note names."""


class References:
    """What is seen of the references of one source; nothing where no `accuracy` reads them."""

    def __init__(self, reads: bool, asked: bool) -> None:
        self._asked = asked
        """Whether an empty answer is one that is missing."""
        self._reads = reads
        self._count = 0
        self._found: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    @classmethod
    def of(cls, stage: Stage, section: SourceSection) -> "References":
        functions = stage.rewards.rubrics.get(section.rubric, {})
        return cls(
            any(function.name == "accuracy" for function in functions.values()),
            bool(section.set and section.answer_column),
        )

    def look_at(self, row: "Row") -> None:
        """Raises InputError for a reference that is no answer by its form."""
        if not self._reads or not (row.answer or self._asked):
            return
        # Only here: the verifier's tables take a moment.
        from rewards.builtin import accepted_answers
        from rewards.math.references import no_answer

        self._count += 1
        if not row.answer:
            self._note(row, "an empty text")
            return
        try:
            accepted = accepted_answers(row.answer)
        except InputError as problem:
            raise InputError(f"{row.place}: {problem}; write the answer, or a list of accepted ones, there") from None
        found = [no_answer(each) for each in accepted]
        if all(found):
            self._note(row, found[0])

    def _note(self, row: "Row", what: str) -> None:
        self._found[what] += 1
        self._first.setdefault(what, row.place)

    def notes(self, key: str) -> list[str]:
        """One note where some references are no answers."""
        if not self._found:
            return []
        named = ", ".join(
            f"{what} ({count:,}, first {self._first[what]})" for what, count in self._found.most_common(MOST_NAMED)
        )
        return [
            f"{key}: {self._found.total():,} of {self._count:,} references are no answers: {named}; a completion that "
            "repeats one is right, and no other is: remove these rows, or say where the answer "
            "stands (answer_column, answer_pattern)"
        ]
