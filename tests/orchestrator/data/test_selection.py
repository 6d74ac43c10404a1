"""What rejection sampling keeps, and why it does not keep the rest."""

from typing import Any

import pytest

from orchestrator.config.sections.kinds import RejectSection
from orchestrator.data.selection import SampledRow, select


def row(prompt_id: str, completion: str, *, right: bool = True, **changes: Any) -> SampledRow:
    made = {
        "prompt_id": prompt_id,
        "prompt": f"What is {prompt_id}?",
        "completion": completion,
        "num_tokens": len(completion),
        "finish_reason": "stop",
        "right": right,
        "reward": float(right),
        "flags": [],
    }
    return made | changes


def kept(rows: list[SampledRow], **settings: Any) -> list[str]:
    return [each["completion"] for each in select(rows, RejectSection(**settings)).kept]


SAMPLES = [
    row("a", "a long and right answer"),
    row("a", "right"),
    row("a", "wrong", right=False),
    row("b", "never right", right=False, reward=0.7),
    row("b", "worse", right=False, reward=0.1),
]


def test_rules() -> None:
    assert kept(SAMPLES) == ["a long and right answer"]
    assert kept(SAMPLES, keep_at_most=5) == ["a long and right answer", "right"]
    assert kept(SAMPLES, keep="shortest") == ["right"]
    assert kept(SAMPLES, keep="best") == ["a long and right answer", "never right"]
    assert kept(SAMPLES, keep="best", keep_at_most=2) == [
        "a long and right answer", "right", "never right", "worse",
    ]  # fmt: skip


def test_every_sample_is_kept_or_dropped_for_one_reason() -> None:
    rows = [
        *SAMPLES,
        row("c", "cut", finish_reason="length", right=False),
        row("c", "right but mixed", flags=["code_blocks", "mixed_languages"]),
        row("c", "right but repetitive", flags=["repetitive"]),
        row("c", " "),
    ]
    chosen = select(rows, RejectSection())
    assert chosen.dropped == {"wrong": 3, "surplus": 1, "truncated": 1, "mixed_languages": 1, "empty": 1}
    assert chosen.dropped.total() + len(chosen.kept) == len(rows)
    assert (chosen.prompts, chosen.prompts_kept) == (3, 2)


def test_filters_are_those_that_are_asked_for() -> None:
    rows = [row("a", "x", flags=["repetitive"]), row("b", "y", flags=["code_blocks"])]
    assert kept(rows) == ["x"]
    assert kept(rows, filters=["repetitive"]) == ["y"]
    assert kept(rows, filters=[]) == ["x", "y"]


def test_near_duplicates_over_prompts_go_the_later_first() -> None:
    words = " ".join(f"word{i}" for i in range(80))
    rows = [row("a", words), row("b", words, prompt="What is a?"), row("c", "other")]
    assert kept(rows) == [words, "other"]
    assert select(rows, RejectSection()).dropped == {"near_duplicate": 1}
    assert kept(rows, near_duplicate=1.0) == [words, "other"]


@pytest.mark.parametrize("settings", [{}, {"keep": "best"}])
def test_nothing_at_all(settings: dict[str, Any]) -> None:
    chosen = select([], RejectSection(**settings))
    assert (chosen.kept, chosen.dropped.total(), chosen.prompts) == ([], 0, 0)
