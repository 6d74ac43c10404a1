"""How far a tracker has got with a run, in the run's folder: RUN/trackers/NAME.json."""

import fcntl
import json
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from orchestrator.run.files import write_file


def tracker_folder(run_dir: Path) -> Path:
    """Where the ids and the logs of a run's trackers are."""
    return run_dir / "trackers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a run knows of a tracker. It is written before the tracker hears of the run, and after each time that it got something."""

    id: str
    """Name of ours for the run there, 16 hexadecimal digits: a continued run is found by it."""
    lines: int = 0
    """Lines of metrics.jsonl that the tracker has."""
    results: str = ""
    """Digest of the results that it has; empty: none."""


class MarkFile:
    """The file of one tracker's mark."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self._path = tracker_folder(run_dir) / f"{name}.json"

    def read(self) -> Mark:
        """The mark; a new one is written down at first. Raises OSError or ValueError where the file cannot be read or written."""
        if self._path.is_file():
            return Mark(**json.loads(self._path.read_text("utf-8")))
        mark = Mark(id=secrets.token_hex(8))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write(mark)
        return mark

    def move(self, mark: Mark, *, lines: int | None = None, results: str | None = None) -> Mark:
        """Write down that the tracker has more. Raises OSError."""
        moved = replace(
            mark,
            lines=mark.lines if lines is None else lines,
            results=mark.results if results is None else results,
        )
        if moved != mark:
            self._write(moved)
        return moved

    def lock(self) -> IO[bytes]:
        """The lock of the tracker, held until it is closed. Waits for the process of a run that was killed, which has a while left;
        where the file system has no locks, there is none. Raises OSError."""
        file = self._path.with_suffix(".lock").open("ab")
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def _write(self, mark: Mark) -> None:
        write_file(self._path, json.dumps(asdict(mark)).encode())
