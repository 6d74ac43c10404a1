"""RUN/lock: held by the process that writes a run; says which one that is."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO

from rollout.errors import InputError

LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that writes a run."""

    pid: int
    host: str
    space: str = ""
    """Table of processes that `pid` is of (`process_table`); empty: not known."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_here(self) -> bool:
        """Whether `pid` names that process here too. The name of a host does not tell: containers share it."""
        return self.space == process_table() if self.space else self.host == socket.gethostname()

    @property
    def way_to_end(self) -> str:
        """What ends the process when it does not listen."""
        return f"kill -KILL {self.pid} on {self.host}"


@cache
def process_table() -> str:
    """The table of processes that this process is in, other than that of any other host or container; empty: not known."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


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
        file.write(json.dumps(asdict(Holder(pid=os.getpid(), host=socket.gethostname(), space=process_table()))))
        file.flush()
        # What is in it stays until the next holder: read only while it is held, and to the very end by this one.
        yield


def _locked(file: IO[str]) -> bool:
    """Somebody who only looks holds it for a moment, so not the first try alone decides."""
    for _ in range(5):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:
            return True  # a file system without locks: state.json alone tells (orchestrator/run/state.py)
    return False


def holder(run_dir: Path) -> Holder | None:
    """Who holds the run now; None: nobody, as far as the lock reaches."""
    path = run_dir / LOCK
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(run_dir) or Holder(pid=0, host="an unknown host")
        except OSError:
            return None  # as in `_locked`
    return None


def _read_holder(run_dir: Path) -> Holder | None:
    try:
        return Holder(**json.loads((run_dir / LOCK).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # it is just being written
        return None
