"""GSM8K's own answers: each is itself in ten surface forms, and is no other problem's different answer."""

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

from rewards.math.extract import final_answer
from rewards.math.verdict import decide

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "gsm8k" / "test.jsonl"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"GSM8K is not at {DATA}")


@pytest.fixture(scope="module")
def solutions() -> list[str]:
    return [json.loads(line)["answer"] for line in DATA.read_text().splitlines()]


def value_of(solution: str) -> Fraction:
    """Read here by other means than those under test."""
    return Fraction(re.fullmatch(r"-?[\d,]+(\.\d+)?", solution.rpartition("####")[2].strip())[0].replace(",", ""))  # type: ignore[index]


def forms(value: Fraction) -> list[str]:
    assert value.denominator == 1
    whole = int(value)
    separated = f"{whole:,}"
    return [
        f"#### {whole}",
        f"The answer is \\boxed{{{separated}}}.",
        f"\\boxed{{{separated.replace(',', '{,}')}}}",
        f"<think>1 + 1 = 3, so \\boxed{{{whole + 1}}}</think><answer>{whole}</answer>",
        f"work</think>\n\n**Answer:** $\\boxed{{\\${separated}.00}}$",
        f"<answer>\\boxed{{{whole} \\text{{ apples}}}}</answer>",
        f"<answer>{separated.replace(',', ' ')} dollars</answer>",
        f"\\[\\boxed{{x = {whole}.0}}\\]",
        f"\\boxed{{\\dfrac{{{2 * whole}}}{{2}}}}",
        f"{whole}",
        f"\\boxed{{{whole}}} and once more \\boxed{{{separated}}}",
        f"\\boxed{{{separated.replace(',', chr(92) + ',')}}}",
    ]


def test_every_answer_is_itself_in_many_forms(solutions: list[str]) -> None:
    assert len(solutions) == 1319
    failed = []
    for solution in solutions:
        value = value_of(solution)
        for form in [solution, *forms(value)]:
            for reference in (solution, str(value), f"{int(value)}.0"):
                if decide(form, reference).status != "correct":
                    failed.append((form, reference))
    assert failed == []


def test_no_answer_is_another_problems(solutions: list[str]) -> None:
    """All pairs, through the distinct values: equal spellings get equal verdicts, as they are the same strings."""
    distinct = sorted({value_of(solution) for solution in solutions})
    golds = [str(value) for value in distinct]
    found = [forms(value)[i % len(forms(value))] for i, value in enumerate(distinct)]
    assert all(final_answer(text) for text in found)
    accepted = [
        (found[i], golds[j])
        for i in range(len(distinct))
        for j in range(len(distinct))
        if i != j and decide(found[i], golds[j]).status != "wrong"
    ]
    assert accepted == []
