"""Asking a run that goes on what it waits for, and its answer in lines."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.run.control import ask_for
from orchestrator.run.state import read_state, standing
from orchestrator.run.watchdog import STACKS
from rollout.errors import InputError, ServiceError

DEBUG = "debug"
"""Name in a request that asks for it."""
ANSWER_S = 20.0
MOST_WAITS = 50
"""Waits that are shown: the oldest."""


def ask_what_it_waits_for(run_dir: Path) -> dict[str, Any]:
    """The report of a run on whatever host (orchestrator/loop/debug.py).

    Raises:
        InputError: nothing is running there.
        ServiceError: it does not answer; where its event loop stood, with the file of its stacks.
    """
    if standing(run_dir, read_state(run_dir), finished=False, begun=True)[1] is None:
        raise InputError(f"{run_dir}: nothing is running there; --debug asks a run that goes on")
    try:
        return ask_for(run_dir, {DEBUG: 1}, ANSWER_S)
    except ServiceError as problem:
        stacks = run_dir / STACKS
        if not stacks.is_file():
            raise
        age = time.time() - stacks.stat().st_mtime
        raise ServiceError(
            f"{problem}\nits event loop stood {age:.0f} s ago; the stacks of then: {stacks}"
        ) from problem


def describe_waits(report: Mapping[str, Any]) -> Iterator[str]:
    """A report, line by line."""
    waits = report.get("waits", [])
    yield f"open waits ({len(waits)})"
    for wait in waits[:MOST_WAITS]:
        limit = f", at most {wait['limit_s']:.0f} s without progress" if wait.get("limit_s") else ""
        idle = f" ({wait['idle_seconds']:.0f} s without progress)" if wait["seconds"] - wait["idle_seconds"] > 1 else ""
        yield f"  {wait['who'] or 'the run'} waits {wait['seconds']:.0f} s{idle} for {wait['what']}{limit}"
    if len(waits) > MOST_WAITS:
        yield f"  … and {len(waits) - MOST_WAITS} younger ones"
    for name in ("queues", "phases"):
        values = report.get(name) or {}
        yield f"{name}: " + (", ".join(f"{key} {value:g}" for key, value in values.items()) or "none")
    for name, service in report.get("services", {}).items():
        yield f"{name}: {service['state']}"
        for member in service["members"]:
            yield "  " + ", ".join(f"{value}" if key == "name" else f"{key} {value}" for key, value in member.items())
    yield from (f"  {note}" for note in report.get("ranks", []))
    for name, stack in report.get("stacks", {}).items():
        yield ""
        yield name
        yield from str(stack).splitlines()
