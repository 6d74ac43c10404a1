"""A run that a command only reads, named by its folder or by its URI in a storage: then a copy of its small files on this host."""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.config.load import STORED
from orchestrator.run.folder import model_to_evaluate
from orchestrator.run.mirror import IDENTITY
from orchestrator.run.state import COPY
from orchestrator.run.stubs import is_plain, stored_at, take_stubs, whole
from rollout.errors import InputError, ServiceError
from rollout.storage.folders import MANIFEST
from rollout.storage.host import cache_root
from rollout.storage.objects import Storage
from rollout.storage.uri import check_uri, is_uri, split

LEFT_OUT = re.compile(r"(report\.html|table\.(md|json)|(tensorboard|trackers|wandb)/.*)")
"""Files that no command reads."""
SAMPLES = re.compile(r"(trajectories|[^/]+/(samples|data))/.*")
"""Files with what was sampled, which may be large."""
AGAIN_S = 5.0
"""Seconds between two looks at the storage, at least."""


class RunCopy:
    """The small files of a run in a storage, as they were at the last `refresh`."""

    def __init__(self, uri: str) -> None:
        """`uri`: of a run, or of something in it.

        Raises:
            InputError: there is no run, or the storage does not let this process read it.
        """
        self.uri, self.inside = _run_of(uri)
        """URI of the run; path in it."""
        digest = hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        self.folder = cache_root() / "read" / digest / split(self.uri)[1]
        self._storage = Storage(self.uri)
        self._next = 0.0

    def refresh(self, *, samples: bool = False, models: bool = False) -> None:
        """Bring what has changed. Within a few seconds of the last time nothing is asked.

        Args:
            samples: whether what was sampled is wanted.
            models: whether checkpoints and exports are wanted, without their weights.
        """
        if time.monotonic() < self._next:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / COPY).touch()
        there = self._storage.list()
        stubs = {name.removesuffix(f"/{MANIFEST}") for name in there if name.endswith(f"/{MANIFEST}")}
        for name, (size, changed) in there.items():
            wanted = not LEFT_OUT.fullmatch(name) and (samples or not SAMPLES.fullmatch(name)) and name != IDENTITY
            if wanted and is_plain(name, stubs) and not self._has(name, size, changed):
                self._storage.get_file(name, self.folder / name)
                os.utime(self.folder / name, (changed, changed))
        if models:
            take_stubs(self.uri, self.folder, there)
        self._next = time.monotonic() + AGAIN_S

    def named(self, text: str) -> str:
        """A text of ours with the URI in place of the copy's folder."""
        return text.replace(str(self.folder), self.uri)

    def _has(self, name: str, size: int, changed: float) -> bool:
        try:
            found = os.stat(self.folder / name)
        except OSError:
            return False
        return found.st_size == size and abs(found.st_mtime - changed) < 0.001


@contextmanager
def reading(run: str, *, samples: bool = False, models: bool = False) -> Iterator[tuple[Path, RunCopy | None]]:
    """Yield (folder of a run, or what is meant in it; the copy that it is). Messages name the run as the user does.

    Args:
        run: a path, or a URI.
        samples, models: what is wanted of a copy, as in `refresh`.

    Raises:
        InputError: there is no such run.
        ServiceError: the storage is away.
    """
    if not is_uri(run):
        yield Path(run), None
        return
    copy = RunCopy(run)
    copy.refresh(samples=samples, models=models)
    try:
        yield copy.folder / copy.inside, copy
    except (InputError, ServiceError) as problem:
        raise type(problem)(copy.named(str(problem))) from problem


def model_here(model: str) -> tuple[Path | None, str, str]:
    """(run that a model is of or None, folder with its weights on this host or hub id, its URI or empty) for what a user names.

    Raises:
        InputError: it names no model.
        ServiceError: the storage is away.
    """
    with reading(model, models=True) as (folder, copy):
        run, path = model_to_evaluate(str(folder) if copy else model)
        stored = stored_at(Path(path)) if run else ""
        return run, str(whole(Path(path))) if stored else path, stored


def _run_of(uri: str) -> tuple[str, str]:
    """(URI of the run, path in it) of a URI that names a run, a stage, or `STAGE@STEP`."""
    # A step behind the options, where a shell puts it.
    if found := re.fullmatch(r"([^?]+)(\?.*)@(\w+)", uri):
        uri = f"{found[1]}@{found[3]}{found[2]}"
    try:
        check_uri(uri)
    except InputError as problem:
        raise InputError(f"RUN: {problem}") from None
    above, path = uri, ""
    for _ in range(4):
        try:
            Storage(above).read(STORED)
            return above, path
        except FileNotFoundError:
            pass
        except (ServiceError, InputError) as problem:
            raise InputError(f"{uri}: {problem}") from problem
        above, name = split(above)
        path = f"{name}/{path}".rstrip("/")
        if not name:
            break
    raise InputError(f"{uri}: is no run, and in none (no {STORED} in it)")
