"""A run that is interrupted in every stage, and what became of it beside one that was left alone.

    python -m tests.bench.interruptions FOLDER [--signal INT|KILL] [--recipe r1-tiny] [--begin STAGE] [key=value …]

Starts the recipe in FOLDER, sends the signal to the whole process group once in each stage (from STAGE on), a moment after it has begun
(`--after` seconds and a random part of as much again), continues the run with the same command each time, and lets a second run
go to its end undisturbed. Then says, stage by stage, how often it began, how many different steps each run has trained, and
how far the figures of the two lie apart, of problems and of preference pairs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.config.load import load_recipe

Record = dict[str, Any]

LIMIT_S = 1800.0
"""A run that takes longer until its next stage, or to end, hangs: the bench ends with an error, and the run with it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--recipe", default="r1-tiny")
    parser.add_argument("--signal", choices=("INT", "KILL"), default="KILL")
    parser.add_argument("--begin", default="", metavar="STAGE", help="the first one to be disturbed")
    parser.add_argument("--after", type=float, default=1.0, metavar="SECONDS")
    given = parser.parse_intermixed_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    # A shell's background jobs ignore it, and so would the runs that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stages = [stage.name for stage in load_recipe(given.recipe, given.overrides).stages]
    chance = random.Random(1)
    disturbed, alone = given.folder / "disturbed", given.folder / "alone"
    command = [given.recipe, *given.overrides]
    for stage in stages[stages.index(given.begin) if given.begin else 0 :]:
        process = started(disturbed, command)
        limit = time.monotonic() + LIMIT_S
        while process.poll() is None and not begun(disturbed, stage) and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(given.after * (1 + chance.random()))
        if process.poll() is None:
            os.killpg(process.pid, getattr(signal, f"SIG{given.signal}"))
        code = ended(process)
        print(f"{stage}: {given.signal} sent, exit {code}, {steps_of(disturbed, stage)}", flush=True)
    for run in (disturbed, alone):
        code = ended(started(run, command))
        print(f"{run.name}: ended with {code}", flush=True)
    compare(stages, disturbed, alone)


def started(run: Path, command: list[str]) -> subprocess.Popen[bytes]:
    with (run.parent / f"{run.name}.log").open("ab") as log:
        whole = [sys.executable, "-m", "orchestrator", "train", *command, "--run", str(run)]
        return subprocess.Popen(whole, stdout=log, stderr=log, start_new_session=True)


def ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code. Raises TimeoutExpired, and kills the run, when it does not end."""
    try:
        return process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def records(run: Path) -> list[Record]:
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def begun(run: Path, stage: str) -> bool:
    return any(one["kind"] == "stage" and one["stage"] == stage and one["event"] == "start" for one in records(run))


def steps_of(run: Path, stage: str) -> str:
    steps = [one["step"] for one in records(run) if one["kind"] == "step" and one["stage"] == stage]
    return f"step {steps[-1]}" if steps else "no step yet"


def compare(stages: list[str], disturbed: Path, alone: Path) -> None:
    """Begun how often; steps of both runs; the largest difference of an evaluation's figure."""
    runs = {run: records(run) for run in (disturbed, alone)}
    print(f"\n{'stage':<14}{'begun':>6}{'steps':>7}{'alone':>7}{'largest difference':>20}")
    for stage in stages:
        mine = {run: [one for one in made if one["stage"] == stage] for run, made in runs.items()}
        starts = sum(one["kind"] == "stage" and one["event"] == "start" for one in mine[disturbed])
        count = [len({one["step"] for one in made if one["kind"] == "step" and one["step"]}) for made in mine.values()]
        figures = [{(one["set"], one["step"]): one for one in made if one["kind"] == "eval"} for made in mine.values()]
        apart = [
            abs(float(figures[0][key].get(name) or 0) - float(figures[1][key].get(name) or 0))
            for key in figures[0].keys() & figures[1].keys()
            for name in ("greedy", "win_rate", "reward", "length_mean", "accuracy")
        ]
        largest = f"{max(apart):.2g}" if apart else "–"
        print(f"{stage:<14}{starts:>6}{count[0]:>7}{count[1]:>7}{largest:>20}")


if __name__ == "__main__":
    main()
