"""What is read of a run that may still be going on."""

import json
from pathlib import Path

import pytest

from orchestrator.run.record import read_metrics, read_run
from rollout.errors import InputError


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"kind": "step"}\n{"kind": "st\xc3')
    assert read_metrics(tmp_path) == [{"kind": "step"}]


@pytest.mark.parametrize("bad", ['{"kind": "st', "17", "[1]"])
def test_a_bad_line_elsewhere_is_an_error_with_its_number(tmp_path: Path, bad: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"kind": "step"}}\n\n{bad}\n{{"kind": "step"}}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 3"):
        read_metrics(tmp_path)


def test_no_metrics_yet_is_no_records(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_judgements_of_pairs_are_kept_apart_and_end_with_what_was_undone(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "r"\n[[stages]]\nname = "s"\nkind = "dpo"\n')
    records = [
        {"kind": "eval", "step": 0, "set": "p", "label": "before", "pairs": 3},
        *({"kind": "step", "step": step} for step in (1, 2, 3)),
        {"kind": "eval", "step": 3, "set": "p", "label": "during", "pairs": 3},
        {"kind": "eval", "step": 3, "set": "q", "label": "during", "greedy": 0.5},
        {"kind": "step", "step": 3},  # resumed from step 2
        {"kind": "eval", "step": 3, "set": "p", "label": "after", "pairs": 3},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"stage": "s", **record}) + "\n" for record in records))
    (stage,) = read_run(tmp_path).stages
    assert [(record["step"], record["label"]) for record in stage.pair_evals] == [(0, "before"), (3, "after")]
    assert stage.evals == []


def test_times_of_all_starts_add_up_and_steps_that_were_undone_count(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "r"\n[[stages]]\nname = "s"\nkind = "grpo"\n')
    records = [
        {"kind": "stage", "event": "start", "time": 10.0},
        {"kind": "stage", "event": "model", "parameters": 12345, "time": 13.0},
        {"kind": "step", "step": 1, "time": 20.0, "time/start_s": 3.0, "time/train_s": 5.0},
        {"kind": "step", "step": 2, "time": 25.0, "time/train_s": 5.0},
        {"kind": "stage", "event": "start", "time": 90.0},
        {"kind": "step", "step": 2, "time": 99.0, "time/start_s": 4.0, "time/train_s": float("nan")},
        {"kind": "reject", "yields": {"samples": 2, "kept": 1}},
        {"kind": "time", "time/evaluate_s": 7.0, "time": 106.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"stage": "s", **record}) + "\n" for record in records))
    (stage,) = read_run(tmp_path).stages
    assert stage.times == {"start": 7.0, "train": 10.0, "evaluate": 7.0}
    assert (stage.parameters, stage.seconds) == (12345, 31.0)
    assert stage.yields["yields"] == {"samples": 2, "kept": 1}
