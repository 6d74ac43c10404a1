"""The published sets: what their files say, and how it is asked."""

import asyncio
import base64
import json
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.sections.eval import EvalSetSection
from orchestrator.config.sections.rewards import SHIPPED_RUBRICS
from rewards.resources import Resources, ResourceSettings
from rewards.rubric import Rubric
from rewards.types import FunctionSpec, Sample
from rollout.data.known_sets import KNOWN_SETS, form_of
from rollout.data.rows import Row
from rollout.data.sources import load_rows


def packed(tests: str) -> str:
    """As LiveCodeBench packs its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(tests))).decode()


ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "Two eggs and two eggs?", "answer": "2+2=<<2+2=4>>4 eggs.\n#### 4"},
    "aime24": {"id": 60, "problem": "Find $t$.", "solution": "It is $204$.", "answer": "204", "url": "https://x"},
    "amc23": {"id": 0, "problem": "How many miles?", "answer": 27.0, "url": "https://x", "question": "How many miles?"},
    "math": {
        "problem": "What is $1+1$ halved by four?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": "[asy]draw((0,0));[/asy] It is $\\frac{2}{4}=\\boxed{\\frac{1}{2}}$.",
    },
    "math500": {
        "problem": "Halve 1.",
        "solution": "So \\boxed{\\frac{1}{2}}.",
        "answer": "\\frac{1}{2}",
        "subject": "Algebra",
        "level": 2,
        "unique_id": "test/algebra/1.json",
    },
    "numinamath": {
        "problem": "Halve 2.",
        "solution": "It is 1.",
        "answer": "1",
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "problem_is_valid": "Yes",
        "solution_is_valid": "Yes",
        "source": "olympiads",
        "synthetic": False,
    },
    "numinamath-cot": {
        "source": "cn_k12",
        "problem": "Halve 4.",
        "solution": "It is \\boxed{2}.",
        "messages": [{"content": "Halve 4.", "role": "user"}, {"content": "It is \\boxed{2}.", "role": "assistant"}],
    },
    "deepscaler": {"problem": "Halve 6.", "answer": "3", "solution": "Easy."},
    "dapo-math": {
        "data_source": "math_dapo",
        "prompt": [{"content": 'Halve 8. End with "Answer:".', "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": "4", "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "a-b"},
    },
    "apps": {
        "problem_id": 7,
        "question": "Double the number.",
        "solutions": '["print(2*int(input()))"]',
        "input_output": '{"inputs": ["4\\n"], "outputs": ["8\\n"]}',
        "difficulty": "interview",
        "url": "https://x",
        "starter_code": "",
    },
    "taco": {
        "question": "Double the number.",
        "solutions": '["def twice(n):\\n return 2*n"]',
        "starter_code": "def twice(n):\n\t",
        "input_output": '{"fn_name": "twice", "inputs": [[4]], "outputs": [[8]]}',
        "difficulty": "EASY",
        "raw_tags": "[]",
        "name": None,
        "source": "codewars",
        "tags": "[]",
        "skill_types": "[]",
        "url": None,
        "Expected Auxiliary Space": None,
        "time_limit": "2.0 seconds",
        "date": None,
        "picture_num": "0",
        "memory_limit": "256 megabytes",
        "Expected Time Complexity": None,
    },
    "livecodebench": {
        "question_title": "Twice",
        "question_content": "Double the number.",
        "platform": "leetcode",
        "question_id": "1",
        "contest_id": "c",
        "contest_date": "2024-01-01T00:00:00",
        "difficulty": "easy",
        "starter_code": "class Solution:\n    def twice(self, n: int) -> int:\n        ",
        "public_test_cases": '[{"input": "4", "output": "8", "testtype": "functional"}]',
        "private_test_cases": packed('[{"input": "5", "output": "10", "testtype": "functional"}]'),
        "metadata": '{"func_name": "twice"}',
    },
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": "import math\n\ndef root(n):\n    ''' Of {n}. '''\n",
        "entry_point": "root",
        "canonical_solution": "    return math.isqrt(n)\n",
        "test": "def check(candidate):\n    assert candidate(9) == 3\n",
    },
}
"""A row of each file as it is published."""


READS = "\n\nThe program reads its input from standard input and prints its output."
BEGINS = "\n\nThe program begins with this code and completes it:\n\n```python\n"


def rows(name: str, tmp_path: Path, changes: Mapping[str, Any] = {}) -> list[Row]:
    """Set and file are all that a user names."""
    (tmp_path / "set.jsonl").write_text(json.dumps({**ROWS[name], **changes}) + "\n")
    return load_rows(EvalSetSection.model_validate({"set": name, "path": str(tmp_path / "set.jsonl")}).source(name), 0)


@pytest.mark.parametrize(
    ("name", "question", "answer", "rubric"),
    [
        ("gsm8k", "Two eggs and two eggs?", "4", "math"),
        ("aime24", "Find $t$.", "204", "math"),
        ("amc23", "How many miles?", "27.0", "math"),
        ("math", "What is $1+1$ halved by four?", ROWS["math"]["solution"], "math"),
        ("math500", "Halve 1.", "\\frac{1}{2}", "math"),
        ("numinamath", "Halve 2.", "1", "math"),
        ("numinamath-cot", "Halve 4.", "It is \\boxed{2}.", "math"),
        ("deepscaler", "Halve 6.", "3", "math"),
        ("dapo-math", 'Halve 8. End with "Answer:".', "4", "answer-line"),
        ("apps", f"Double the number.{READS}", "", "code"),
        ("taco", f"Double the number.{BEGINS}def twice(n):\n```", "", "code"),
        (
            "livecodebench",
            f"Double the number.{BEGINS}class Solution:\n    def twice(self, n: int) -> int:\n```",
            "",
            "code",
        ),
        ("humaneval", ROWS["humaneval"]["prompt"], "", "code"),
    ],
)
def test_set_and_file_are_enough(name: str, question: str, answer: str, rubric: str, tmp_path: Path) -> None:
    (row,) = rows(name, tmp_path)
    assert (row.question, row.answer, row.rubric) == (question, answer, rubric)


def scored(row: Row, *texts: str) -> list[tuple[str, float]]:
    """(status, value) of completions, by the rubric of the row's set."""
    shipped = SHIPPED_RUBRICS[row.rubric]["code_tests" if row.rubric == "code" else "accuracy"]
    spec = FunctionSpec(name=shipped.name, label=shipped.name, args=dict(shipped.model_extra or {}))

    async def values() -> list[tuple[str, float]]:
        resources = Resources(ResourceSettings())
        try:
            rubric = Rubric(row.rubric, (spec,), resources)
            samples = [
                Sample(prompt=row.question, completion=text, answer=row.answer, fields=row.fields) for text in texts
            ]
            scores = [await rubric.score(sample) for sample in samples]
            return [(score.status, score.value) for score in scores]
        finally:
            await resources.close()

    return asyncio.run(values())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("apps", {"input_output": '{"fn_name": "twice", "inputs": [[4]], "outputs": [8]}'}),
        ("apps", {"input_output": {"fn_name": "twice", "inputs": [[4]], "outputs": [8]}, "starter_code": "\n"}),
        ("taco", {"starter_code": None}),
        ("taco", {"input_output": '{"inputs": [[4]], "outputs": [8]}', "fn_name": "twice", "starter_code": ""}),
        ("livecodebench", {"starter_code": ""}),
        ("livecodebench", {"starter_code": "", "metadata": {"func_name": "twice"}}),
    ],
)
def test_a_function_that_the_tests_call_is_named_where_no_code_names_it(
    name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    (row,) = rows(name, tmp_path, changes)
    assert row.question == (
        "Double the number.\n\nThe program defines the function `twice`, which is called with its arguments and returns "
        "the result."
    )
    assert scored(row, "```python\ndef twice(n):\n    return 2*n\n```", "```python\nprint(2*int(input()))\n```") == [
        ("ok", 1.0),
        ("ok", 0.0),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"input_output": '{"inputs": ["\\"fn_name\\": x"], "outputs": ["8"]}'},
        {"input_output": '{"fn_name": null, "inputs": ["4"], "outputs": ["8"]}'},
        {"input_output": '{"fn_name": ', "starter_code": ""},
        {"metadata": "{}"},
    ],
)
def test_a_program_that_no_test_calls_reads_its_input(changes: dict[str, Any], tmp_path: Path) -> None:
    (row,) = rows("apps", tmp_path, changes)
    assert row.question == f"Double the number.{READS}"


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


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("gsm8k", "\\boxed{4}", "\\boxed{5}"),
        ("math", "\\boxed{0.5}", "\\boxed{\\frac{2}{1}}"),
        ("math500", "\\boxed{0.5}", "\\boxed{2}"),
        ("numinamath", "\\boxed{1}", "\\boxed{2}"),
        ("numinamath-cot", "\\boxed{2}", "\\boxed{4}"),
        ("deepscaler", "\\boxed{3}", "\\boxed{6}"),
        ("dapo-math", "Half of 8.\nAnswer: 4", "Half of 8.\nAnswer: 5"),
        ("dapo-math", "Half of 8.\n\n**Answer:** $4$", "Answer: 5\nAnswer: 4"),
        ("apps", "```python\nprint(2*int(input()))\n```", "```python\nprint(int(input()))\n```"),
        ("taco", "```python\ndef twice(n):\n    return 2*n\n```", "```python\ndef twice(n):\n    return 8+n\n```"),
        (
            "livecodebench",
            "```python\nclass Solution:\n    def twice(self, n: int) -> int:\n        return 2*n\n```",
            # Right for the public test alone.
            "```python\nclass Solution:\n    def twice(self, n: int) -> int:\n        return 8\n```",
        ),
    ],
)
def test_the_rubric_of_a_set_knows_right_from_wrong(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    (row,) = rows(name, tmp_path)
    assert scored(row, right, wrong) == [("ok", 1.0), ("ok", 0.0)]
