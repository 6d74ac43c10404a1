"""What a run is doing at this moment: RUN/state.json, written anew every few seconds, read by whoever watches.

Whether a run goes on is known by its lock where the lock reaches, and by the age of this file everywhere: a process that was
killed says nothing more.
"""

import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from orchestrator.run.files import write_file
from orchestrator.run.lock import Holder, holder
from rollout.errors import InputError

STATE = "state.json"
COPY = ".copy"
"""File in a folder that is a copy of a run, whose lock is elsewhere, be it on this host."""
BEAT_S = 2.0
"""Seconds between two beats of a run."""
SILENT_S = 30.0
"""Seconds after which a run that says nothing is taken for ended where its lock does not tell."""

Standing = Literal["not begun", "running", "finished", "stopped", "failed", "crashed"]
"""Where a run stands. `stopped`: by Ctrl-C or `rayzero stop`; `failed`: with an error; `crashed`: it ended without a word."""


def write_state(run_dir: Path, state: Mapping[str, Any]) -> None:
    """Replace what a run said of itself. Keys: README of the recipes, "The run directory"."""
    write_file(run_dir / STATE, json.dumps(state, allow_nan=False, default=str).encode("utf-8", "replace"))


def read_state(run_dir: Path) -> dict[str, Any]:
    """What a run last said of itself; empty: nothing, as runs of before do."""
    try:
        state = json.loads((run_dir / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def standing(run_dir: Path, state: Mapping[str, Any], *, finished: bool, begun: bool) -> tuple[Standing, Holder | None]:
    """Where a run stands, and who writes it.

    Args:
        state: what it last said of itself.
        finished: whether its records say that all stages have ended.
        begun: whether it has recorded anything.
    """
    writer = writer_of(run_dir, state)
    said = str(state.get("state", ""))
    if writer is not None:
        return "running", writer
    if finished:
        return "finished", None
    if said == "running":
        return "crashed", None
    if said == "failed":
        return "failed", None
    return ("stopped" if begun or said else "not begun"), None


def wait_for_silence(run_dir: Path, say: Callable[[str], None]) -> None:
    """Wait until a run that another host may still be writing, where the lock does not tell, has said nothing for long enough.

    Raises:
        InputError: it goes on there.
    """
    state = read_state(run_dir)
    host, last = str(state.get("host")), _seconds(state.get("time"))
    if state.get("state") != "running" or host == socket.gethostname() or abs(time.time() - last) >= SILENT_S:
        return
    say(f"{run_dir} was written by a process on {host} a moment ago; waiting up to {SILENT_S:.0f} s for its silence")
    while abs(time.time() - last) < SILENT_S:
        time.sleep(1)
        if _seconds(read_state(run_dir).get("time")) != last:
            raise InputError(
                f"{run_dir} is being written by process {state.get('pid')} on {host}; end it with `rayzero stop {run_dir}`, "
                "or start another run with --run DIR"
            )


def writer_of(run_dir: Path, state: Mapping[str, Any]) -> Holder | None:
    """Who writes a run now; None: nobody. `state`: what it last said of itself.

    A lock on a network file system may not reach other hosts: a fresh beat is as good.
    """
    if (found := holder(run_dir)) is not None:
        return found
    said = _speaker(state, copied=(run_dir / COPY).exists())
    return said if said is not None and abs(silence_s(state)) < SILENT_S else None


def silence_s(state: Mapping[str, Any]) -> float:
    """Seconds since a run last said something, by this host's clock."""
    return time.time() - _seconds(state.get("time"))


def _speaker(state: Mapping[str, Any], copied: bool = False) -> Holder | None:
    """The process of another host that said it is running; of a process here the lock tells, but in a folder that is a copy."""
    if state.get("state") != "running" or (state.get("host") == socket.gethostname() and not copied):
        return None
    return Holder(pid=int(_seconds(state.get("pid"))), host=str(state.get("host")))


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
