"""The folder of this host's own disk in which copies from a storage are kept, and files on their way there."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rollout.storage.uri import split

VARIABLE = "RAYZERO_STORAGE_CACHE"
"""Environment variable that says where it is; the recipe's `cluster.storage_cache` sets it."""
DEFAULT = "~/.cache/rayzero/storage"
UNUSED_S = 86_400.0
"""Seconds after which a copy that nobody has asked for is deleted."""


def cache_root() -> Path:
    """The folder; it need not be there."""
    return Path(os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute()


def held_folder(uri: str, text: str) -> Path:
    """The folder for a copy of what `text` describes at a URI, made if need be. What was not asked for in a day is cleared away."""
    root = cache_root()
    digest = hashlib.sha256(f"{uri}\n{text}".encode()).hexdigest()[:16]
    folder = root / f"{digest}-{split(uri)[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    _sweep(root, folder)
    return folder


def drop(folder: Path) -> None:
    """Delete a copy that nobody needs any more."""
    if folder.parent == cache_root():
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """A lock of this host on a file of a copy: of several processes that want it, one fetches it."""
    locks = folder.parent / "locks"
    locks.mkdir(exist_ok=True)
    lock = locks / hashlib.sha256(f"{folder.name}/{name}".encode()).hexdigest()[:16]
    lock.touch()
    with lock.open("ab") as file:
        with suppress(OSError):  # without locks it is fetched twice, and is the same
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(root: Path, wanted: Path) -> None:
    for path in (*root.iterdir(), *root.glob("locks/*")):
        with suppress(OSError):
            if path not in (wanted, root / "locks") and time.time() - path.stat().st_mtime > UNUSED_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
