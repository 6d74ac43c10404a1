"""Groups as rows and back: nothing is lost on the way, and others can read them."""

from dataclasses import fields, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.run.trajectories import GROUP, group_batch, groups_of
from rewards.types import Score, ScoredGroup
from rollout.types import Baseline, Completion, Prompt
from tests.factories import completion, prompt, scored_group

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def a_group() -> ScoredGroup:
    completions = [
        completion("ü\n7", token_ids=(7, 8, 1), logprobs=(-0.5, -1.5, -2.5), versions=(3, 3, 4), seed=2**40),
        completion("long", token_ids=(9,), logprobs=(-0.25,), versions=5, finish_reason="length", seed=12),
    ]
    asked = prompt(
        "add/1+1",
        source="add",
        rubric="sums",
        token_ids=(4, 5),
        fields={"level": "3", "tests": '{"a": 1}'},
        question="1+1?",
        columns=("problem", "solution"),
    )
    group = scored_group([1.0, 0.0], completions=completions, group_id="rl/17", asked=asked, num_errors=2)
    scores = (
        Score(
            value=0.1 + 0.2,
            status="timeout",
            breakdown={"accuracy": 1.0, "format": 0.0},
            seconds=0.25,
            metrics={"accuracy.tests": 3.0},
            seconds_of={"accuracy": 0.2},
            extracted="2",
            reason="slow",
            resolution=0.01,
        ),
        group.scores[1],
    )
    return replace(group, scores=scores, seconds=0.5)


def same(before: ScoredGroup, after: ScoredGroup) -> None:
    for name in ("num_errors", "seconds", "scores"):
        assert getattr(before, name) == getattr(after, name), name
    for name in ("group_id", "replica", "seconds"):
        assert getattr(before.group, name) == getattr(after.group, name), name
    for known in fields(Prompt):
        if known.name != "baseline":  # of evaluation sets alone
            assert getattr(before.prompt, known.name) == getattr(after.prompt, known.name), known.name
    assert len(before.completions) == len(after.completions) == len(after.group.completions)
    for one, other in zip(before.completions, after.completions, strict=True):
        for known in fields(Completion):
            old, new = getattr(one, known.name), getattr(other, known.name)
            if isinstance(old, np.ndarray):
                assert (old.dtype, old.tobytes()) == (new.dtype, new.tobytes()), known.name
            else:
                assert old == new, known.name


def test_a_group_comes_back_as_it_was() -> None:
    same(a_group(), groups_of(group_batch(a_group()))[0])


def test_every_field_of_what_makes_a_group_is_kept() -> None:
    """A field more must get a column, or a word here."""
    assert {known.name for known in fields(Score)} == {
        *("value", "status", "breakdown", "seconds", "metrics", "seconds_of", "extracted", "reason", "resolution"),
        *("error", "unavailable"),  # a completion with an error has left the group
    }
    assert {known.name for known in fields(ScoredGroup)} == {"group", "completions", "scores", "num_errors", "seconds"}
    assert prompt().baseline is None
    assert isinstance(Baseline(text="", num_tokens=0), Baseline)


@settings(max_examples=50, deadline=None)
@given(
    TEXT,
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5),
    st.dictionaries(TEXT, TEXT, max_size=3),
)
def test_whatever_was_written_comes_back(text: str, logprobs: list[float], columns: dict[str, str]) -> None:
    one = completion(text, token_ids=range(len(logprobs)), logprobs=logprobs)
    group = scored_group([1, 0], completions=[one, one], asked=prompt(text=text, fields=columns, answer=text))
    same(group, groups_of(group_batch(group))[0])


def test_others_read_one_row_a_completion() -> None:
    batch = group_batch(a_group())
    assert batch.schema == GROUP
    rows = batch.to_pylist()
    assert [row["completion"] for row in rows] == ["ü\n7", "long"]
    assert rows[0]["token_ids"] == [7, 8, 1]
    assert rows[0]["policy_versions"] == [3, 3, 4]
    assert dict(rows[0]["reward_parts"]) == {"accuracy": 1.0, "format": 0.0}
    assert [row["finish_reason"] for row in rows] == ["stop", "length"]
