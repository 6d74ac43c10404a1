"""The account of every prompt that a stage took, from the files of its steps alone: trained, and in which step; dropped, and why;
or still on its way. It holds across crashes and resumes because the files do.

    taken = trained + dropped + on its way, each number once
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.run.files import end_torn_line
from orchestrator.run.folder import trajectory_files
from orchestrator.run.record import step_records
from orchestrator.run.steps import DamagedFile, StepRecord, read_record
from orchestrator.run.waiting import WaitingLog

ACCOUNT = "account.jsonl"
"""Beside the files of steps: what the account says of those that are gone."""


@dataclass(slots=True)
class Ledger:
    """The account of one stage."""

    taken: int = 0
    steps: int = 0
    trained: dict[int, int] = field(default_factory=dict)
    """Number → step that trained it."""
    dropped: dict[int, str] = field(default_factory=dict)
    """Number → reason."""
    waiting: int = 0
    """Groups that came back and are not trained yet."""
    problems: list[str] = field(default_factory=list)
    """What does not add up."""

    @property
    def on_its_way(self) -> int:
        """Numbers that are neither trained nor dropped."""
        return self.taken - len(self.trained) - len(self.dropped)

    @property
    def reasons(self) -> Counter[str]:
        return Counter(self.dropped.values())


def read_ledger(run_dir: Path, stage: str) -> Ledger | None:
    """The account of a stage; None: it has no files of steps that say."""
    ledger = Ledger()
    steps = dict(_entries(run_dir, stage, ledger.problems))
    if not steps and not ledger.problems:
        return None
    for step, entry in sorted(steps.items()):
        _add(ledger, step, entry)
    ledger.steps = max(steps, default=0)
    for missing in sorted(set(range(1, ledger.steps + 1)) - steps.keys()):
        ledger.problems.append(f"step {missing}: no file of it")
    found = WaitingLog(run_dir / stage / "waiting").restore(ledger.steps)
    for number, reason in found.dropped.items():
        if number not in ledger.trained and number not in ledger.dropped:
            ledger.dropped[number] = reason
    waiting = [number for number in found.groups if number not in ledger.trained and number not in ledger.dropped]
    ledger.waiting = len(waiting)
    ledger.taken = max(ledger.taken, max([*found.groups, *found.dropped], default=-1) + 1)
    for number in (*ledger.trained, *ledger.dropped):
        if number >= ledger.taken:
            ledger.problems.append(f"group {number}: was never taken")
    _compare_with_metrics(run_dir, stage, ledger)
    return ledger


def _entries(run_dir: Path, stage: str, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(step, what its file or the account says), the file last, since it is what trained."""
    account = run_dir / "trajectories" / stage / ACCOUNT
    if account.is_file():
        # A last line without its end is of a crash; the file that it was made of is there still.
        for line in account.read_text(encoding="utf-8").split("\n")[:-1]:
            entry = json.loads(line)
            yield entry["step"], entry
    for step, path in trajectory_files(run_dir, stage).items():
        try:
            record = read_record(path)
        except DamagedFile as problem:
            problems.append(f"step {step}: {problem}")
            continue
        if record is not None:
            yield step, account_of(record)


def compact(run_dir: Path, stage: str, keep: int, checkpoint: int) -> None:
    """Reduce the files of steps to their account, but for the newest `keep` and those after step `checkpoint`."""
    files = trajectory_files(run_dir, stage)
    for step in sorted(files)[:-keep]:
        if step > checkpoint:
            return
        record = read_record(files[step])
        if record is not None:
            end_torn_line(files[step].parent / ACCOUNT)
            with (files[step].parent / ACCOUNT).open("a", encoding="utf-8") as account:
                account.write(json.dumps(account_of(record)) + "\n")
                account.flush()
                os.fsync(account.fileno())
        files[step].unlink()


def account_of(record: StepRecord) -> dict[str, Any]:
    """What stays of a step in the account when its rows go."""
    return {
        "step": record.step,
        "numbers": list(record.numbers),
        "dropped": [list(pair) for pair in record.dropped],
        "taken": record.state["buffer"]["admitted"],
    }


def _add(ledger: Ledger, step: int, entry: Mapping[str, Any]) -> None:
    ledger.taken = max(ledger.taken, entry["taken"])
    for number in entry["numbers"]:
        if number in ledger.trained:
            ledger.problems.append(f"group {number}: trained in step {ledger.trained[number]} and in step {step}")
        if number in ledger.dropped:
            ledger.problems.append(f"group {number}: dropped as {ledger.dropped[number]}, and trained in step {step}")
        ledger.trained[number] = step
    for number, reason in entry["dropped"]:
        if number in ledger.trained:
            ledger.problems.append(f"group {number}: trained in step {ledger.trained[number]}, and dropped as {reason}")
        ledger.dropped[number] = reason


def _compare_with_metrics(run_dir: Path, stage: str, ledger: Ledger) -> None:
    """The newest record of metrics.jsonl counted the same, in memory."""
    lines = step_records(run_dir, stage)
    line = lines.get(ledger.steps)
    if line is not None and (counted := line.get("count/trained")) not in (None, len(ledger.trained)):
        ledger.problems.append(
            f"step {ledger.steps}: metrics.jsonl counts {counted} trained, the files {len(ledger.trained)}"
        )


def describe_ledger(stage: str, ledger: Ledger) -> Iterator[str]:
    """The sums of a stage, and what does not add up, line by line."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(ledger.reasons.items()))
    yield (
        f"{stage}: {ledger.taken:,} prompts taken = {len(ledger.trained):,} trained in {ledger.steps:,} steps + "
        f"{len(ledger.dropped):,} dropped{f' ({reasons})' if reasons else ''} + {ledger.on_its_way:,} on their way"
        + (f", {ledger.waiting:,} of them back and on the disk" if ledger.waiting else "")
    )
    yield from (f"  DOES NOT ADD UP: {problem}" for problem in ledger.problems)
    if not ledger.problems:
        yield "  every number is there once"
