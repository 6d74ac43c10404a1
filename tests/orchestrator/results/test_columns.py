"""How the figures of an evaluation are shown, those of older runs included."""

from typing import Any

from orchestrator.results.columns import columns, in_words

OLD: dict[str, Any] = {
    "set": "held-out", "problems": 256, "greedy": 0.5, "pass@1": None, "cons@k": None, "k": 0, "format": 1.0,
    "length_mean": 12.53, "samples": [],
}  # fmt: skip
"""As runs wrote it before a rubric judged evaluations."""
NEW = OLD | {
    "correct": "exact", "labels": {"exact": 0.5, "format": 1.0, "language": 0.875, "length": -0.25}, "k": 4,
    "cons@k": 0.75, "truncated": 0.125, "unscored": 3,
}  # fmt: skip


def table(*records: dict[str, Any]) -> list[list[str]]:
    shown = columns(records)
    return [[column.head for column in shown], *([column.cell(record) for column in shown] for record in records)]


def test_an_older_record_is_shown_as_before() -> None:
    assert table(OLD) == [
        ["greedy", "pass@1", "cons@k", "format", "length"],
        ["50.0 %", "–", "–", "100.0 %", "12.5"],
    ]
    assert in_words(OLD) == ["greedy 50.0 %", "format 100.0 %", "length 12.5"]


def test_reward_functions_that_no_other_column_shows_have_their_own() -> None:
    heads, old, new = table(OLD, NEW)
    assert heads == [
        "greedy", "pass@1", "cons@4", "format", "length", "language", "length (reward)", "truncated", "unscored",
    ]  # fmt: skip
    assert new == ["50.0 %", "–", "75.0 %", "100.0 %", "12.5", "0.875", "-0.250", "12.5 %", "3"]
    assert old[-3:] == ["–", "–", "–"]


def test_nothing_is_said_of_completions_that_were_all_finished() -> None:
    assert "truncated" not in table(OLD | {"truncated": 0.0})[0]


def test_sets_with_different_rubrics_share_a_table() -> None:
    code = OLD | {"correct": "code_tests", "labels": {"code_tests": 0.5, "format": 0.0}}
    heads, *_ = table(NEW | {"labels": {"exact": 1.0}}, code)
    assert heads[6:] == ["unscored"]
