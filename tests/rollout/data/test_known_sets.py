"""The published sets: what their files say, and how it is asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.sections.eval import EvalSetSection
from rollout.data.known_sets import KNOWN_SETS, form_of
from rollout.data.rows import Row
from rollout.data.sources import load_rows

ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "Two eggs and two eggs?", "answer": "2+2=<<2+2=4>>4 eggs.\n#### 4"},
    "aime24": {"id": 60, "problem": "Find $t$.", "solution": "It is $204$.", "answer": "204", "url": "https://x"},
    "amc23": {"id": 0, "problem": "How many miles?", "answer": 27.0, "url": "https://x", "question": "How many miles?"},
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": "import math\n\ndef root(n):\n    ''' Of {n}. '''\n",
        "entry_point": "root",
        "canonical_solution": "    return math.isqrt(n)\n",
        "test": "def check(candidate):\n    assert candidate(9) == 3\n",
    },
}
"""A row of each file as it is published."""


def rows(name: str, tmp_path: Path) -> list[Row]:
    """Set and file are all that a user names."""
    (tmp_path / "set.jsonl").write_text(json.dumps(ROWS[name]) + "\n")
    return load_rows(EvalSetSection.model_validate({"set": name, "path": str(tmp_path / "set.jsonl")}).source(name), 0)


@pytest.mark.parametrize(
    ("name", "question", "answer", "rubric"),
    [
        ("gsm8k", "Two eggs and two eggs?", "4", "math"),
        ("aime24", "Find $t$.", "204", "math"),
        ("amc23", "How many miles?", "27.0", "math"),
        ("humaneval", ROWS["humaneval"]["prompt"], "", "code"),
    ],
)
def test_set_and_file_are_enough(name: str, question: str, answer: str, rubric: str, tmp_path: Path) -> None:
    (row,) = rows(name, tmp_path)
    assert (row.question, row.answer, row.rubric) == (question, answer, rubric)


def test_every_set_has_a_row_here() -> None:
    assert set(ROWS) == set(KNOWN_SETS)


def test_the_tests_of_humaneval_come_along_with_the_program_that_they_complete(tmp_path: Path) -> None:
    (row,) = rows("humaneval", tmp_path)
    assert all(row.fields[column] == ROWS["humaneval"][column] for column in ("prompt", "entry_point", "test"))


def test_what_a_source_says_itself_comes_first(tmp_path: Path) -> None:
    section = EvalSetSection.model_validate(
        {"set": "gsm8k", "path": "f", "prompt_column": "q", "rubric": "mine", "answer_pattern": ""}
    )
    assert (section.prompt_column, section.answer_column, section.answer_pattern) == ("q", "answer", "")
    assert section.rubric == "mine"


def test_mathematics_is_asked_for_a_box_where_the_template_says_nothing_of_the_answer() -> None:
    assert "\\boxed{}" in form_of("aime24", "chat")
    assert {form_of("gsm8k", template) for template in ("plain", "r1-zero", "mine.txt")} == {"{prompt}"}


@pytest.mark.parametrize("template", ["plain", "r1-zero", "chat"])
def test_code_is_asked_for_as_a_python_block_under_every_template(template: str) -> None:
    asked = form_of("humaneval", template).replace("{prompt}", ROWS["humaneval"]["prompt"])
    assert "Complete the following Python function" in asked
    assert asked.endswith("```python\n" + ROWS["humaneval"]["prompt"] + "```")
