"""Preference pairs: exact tokens, nothing cut, all pairs of a prompt on one side, batches by the step alone."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.model.small import END, character_tokenizer
from orchestrator.checks.preflight import preflight
from orchestrator.config.recipe import Stage
from orchestrator.data.pairs import (
    Pair,
    PairStream,
    is_held_out,
    load_pair_sets,
    need_end,
    pair_batch,
    policy_pairs,
    scored_pairs,
)
from rollout.data.templates import load_template
from rollout.errors import InputError
from tests.orchestrator.factories import DOWNLOAD, fault, recipe, write_rows

TOKENIZER = character_tokenizer()
COLUMNS = {"chosen_column": "good", "rejected_column": "bad"}


def rows(count: int = 4, **changes: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"{i}+1=", "good": f"{i + 1}", "bad": "x" * (1 + i % 3)} | changes for i in range(count)]


def stage_of(kind: str = "dpo", source: dict[str, Any] | None = None, **sections: Any) -> Stage:
    origin = {"path": "pairs.jsonl", **COLUMNS, **(source or {})}
    raw = {
        "data": {"sources": {"a": origin}, "max_prompt_tokens": 8},
        "rollout": {"max_tokens": 8},
        "model": {"path": "org/model", "max_tokens": 16},
    }
    return recipe(stages=[{"name": "pref", "kind": kind}], **(raw | sections)).stages[0]


PLAIN = load_template("plain", None)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "pairs.jsonl", rows())
    return tmp_path


def load(stage: Stage, held_out: float = 0.0) -> Any:
    return load_pair_sets(stage, policy_pairs(stage, PLAIN, TOKENIZER), held_out, seed=1)


def test_a_policy_trains_on_both_responses_and_their_end() -> None:
    sets = load(stage_of())
    texts = [
        (TOKENIZER.decode(each.token_ids[: each.first_target]), TOKENIZER.decode(each.token_ids[each.first_target :]))
        for pair in sets.training["a"]
        for each in (pair.chosen, pair.rejected)
    ]
    assert texts[:4] == [("0+1=", f"1{END}"), ("0+1=", f"x{END}"), ("1+1=", f"2{END}"), ("1+1=", f"xx{END}")]
    assert (sets.held_out, sets.notes) == ({}, ())


def test_a_response_is_closed_as_the_chat_template_does() -> None:
    sets = load_pair_sets(stage_of(), policy_pairs(stage_of(), replace(PLAIN, closing="#"), TOKENIZER), 0.0, seed=1)
    (first, *_) = sets.training["a"]
    assert TOKENIZER.decode(first.chosen.token_ids) == f"0+1=1#{END}"


@pytest.mark.parametrize(
    ("good", "learned"),
    [("1", "\n</think>\n\n1"), ("<think>\n0</think>1", "0</think>1"), ("0</think>1", "0</think>1")],
)
def test_a_response_is_matched_with_a_prompt_that_opens_the_thought(folder: Path, good: str, learned: str) -> None:
    write_rows(folder / "pairs.jsonl", rows(good=good))
    (folder / "opened.txt").write_text("{prompt}<think>\n\n")
    stage = stage_of(
        data={"sources": {"a": {"path": "pairs.jsonl", **COLUMNS}}, "max_prompt_tokens": 99},
        rollout={"max_tokens": 60},
        model={"path": "org/model", "max_tokens": 160},
    )
    sets = load_pair_sets(stage, policy_pairs(stage, load_template("opened.txt", None), TOKENIZER), 0.0, seed=1)
    (first, *_) = sets.training["a"]
    assert TOKENIZER.decode(first.chosen.token_ids[first.chosen.first_target :]) == f"{learned}{END}"


def test_a_reward_model_reads_whole_rows_that_share_their_beginning() -> None:
    stage = stage_of("reward_model")

    def encode(texts: Any) -> list[list[int]]:
        return [TOKENIZER(f"{question}{response}")["input_ids"] for question, response in texts]

    pairs = load_pair_sets(stage, scored_pairs(stage, encode), 0.0, seed=1).training["a"]
    assert [TOKENIZER.decode(pair.chosen.token_ids) for pair in pairs[:2]] == ["0+1=1", "1+1=2"]
    assert [(pair.chosen.first_target, pair.rejected.first_target) for pair in pairs[:2]] == [(4, 4), (4, 4)]
    # One response may be the beginning of the other; each row still has a token of its own.
    write_rows(Path("pairs.jsonl"), [{"prompt": "1", "good": "aab", "bad": "aa"}])
    (pair,) = load_pair_sets(stage, scored_pairs(stage, encode), 0.0, seed=1).training["a"]
    assert (pair.chosen.num_targets, pair.rejected.num_targets) == (2, 1)


@pytest.mark.parametrize(
    ("row", "note"),
    [
        ({"prompt": "123456789"}, "data.max_prompt_tokens = 8 and were skipped (first: a/4, 9 tokens)"),
        ({"good": "12345678"}, "rollout.max_tokens = 8 and were skipped (first: a/4, 9 tokens)"),
        ({"bad": "12345678"}, "rollout.max_tokens = 8 and were skipped (first: a/4, 9 tokens)"),
        ({"good": "x", "bad": "x"}, "a: 1 of 5 pairs read the same twice and were skipped"),
    ],
)
def test_what_is_too_long_or_says_nothing_is_left_out_and_told(row: dict[str, Any], note: str) -> None:
    write_rows(Path("pairs.jsonl"), [*rows(), rows(5)[4] | row])
    sets = load(stage_of())
    assert len(sets.training["a"]) == 4
    assert len(sets.notes) == 1
    assert note in sets.notes[0]


def test_nothing_left_is_an_error_that_says_why() -> None:
    write_rows(Path("pairs.jsonl"), rows(2, good="12345678"))
    with pytest.raises(
        InputError, match=r"source 'a': no pair is left to use; a: 2 of 2 pairs are longer than rollout"
    ):
        load(stage_of())


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"bad": ""}, "pairs.jsonl:2: column 'bad' is empty"),
        ({"good": None}, "pairs.jsonl:2: column 'good' is null"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(spoiled: dict[str, Any], message: str) -> None:
    first, second, *rest = rows()
    write_rows(Path("pairs.jsonl"), [first, second | spoiled, *rest])
    with pytest.raises(InputError, match=message):
        load(stage_of())


def test_a_column_that_is_not_there_names_the_setting() -> None:
    with pytest.raises(InputError, match="no column 'god'; did you mean 'good'") as caught:
        load(stage_of(source={"chosen_column": "god"}))
    assert "choose one with `chosen_column`" in str(caught.value)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = character_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        need_end(tokenizer)


def test_the_pairs_of_a_prompt_are_all_trained_on_or_all_held_out() -> None:
    write_rows(Path("pairs.jsonl"), [*rows(200), *rows(200, bad="other")])
    sets = load(stage_of(), held_out=0.3)
    asked = {name: [pair.question for pair in pairs] for name, pairs in (sets.training | sets.held_out).items()}
    assert set(asked) == {"a", "a/held-out"}
    assert not set(asked["a"]) & set(asked["a/held-out"])
    assert len(asked["a"]) + len(asked["a/held-out"]) == 400
    assert 40 < len(set(asked["a/held-out"])) < 80
    # What is held out stays so when the share grows.
    questions = [f"{i}+1=" for i in range(200)]
    assert all(is_held_out(question, 0.5) for question in questions if is_held_out(question, 0.3))
    assert not any(is_held_out(question, 0.0) for question in questions)


def test_evaluation_sets_with_pairs_are_judged_and_the_others_are_for_generation() -> None:
    write_rows(Path("test.jsonl"), rows(2, prompt="9"))
    sets = {"pairs": {"path": "test.jsonl", **COLUMNS}, "sums": {"task": "arithmetic", "limit": 5}}
    stage = stage_of(eval={"sets": sets})
    assert list(load(stage).held_out) == ["pairs"]
    assert (list(stage.eval.pair_sets), list(stage.eval.prompt_sets)) == (["pairs"], ["sums"])


# --- Batches


def made_up(name: str, count: int) -> list[Pair]:
    source = load(stage_of()).training["a"][0]
    return [Pair(question=f"{name}{i}", chosen=source.chosen, rejected=source.rejected) for i in range(count)]


def test_batches_are_a_function_of_the_step_and_pass_through_every_source() -> None:
    sources = {"a": made_up("a", 5), "b": made_up("b", 40)}
    weights = {"a": 1.0, "b": 3.0}

    def asked(start: int, steps: int, seed: int = 1) -> list[list[str]]:
        return [
            [pair.question for pair in batch] for batch in PairStream(sources, weights, seed).batches(8, start, steps)
        ]

    whole = asked(0, 50)
    assert asked(20, 50) == whole[20:]
    assert asked(0, 30) == whole[:30]
    assert asked(0, 50, seed=2) != whole
    flat = [question for batch in whole for question in batch]
    ours = [question for question in flat if question.startswith("a")]
    assert 60 < len(ours) < 140
    for first in range(0, len(ours) - 5, 5):
        assert len(set(ours[first : first + 5])) == 5
    assert len(set(map(tuple, (ours[first : first + 5] for first in range(0, 50, 5))))) > 1
    assert max(Counter(q for q in flat if q.startswith("b")).values()) <= 10


@pytest.mark.parametrize("settings", [{}, {"ranks": 2, "micro_batch_tokens": 16}])
def test_every_pair_weighs_the_same_and_stays_together(settings: dict[str, Any]) -> None:
    write_rows(Path("pairs.jsonl"), [{"prompt": f"{i}=", "good": "12345"[: i + 1], "bad": "x"} for i in range(4)])
    stage = stage_of(learner=settings)
    batch = pair_batch(load(stage).training["a"], stage, seed=0)
    found = []
    for packs in batch.packs[0]:
        for pack in packs:
            sums = np.bincount(pack.segments, pack.weights)
            indices = pack.indices
            assert all(b == a + 1 and a % 2 == 0 for a, b in zip(indices[::2], indices[1::2], strict=True) if a >= 0)
            found += [*sums[indices >= 0]]
    assert found == pytest.approx([1 / 8] * 8)


# --- What is told before anything starts


@pytest.mark.usefixtures("laptop")
class TestCheck:
    @pytest.mark.parametrize("kind", ["reward_model", "dpo"])
    @pytest.mark.parametrize("source", [{"task": "arithmetic"}, {"path": "pairs.jsonl", "answer_column": "good"}])
    def test_a_source_without_pairs(self, kind: str, source: dict[str, Any]) -> None:
        checked = recipe(stages=[{"name": "pref", "kind": kind}], data={"sources": {"a": source}})
        text = fault(checked)
        assert text.startswith(
            f"data.sources.a: {kind} needs preference pairs; name their columns with `chosen_column`"
        )

    def test_half_of_a_pair(self) -> None:
        with pytest.raises(InputError, match="need both `chosen_column` and `rejected_column`"):
            recipe(data={"sources": {"a": {"path": "pairs.jsonl", "chosen_column": "good"}}})

    def test_pairs_need_no_answers_and_held_out_ones_are_asked_for(self, folder: Path) -> None:
        write_rows(folder / "pairs.jsonl", rows())
        raw = {"data": {"sources": {"a": {"path": "pairs.jsonl", **COLUMNS}}}}
        stages = [{"name": "pref", "kind": "reward_model"}]
        notes = preflight(recipe(stages=stages, **raw))
        assert [note for note in notes if note != DOWNLOAD] == [
            "stage pref holds no pairs out, so neither accuracy nor calibration will be known: set "
            "reward_model.held_out=0.1, or give an eval set with pairs"
        ]
        stages[0]["reward_model"] = {"held_out": 0.1}
        assert preflight(recipe(stages=stages, **raw)) == [DOWNLOAD]

    def test_pairs_need_no_rubric(self, folder: Path) -> None:
        write_rows(folder / "test.jsonl", rows(prompt="9"))
        raw = {"data": {"sources": {"a": {"path": "pairs.jsonl", **COLUMNS}}}}
        raw["eval"] = {"sets": {"test": {"path": "test.jsonl", **COLUMNS}}}
        raw["rewards"] = {"rubrics": {"mine": {"format": 1}}}
        assert preflight(recipe(stages=[{"name": "pref", "kind": "dpo"}], **raw)) == [DOWNLOAD]

    def test_held_out_pairs_must_not_be_trained_on(self, folder: Path) -> None:
        write_rows(folder / "pairs.jsonl", rows())
        pairs = {"path": "pairs.jsonl", **COLUMNS}
        stages = [{"name": "pref", "kind": "dpo"}]
        text = fault(recipe(stages=stages, data={"sources": {"a": pairs}}, eval={"sets": {"test": pairs}}))
        assert text.startswith("eval.sets.test: 4 of its 4 questions occur in data.sources.a")


def test_a_digest_says_whether_the_pairs_are_still_the_same(folder: Path) -> None:
    before = load(stage_of()).fingerprints()
    assert load(stage_of()).fingerprints() == before
    swapped = [{**row, "good": row["bad"], "bad": row["good"]} for row in rows()]
    for changed in (rows(3), rows(bad="y"), swapped, rows()[::-1]):
        write_rows(folder / "pairs.jsonl", changed)
        assert load(stage_of()).fingerprints() != before
