"""Talking to a run in progress through its folder, from any process that sees it.

RUN/lock          held by the process that writes the run; says which one that is
RUN/request.json  what somebody asks of it; the run takes it away
RUN/answer.json   what it says to that; whoever asked takes it away

No port is opened and nothing of Ray is needed to ask.
"""

import asyncio
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.config.load import STORED
from orchestrator.run.files import write_file
from rollout.errors import InputError, ServiceError

LOCK, REQUEST, ANSWER = "lock", "request.json", "answer.json"
POLL_S = 0.5
ANSWER_TIMEOUT_S = 60.0

Sizes = Mapping[str, int]
"""Service → how many workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that writes a run."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold a run. The kernel frees it when the process ends, however it ends.

    Raises:
        InputError: another process holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / LOCK, "a+", encoding="utf-8") as file:
        if not _locked(file):
            raise InputError(
                f"{run_dir} is being written by {_read_holder(run_dir) or 'another process'}; "
                f"wait for it, end it with `rayzero stop {run_dir}`, or start another run with --run DIR"
            )
        file.truncate(0)
        file.write(json.dumps(asdict(Holder(pid=os.getpid(), host=socket.gethostname()))))
        file.flush()
        for stale in (REQUEST, ANSWER):
            (run_dir / stale).unlink(missing_ok=True)
        try:
            yield
        finally:
            file.truncate(0)


def _locked(file: IO[str]) -> bool:
    """Somebody who only looks holds it for a moment, so not the first try alone decides."""
    for _ in range(5):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def holder(run_dir: Path) -> Holder | None:
    """Who writes the run now; None: nobody."""
    path = run_dir / LOCK
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(run_dir) or Holder(pid=0, host="an unknown host")
        except OSError:
            return None  # a file system without locks; state.json tells (orchestrator/run/state.py)
    return None


def _read_holder(run_dir: Path) -> Holder | None:
    try:
        return Holder(**json.loads((run_dir / LOCK).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # it is just being written
        return None


def stop_run(run_dir: Path) -> Holder:
    """Ask the process of a run to end as by Ctrl-C.

    Raises:
        InputError: nothing is running there, or not on this host.
    """
    found = _running(run_dir, "")
    if found.host != socket.gethostname():
        raise InputError(
            f"{run_dir} is being written by {found}; stop it there, or a job of a cluster with --address URL"
        )
    os.kill(found.pid, signal.SIGTERM)  # a run in the background may ignore SIGINT
    return found


def ask_for(run_dir: Path, sizes: Sizes, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """Ask a run for other numbers of workers and wait for its answer: service → [before, after].

    Raises:
        InputError: nothing is running there, or it says no.
        ServiceError: no answer in time, or the run failed to do it.
    """
    wish = " ".join(f"{service}.replicas={count}" for service, count in sizes.items())
    _running(run_dir, f"; start it with `rayzero train {run_dir} {wish}`")
    answer = run_dir / ANSWER
    answer.unlink(missing_ok=True)
    write_file(run_dir / REQUEST, json.dumps(dict(sizes)).encode())
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if answer.is_file():
            said: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            answer.unlink()
            if "refused" in said:
                raise InputError(said["refused"])
            if "failed" in said:
                raise ServiceError(said["failed"])
            return said
        time.sleep(0.1)
    (run_dir / REQUEST).unlink(missing_ok=True)
    raise ServiceError(f"{run_dir}: the run did not answer within {timeout_s:.0f} s; nothing was changed")


async def serve_requests(run_dir: Path, scale: Callable[[Sizes], Awaitable[dict[str, Any]]]) -> None:
    """The run's side: look for requests until cancelled. `scale` does what is asked and says what became of it."""
    while True:
        await asyncio.sleep(POLL_S)
        path = run_dir / REQUEST
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        path.unlink()
        try:
            said = await scale({str(service): int(count) for service, count in json.loads(text).items()})
        except InputError as problem:
            said = {"refused": str(problem)}
        except (ValueError, TypeError, AttributeError):
            said = {"refused": f"a request that is no table of numbers: {text[:80]!r}"}
        except ServiceError as problem:
            said = {"failed": str(problem)}
        write_file(run_dir / ANSWER, json.dumps(said).encode())


def _running(run_dir: Path, way_out: str) -> Holder:
    if not (run_dir / STORED).is_file():
        raise InputError(f"{run_dir}: holds no run (no {STORED} in it)")
    found = holder(run_dir)
    if found is None:
        raise InputError(f"{run_dir}: nothing is running there{way_out}")
    return found
