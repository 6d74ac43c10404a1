"""A child process with a time limit, of which nothing is left afterwards."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TAG = "RAYZERO_BENCH_TAG"
"""Environment variable that marks a child and what it starts."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int | None
    """Exit status, negative for a signal; None: it was ended at its limit."""
    seconds: float
    left: int
    """Processes of it that were still there when it had ended."""


def run_limited(
    command: list[str],
    log: Path,
    limit_s: float,
    environment: Mapping[str, str],
    meanwhile: Callable[[], object] = lambda: None,
    patience_s: float = 3,
) -> Ended:
    """Run a command with its output in a file. Whatever way this returns, its processes are gone.

    Output goes straight to the file: a grandchild that holds a pipe open cannot keep anybody waiting.

    Args:
        meanwhile: called every 10 s.
        patience_s: between asking what is left to end and killing it.
    """
    tag = uuid.uuid4().hex
    began = time.monotonic()
    with open(log, "ab") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**environment, TAG: tag},
            start_new_session=True,
        )
    code: int | None = None
    left = 0
    try:
        told = began
        while (code := process.poll()) is None and time.monotonic() - began < limit_s:
            time.sleep(0.1)
            if time.monotonic() - told > 10:
                meanwhile()
                told = time.monotonic()
    finally:
        seconds = time.monotonic() - began
        left = end_all(process, tag, patience_s)
    return Ended(code=code, seconds=seconds, left=left)


def end_all(process: "subprocess.Popen[bytes]", tag: str, patience_s: float) -> int:
    """End a child and everything that it started: asked first, then killed. Returns how many others had to be ended."""
    mine = relatives(process.pid, tag)
    others = len(mine - {process.pid})
    for number, pause in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s), (signal.SIGKILL, patience_s)):
        for pid in mine:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue
        until = time.monotonic() + pause
        while (mine := relatives(process.pid, tag)) and time.monotonic() < until:
            process.poll()
            time.sleep(0.05)
        if not mine:
            break
    process.poll()
    return others


def relatives(session: int, tag: str) -> set[int]:
    """Ids of living processes of a session (= id of the child that began it), of those marked with the tag, and of all below them.

    A server that takes a session of its own keeps the tag; one that overwrites its environment with a title keeps the session
    or its parent.
    """
    parents, found = {}, set()
    mark = f"{TAG}={tag}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()
            state, parent, its_session = fields[0], int(fields[1]), int(fields[3])
            if state in "ZX":
                continue
            parents[int(entry)] = parent
            if its_session == session or mark in Path(f"/proc/{entry}/environ").read_bytes():
                found.add(int(entry))
        except (OSError, ValueError, IndexError):
            continue
    grown = True
    while grown:
        below = {pid for pid, parent in parents.items() if parent in found} - found
        found |= below
        grown = bool(below)
    return found
