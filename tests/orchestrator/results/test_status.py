"""What a run says of itself in a few lines."""

import json
import time
from pathlib import Path

import pytest

from orchestrator.results.status import describe
from orchestrator.run.lock import run_lock
from orchestrator.run.state import write_state
from rollout.errors import InputError

RECIPE = """
[[stages]]
name = "cold-start"
kind = "sft"
loop = {steps = 4}
[[stages]]
name = "reasoning"
kind = "grpo"
loop = {steps = 9}
"""


def write(folder: Path, *records: dict) -> None:
    (folder / "recipe.toml").write_text(RECIPE)
    lines = [json.dumps({"time": time.time() - 5, **record}) + "\n" for record in records]
    (folder / "metrics.jsonl").write_text("".join(lines))


BEGUN = (
    {"kind": "stage", "stage": "cold-start", "event": "start"},
    {"kind": "step", "stage": "cold-start", "step": 4, "learner/loss": 0.5},
    {"kind": "stage", "stage": "cold-start", "event": "end"},
    {"kind": "stage", "stage": "reasoning", "event": "start"},
    {"kind": "step", "stage": "reasoning", "step": 3, "reward/mean": 0.25, "throughput/tokens_per_s": 1234.5},
)


def test_a_run_that_was_stopped(tmp_path: Path) -> None:
    write(tmp_path, *BEGUN)
    first, cold, reasoning, last = describe(tmp_path)
    assert first == f"{tmp_path}: stopped, last record 5 s ago"
    assert cold == "  cold-start  done, loss 0.500"
    assert reasoning == "  reasoning   step 3 of 9, reward 0.250, 1,234 tokens/s"
    assert last == f"continue with: rayzero train {tmp_path}"


def test_a_run_that_goes_on_and_one_that_is_finished(tmp_path: Path) -> None:
    write(tmp_path, *BEGUN)
    with run_lock(tmp_path):
        assert "running, process" in next(iter(describe(tmp_path)))
        write_state(tmp_path, {"state": "running", "time": time.time() - 600})
        assert "which has said nothing for 10 min: it is stuck, or its host is gone" in next(iter(describe(tmp_path)))
    write(tmp_path, *BEGUN, {"kind": "stage", "stage": "reasoning", "event": "end"})
    lines = list(describe(tmp_path))
    assert "finished" in lines[0]
    assert len(lines) == 3


def test_nothing_yet_and_nothing_at_all(tmp_path: Path) -> None:
    write(tmp_path)
    assert list(describe(tmp_path))[1] == "  cold-start  not begun"
    with pytest.raises(InputError, match="holds no run"):
        list(describe(tmp_path / "none"))
