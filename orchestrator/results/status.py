"""A few lines about a run, from its folder alone."""

import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.results.words import age
from orchestrator.run.ledger import describe_ledger, read_ledger
from orchestrator.run.record import StageRecord, as_number, read_run
from orchestrator.run.state import SILENT_S, read_state, silence_s, standing

SHOWN = (
    ("reward/mean", "reward {:.3f}"),
    ("learner/loss", "loss {:.3f}"),
    ("completion/length_mean", "length {:.0f}"),
    ("throughput/tokens_per_s", "{:,.0f} tokens/s"),
    ("policy/version", "policy version {:.0f}"),
    ("queue/in_flight", "{:.0f} groups in flight"),
)
"""Metric of the last step → how it is shown."""


def describe(run_dir: Path) -> Iterator[str]:
    """What a run is doing and how far each of its stages has come, line by line.

    Raises:
        InputError: the folder holds no run, or one that cannot be read.
    """
    run = read_run(run_dir)
    said = read_state(run_dir)
    state, writer = standing(run_dir, said, finished=run.finished, begun=bool(run.first_time))
    silent = silence_s(said) if writer and "time" in said else 0.0
    words = f"running, {writer}" if writer else state
    if silent > SILENT_S:
        words += f", which has said nothing for {age(silent)}: it is stuck, or its host is gone"
    ago = f", last record {age(time.time() - run.last_time)} ago" if run.last_time else ""
    yield f"{run_dir}: {words}{ago}"
    if state == "failed":
        yield f"  {(str(said.get('reason', '')).splitlines() or [''])[0]}"
    width = max((len(stage.name) for stage in run.stages), default=0)
    for stage in run.stages:
        yield f"  {stage.name:<{width}}  {_stage(stage)}"
    if not writer and not run.finished:
        yield f"continue with: rayzero train {run_dir}"


def account(run_dir: Path) -> tuple[list[str], bool]:
    """(what became of the prompts of each stage, line by line; whether it adds up).

    Raises:
        InputError: the folder holds no run, or one that cannot be read.
    """
    ledgers = {stage.name: read_ledger(run_dir, stage.name) for stage in read_run(run_dir).stages}
    known = {name: ledger for name, ledger in ledgers.items() if ledger is not None}
    if not known:
        return [f"{run_dir}: no stage of it has files of steps that keep an account"], True
    lines = [line for name, ledger in known.items() for line in describe_ledger(name, ledger)]
    return lines, not any(ledger.problems for ledger in known.values())


def _stage(stage: StageRecord) -> str:
    if not stage.begun:
        return "not begun"
    planned = f" of {stage.planned_steps}" if stage.planned_steps else ""
    done = "done" if stage.ended else f"step {stage.last_step}{planned}"
    last = stage.steps[-1] if stage.steps else {}
    parts = [text.format(value) for key, text in SHOWN if (value := as_number(last.get(key))) is not None]
    return ", ".join([done, *parts])
