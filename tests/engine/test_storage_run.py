"""A real run, begun on one host with its files in a storage, and continued on another that has nothing else of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from rollout.storage.host import VARIABLE
from rollout.storage.objects import Storage
from tests.s3_server import KEYS, s3_server

SMALL = (
    "stages.cold-start.loop.steps=160",
    "stages.cold-start.loop.checkpoint_every=20",
    "eval.sets.held-out.limit=4",
    "sft.batch_size=8",
)


def train(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """`rayzero train` on a host of its own."""
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "train", *arguments, "--until", "cold-start"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), VARIABLE: str(folder / "cache")},
            stdout=log,
            stderr=log,
        )


def losses(run: Path) -> dict[int, list[float]]:
    """Step → its loss, each time that it was trained."""
    found = defaultdict(list)
    file = run / "metrics.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        record = json.loads(line)
        if record["kind"] == "step" and "learner/loss" in record:
            found[record["step"]].append(record["learner/loss"])
    return found


def test_a_run_goes_on_from_a_storage_on_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path, monkeypatch) as server:
        first, second = tmp_path / "first", tmp_path / "second"
        uri = server.uri("runs")
        run = train(first, "arithmetic", *SMALL, "--run", "runs/x", f"cluster.storage={uri}")
        until = time.monotonic() + 240
        while max(losses(first / "runs/x"), default=0) < 45:
            assert run.poll() is None, (first / "log").read_text()[-3000:]
            assert time.monotonic() < until
            time.sleep(0.05)
        with server.away():
            time.sleep(3)
        run.send_signal(signal.SIGTERM)
        assert run.wait(90) == 130
        before = losses(first / "runs/x")
        kept = [name for name in Storage(server.uri("runs/x")).list() if name.endswith("stored.json")]
        assert "base/stored.json" in kept
        shutil.rmtree(first)

        again = train(second, server.uri("runs/x"))
        assert again.wait(300) == 0, (second / "log").read_text()[-3000:]
        told, after = (second / "log").read_text(), losses(second / "runs/x")
        assert "continues from step" in told
        assert sorted(after) == list(range(1, 161))
        repeated = {step: values for step, values in after.items() if len(values) > 1}
        assert repeated, "the run was stopped behind a checkpoint"
        assert all(values[0] == values[1] for values in repeated.values())
        assert all(after[step][0] == values[0] for step, values in before.items()), "no record was lost"
        assert not list((second / "runs/x").rglob("*.pt")), "checkpoints have their weights in the storage alone"
        assert not any(secret in told for secret in KEYS.values() if secret != KEYS["AWS_DEFAULT_REGION"])
        last = sorted(name for name in Storage(server.uri("runs/x")).list() if name.startswith("cold-start/export/"))
        assert "cold-start/export/model.safetensors" in last
