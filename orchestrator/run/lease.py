"""Who may write a run. A lock keeps two processes of one host apart (orchestrator/run/lock.py); it may not reach other hosts, and
a process that was only frozen does not know that another took over. So every start counts up a number in the run's folder, and
what is written is written only while that number is one's own.

    RUN/lease.json      the run's id, and number, process and host of who started last
"""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.run.files import fenced, write_file
from rollout.errors import ServiceError

LEASE = "lease.json"
WATCH_S = 2.0
"""Seconds between two looks at whether it is still one's own."""


class LeaseLost(ServiceError):
    """Another process took the run over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One start of a run."""

    run: str
    """Id of the run, the same for all its starts."""
    epoch: int
    """Number of the start, from 1."""
    pid: int
    host: str


def read_lease(run_dir: Path) -> Lease | None:
    """The newest start of a run; None: it has had none."""
    try:
        return Lease(**json.loads((run_dir / LEASE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as problem:
        raise ServiceError(
            f"{run_dir / LEASE} cannot be read: {problem}; remove it if no other process writes the run"
        ) from None


def is_newer(said: bytes, lease: Lease) -> bool:
    """Whether the text of a lease is of a later start of the same run."""
    try:
        other = Lease(**json.loads(said))
    except (ValueError, TypeError):
        return False
    return other.run == lease.run and other.epoch > lease.epoch


@contextmanager
def leased(run_dir: Path) -> Iterator[Lease]:
    """Take a run over; nothing in it is renamed into place in this block by this process once another has taken it."""
    before = read_lease(run_dir)
    lease = Lease(
        run=before.run if before else secrets.token_hex(4),
        epoch=before.epoch + 1 if before else 1,
        pid=os.getpid(),
        host=socket.gethostname(),
    )
    write_file(run_dir / LEASE, json.dumps(asdict(lease)).encode())
    with fenced(lambda: check_lease(run_dir, lease)):
        yield lease


def check_lease(run_dir: Path, lease: Lease) -> None:
    """Raises LeaseLost when a run was taken over since."""
    now = read_lease(run_dir)
    if now is not None and now.epoch > lease.epoch:
        raise LeaseLost(
            f"{run_dir} was taken over by process {now.pid} on {now.host} while this one stood still; it ends here and has "
            "written nothing since"
        )


async def watch_lease(run_dir: Path, lease: Lease) -> None:
    """Raises LeaseLost as soon as a run was taken over; runs until cancelled."""
    while True:
        await asyncio.to_thread(check_lease, run_dir, lease)
        await asyncio.sleep(WATCH_S)
