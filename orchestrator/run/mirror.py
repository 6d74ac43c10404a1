"""The files of a run's folder that its own process writes, copied to the storage as they change.

Whoever writes a file says nothing to the mirror: it looks for what has changed, in the order of the changes, so that what is
there is what the folder held a few seconds ago, but for a file that is on its way. Folders of the storage (stubs.py) are no part
of it. A storage that is away is told once, and tried again.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.run.control import ANSWER, REQUEST, STOP
from orchestrator.run.files import SUFFIX
from orchestrator.run.lease import LEASE, LeaseLost, check_lease, is_newer, read_lease
from orchestrator.run.lock import LOCK
from rollout.errors import ServiceError
from rollout.storage.folders import MANIFEST
from rollout.storage.objects import Storage, hurry

ROUND_S = 8.0
"""Seconds between two rounds; a reader takes a run for ended when it has said nothing for 30."""
SHARE = 0.02
"""Share of the time that one file may be on its way: a large one that grows is copied less often."""
HURRY_S = 20.0
"""Longest time that the storage may be away at the end of a run that failed, or was stopped."""
IDENTITY = "storage.json"
"""File that says which run it is, here and there."""
OWN = (LOCK, STOP, REQUEST, ANSWER, IDENTITY)
"""Files of this host alone."""

Stamp = tuple[int, int]
"""(nanoseconds of the last change, bytes) of a file."""


class Mirror:
    """Copies until it is closed. Of one process, the one that holds the run's lock."""

    def __init__(self, run_dir: Path, storage: Storage, tell: Callable[[str], None]) -> None:
        """`tell`: hears that the storage is away, and that it is back. Raises ServiceError."""
        self._run_dir, self._storage, self._tell = run_dir, storage, tell
        self._lease = read_lease(run_dir)
        self._check_lease()
        if self._lease is not None:
            storage.put_file(LEASE, run_dir / LEASE)  # at once, for whoever else begins now
        there = storage.list()
        self._copied: dict[str, Stamp] = {
            name: stamp
            for name, stamp in self._files()
            if name in there and there[name][0] == stamp[1] and there[name][1] >= stamp[0] / 1e9
        }
        self._due: dict[str, float] = {}
        """File → when it may be copied again (`time.monotonic`)."""
        self._turn = threading.Lock()
        self._end = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._go_on, name="mirror", daemon=True)
        self._thread.start()

    def flush(self) -> None:
        """Copy all that has changed until now. Raises ServiceError when the storage is away for too long."""
        with self._turn:
            self._round(all_of_it=True)

    def close(self, *, soon: bool) -> None:
        """Copy the rest and end. Raises ServiceError: not all of it came there.

        Args:
            soon: the run has not ended as it should; somebody waits for its process to end.
        """
        self._end.set()
        if soon:
            hurry(HURRY_S)
        self.flush()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._end.wait(ROUND_S):
            try:
                with self._turn:
                    self._round()
                if self._away:
                    self._away = False
                    self._tell("the storage is back; the files of the run are there again")
            except LeaseLost:
                return  # the run ends by itself
            except (ServiceError, OSError) as problem:
                if not self._away:
                    self._tell(f"{problem}; the run goes on, and they are sent later")
                self._away = True

    def _round(self, all_of_it: bool = False) -> None:
        self._check_lease()
        now = dict(self._files())
        changed = [name for name, stamp in now.items() if self._copied.get(name) != stamp]
        for name in sorted(changed, key=lambda name: now[name][0]):
            began = time.monotonic()
            if not all_of_it and began < self._due.get(name, 0.0):
                continue
            try:
                self._storage.put_file(name, self._run_dir / name)
            except FileNotFoundError:
                continue  # replaced or deleted just now: the next round sees
            self._copied[name] = now[name]
            ended = time.monotonic()
            self._due[name] = ended + (ended - began) / SHARE
        for name in self._copied.keys() - now.keys():
            self._storage.delete(name)
            del self._copied[name]

    def _check_lease(self) -> None:
        """Raises ServiceError when the run was taken over on another host, by what the storage says; here it is then taken over too."""
        try:
            there = self._storage.read(LEASE)
        except FileNotFoundError:
            return
        if self._lease is not None and is_newer(there, self._lease):
            (self._run_dir / LEASE).write_bytes(there)  # ends all of this process's writing, which a fence is before
            check_lease(self._run_dir, self._lease)

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        """(path in the run's folder, stamp) of every file that is to be in the storage."""
        for folder, folders, names in os.walk(self._run_dir):
            if MANIFEST in names:
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.endswith(SUFFIX)]
            for name in names:
                path = Path(folder, name)
                if name.endswith(SUFFIX) or name.startswith(".") or path.is_symlink():
                    continue
                relative = path.relative_to(self._run_dir).as_posix()
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                if relative not in OWN:
                    yield relative, (found.st_mtime_ns, found.st_size)
