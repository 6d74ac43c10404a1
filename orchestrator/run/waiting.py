"""Groups that came back and were not trained yet, on the disk, so that a restart samples none of them again.

    RUN/STAGE/waiting/000012.log     what came back after step 12 was written and before step 13 was

A log is frames, appended: a group's rows, or that a group was dropped. Each frame has a checksum; a torn end, which a crash may
leave, is cut off. A log goes when everything in it is trained or dropped in a step's file. Appending is a write to the
kernel, which a killed process does not take along; the disk gets it by a thread that syncs while more comes in.
"""

import asyncio
import errno
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.run.files import check_fence
from orchestrator.run.trajectories import GROUP, group_batch, groups_of
from rewards.types import ScoredGroup

FRAME = struct.Struct("<4sIII")
"""Magic, bytes of the head, bytes of the body, CRC-32 of both."""
MAGIC = b"RZ" + hashlib.blake2b(str(GROUP).encode(), digest_size=2).digest()
"""Begins a frame of these columns; frames of others, which another version wrote, are none."""

Segments = Sequence[Sequence[int]]
"""(first number, segment) wherever another segment of a schedule began."""


@dataclass(slots=True)
class Returned:
    """What a stage left waiting."""

    groups: dict[int, pa.RecordBatch] = field(default_factory=dict)
    """Number → rows."""
    dropped: dict[int, str] = field(default_factory=dict)
    """Number → reason."""
    segments: Segments = ()
    """Segments of the numbers up to the largest here."""


class WaitingLog:
    """The logs of one stage. One process writes them."""

    def __init__(
        self, folder: Path, segments: Callable[[], Segments] = tuple, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """`segments`: of the numbers so far. `tell`: hears that the disk takes no more."""
        self._folder = folder
        self._segments, self._tell = segments, tell
        self._failing = False
        self._file: FileIO | None = None
        self._step = 0
        self._open: dict[Path, set[int]] = {}
        """Log → numbers in it that are neither trained nor dropped in a step's file."""
        self._batches: dict[int, pa.RecordBatch] = {}
        self._syncing: asyncio.Task[None] | None = None
        self._dirty = False

    def add(self, number: int, group: ScoredGroup) -> None:
        """A group came back."""
        self._batches[number] = batch = group_batch(group)
        self._append({"number": number, "segments": self._segments()}, batch.serialize().to_pybytes())

    def drop(self, number: int, reason: str) -> None:
        """A group will not train."""
        self._batches.pop(number, None)
        self._append({"number": number, "dropped": reason}, b"")

    def rows(self, number: int) -> pa.RecordBatch:
        """Rows of a group that waits."""
        return self._batches[number]

    def written(self, step: int, resolved: Sequence[int]) -> None:
        """The file of `step` is on the disk: with it what became of the numbers in it."""
        for number in resolved:
            self._batches.pop(number, None)
        self.close()
        self._step = step
        for path, numbers in list(self._open.items()):
            numbers -= set(resolved)
            if not numbers:
                del self._open[path]
                path.unlink(missing_ok=True)

    def restore(self, step: int) -> Returned:
        """What waits, of a stage that goes on from `step`. Logs that another version wrote are left out, and then deleted."""
        found = Returned()
        self._step = step
        for path in sorted(self._folder.glob("*.log")):
            numbers = set()
            for head, body in _frames(path):
                number = head["number"]
                numbers.add(number)
                if "dropped" in head:
                    found.groups.pop(number, None)
                    found.dropped[number] = head["dropped"]
                else:
                    found.groups[number] = pa.ipc.read_record_batch(pa.py_buffer(body), GROUP)
                    found.segments = max(found.segments, head["segments"], key=len)
            self._open[path] = numbers
        self._batches = dict(found.groups)
        return found

    def forget(self, numbers: Sequence[int]) -> None:
        """Numbers that were restored and turned out to be settled already."""
        self.written(self._step, numbers)

    def close(self) -> None:
        """Nothing more comes before the next step."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _append(self, head: dict[str, object], body: bytes) -> None:
        path = self._folder / f"{self._step:06d}.log"
        self._open.setdefault(path, set()).add(int(str(head["number"])))
        text = json.dumps(head).encode()
        check_fence()
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                _cut_torn_end(path)
                self._file = path.open("ab", buffering=0)
            begin = self._file.tell()
            frame = FRAME.pack(MAGIC, len(text), len(body), zlib.crc32(text + body)) + text + body
            if self._file.write(frame) < len(frame):
                self._file.truncate(begin)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            self._failing = False
        except OSError as problem:
            # The group itself is in memory: what is lost is that a restart would not sample it again.
            if not self._failing:
                self._tell(
                    f"groups that wait to be trained are not on the disk: {problem}; a restart would sample them again"
                )
            self._failing = True
            return
        self._sync()

    def _sync(self) -> None:
        """Let the disk have it, in a thread, one call for all that has come in meanwhile."""
        self._dirty = True
        if self._syncing is None or self._syncing.done():
            try:
                self._syncing = asyncio.get_running_loop().create_task(self._sync_while_dirty())
            except RuntimeError:  # no loop runs: `close` syncs
                return

    async def _sync_while_dirty(self) -> None:
        while self._dirty and self._file is not None:
            self._dirty = False
            copy = os.dup(self._file.fileno())
            try:
                await asyncio.to_thread(os.fsync, copy)
            finally:
                os.close(copy)


def waiting_groups(found: Returned) -> dict[int, ScoredGroup]:
    """Number → group of what waits."""
    return {number: groups_of(batch)[0] for number, batch in found.groups.items()}


def _frames(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """(head, body) of every whole frame of a log, up to its torn end."""
    data = path.read_bytes()
    at = 0
    while (frame := _frame(data, at)) is not None:
        head, body, at = frame
        yield json.loads(head), body


def _frame(data: bytes, at: int) -> tuple[bytes, bytes, int] | None:
    if len(data) - at < FRAME.size:
        return None
    magic, head, body, check = FRAME.unpack_from(data, at)
    begin, end = at + FRAME.size, at + FRAME.size + head + body
    if magic != MAGIC or end > len(data) or zlib.crc32(data[begin:end]) != check:
        return None
    return data[begin : begin + head], data[begin + head : end], end


def _cut_torn_end(path: Path) -> None:
    if not path.is_file():
        return
    data, at = path.read_bytes(), 0
    while (frame := _frame(data, at)) is not None:
        at = frame[2]
    if at < len(data):
        os.truncate(path, at)
