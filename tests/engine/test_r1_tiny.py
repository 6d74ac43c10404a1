"""The whole recipe in miniature: every kind of stage for a few steps, killed in the middle, and continued to its end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.config.load import load_recipe

BUILD = 'tokenizer="bpe",vocab_size=640,layers=2,hidden=32,heads=1,kv_heads=1,intermediate=32'
SMALL = (
    *(f"{where}model.build={{{BUILD}}}" for where in ("", "stages.small-base.", "stages.tiny-base.")),
    "rollout.group_size=2",
    "rollout.max_tokens=24",
    "loop.steps=2",
    # Until completions come to an end.
    "stages.base.loop.steps=80",
    "loop.groups_per_step=4",
    "loop.eval_every=0",
    "loop.checkpoint_every=1",
    "loop.audit_every=1",
    "sft.epochs=0",
    "sft.batch_size=8",
    "reward_model.batch_size=8",
    "dpo.batch_size=8",
    "reject.samples=2",
    # So small a model is never right.
    "reject.keep=best",
    "reject.filters=[]",
    *(f"eval.sets.{name}.limit=4" for name in ("sums", "dial", "most", "manners")),
    *(
        f"stages.{stage}.data.sources.{name}.limit=4"
        for stage in ("samples", "lessons")
        for name in ("sums", "dial", "most")
    ),
    "stages.r1.schedule=[{from_step=1,data={sources={kind={weight=2.0},malice={weight=2.0}}}}]",
)
DEADLINE_S = 400


def start(run: Path, *arguments: str) -> subprocess.Popen[bytes]:
    # A group of its own, whose output goes to a file: a pipe would stay open with what outlives a kill.
    log = (run.parent / "log").open("ab")
    command = [sys.executable, "-m", "orchestrator", "train", *arguments]
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=run.parent, start_new_session=True)


def records(run: Path) -> list[dict[str, object]]:
    text = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def finished(run: Path) -> set[str]:
    return {path.parent.name for path in run.glob("*/done")}


def test_every_stage_of_the_recipe_runs_and_a_killed_run_is_continued(tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed = start(run, "r1-tiny", "--run", str(run), *SMALL)
    until = time.monotonic() + DEADLINE_S
    while "zero" not in finished(run):
        assert killed.poll() is None, (tmp_path / "log").read_text()[-3000:]
        assert time.monotonic() < until, "no stage was finished in time"
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = finished(run)

    continued = start(run, str(run))
    assert continued.wait(DEADLINE_S) == 0, (tmp_path / "log").read_text()[-3000:]

    stages = load_recipe("r1-tiny").stages
    assert finished(run) == {stage.name for stage in stages}
    made = records(run)
    for stage in stages:
        starts = [
            one for one in made if one["kind"] == "stage" and one["stage"] == stage.name and one["event"] == "start"
        ]
        assert len(starts) == 1 or stage.name not in before, f"{stage.name} was finished and began again"
        if stage.kind in ("sft", "grpo", "reward_model", "dpo"):
            steps = [one["step"] for one in made if one["kind"] == "step" and one["stage"] == stage.name]
            assert max(steps, default=0) == (80 if stage.name == "base" else 2), f"{stage.name}: {steps}"
        if stage.kind == "grpo":
            gaps = [one["audit/max_diff"] for one in made if one["kind"] == "step" and one["stage"] == stage.name]
            assert all(0 < gap < 1e-4 for gap in gaps), f"{stage.name}: {gaps}"
        if stage.kind != "reject":
            assert (run / stage.name / "export" / "config.json").is_file()
    tables = {(one["stage"], one["set"]) for one in made if one["kind"] == "eval"}
    assert {"sums", "dial", "most", "manners"} <= {name for stage, name in tables if stage == "r1"}
