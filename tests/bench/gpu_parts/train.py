"""`rayzero train arithmetic` on this machine through the command line: a few steps of each stage, with their phases."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.gpu_parts.bench import Bench

KEYS = (
    "stages.cold-start.loop.steps=40",
    "stages.cold-start.learner.warmup_steps=5",
    "stages.reasoning.loop.steps=6",
    "stages.reasoning.loop.eval_every=3",
    "stages.reasoning.loop.audit_every=2",
    "stages.reasoning.loop.checkpoint_every=3",
    "eval.sets.held-out.limit=64",
)
TINY_KEYS = (
    "stages.cold-start.loop.steps=4",
    "stages.cold-start.learner.warmup_steps=1",
    "stages.reasoning.loop.steps=2",
)
PLACES: tuple[tuple[str, ...], ...] = ((), ("rollout.share_gpus=true",))
"""Keys that put engine and rank on the cards, in the order in which they are tried: what `rayzero check` accepts is taken."""


def run(bench: Bench) -> None:
    folder = bench.work / "train"
    shutil.rmtree(folder, ignore_errors=True)
    # Later ones win: the user's own stand last.
    keys = [*KEYS, *(TINY_KEYS if bench.tiny else ()), *bench.train_keys]
    places = accepted(bench, keys)
    command = [sys.executable, "-m", "orchestrator", "train", "arithmetic", "--run", str(folder), *places, *keys]
    bench.record(command=" ".join(["rayzero", *command[3:]]))
    began = time.monotonic()
    code = subprocess.run(command, cwd=bench.work, stdin=subprocess.DEVNULL).returncode
    bench.record(seconds=round(time.monotonic() - began, 1))
    lines = metrics(folder)
    bench.record(**phases(lines))
    if code:
        raise RuntimeError(f"rayzero train ended with status {code}")
    assert bench.figures.get("steps_of"), "no step was written to metrics.jsonl"


def accepted(bench: Bench, keys: Sequence[str]) -> tuple[str, ...]:
    """The first of PLACES that this machine can run; the last if it refuses all of them, so that its reason is the error."""
    for places in PLACES:
        command = [sys.executable, "-m", "orchestrator", "check", "arithmetic", *places, *keys]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        print(done.stdout, flush=True)
        if not done.returncode:
            return places
        said = [line for line in done.stdout.splitlines() if line.strip()]
        bench.note(f"rayzero check {' '.join(places) or '(as shipped)'}: {said[-1][:300] if said else done.returncode}")
    return PLACES[-1]


def metrics(folder: Path) -> list[dict[str, Any]]:
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return []
    return [json.loads(line) for line in lines]


def phases(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the steps of each stage, the first one left out, and the audits."""
    found: dict[str, Any] = {"steps_of": {}}
    for stage in dict.fromkeys(line.get("stage") for line in lines if line.get("kind") == "step"):
        steps = [line for line in lines if line.get("kind") == "step" and line.get("stage") == stage]
        found["steps_of"][str(stage)] = len(steps)
        kept = steps[1:] or steps
        names = [name for name in kept[-1] if name.startswith(("time/", "throughput/", "publish/", "learner/mem"))]
        figures = {name: median(line[name] for line in kept if name in line) for name in names}
        audits = {
            name: [line[name] for line in steps if name in line] for step in steps for name in step if "audit/" in name
        }
        figures |= {f"{name}, largest": max(values) for name, values in audits.items()}
        found[f"stage {stage}"] = figures
    return found
