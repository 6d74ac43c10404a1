"""Files and folders that are whole or absent: written aside as `<name>….part`, synced to the disk, renamed.

    with replaced_file(path) as aside: …            one file
    aside = begin_folder(path); …; complete(path)   a folder, whoever fills it
    with new_folder(path) as aside: …               a folder that this process fills, and nobody clears away after it
    move_link(link, target), remove_folder(folder)

The only place of the orchestrator that renames anything into place. What a stopped process left aside is no file of anybody's;
`sweep` and `sweep_files` clear it away.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rollout.errors import InputError
from rollout.faults import reach

SUFFIX = ".part"
"""End of the name of what is not whole, or no longer."""
LEFT = re.compile(r".+\.\d+\.part")
"""Name of a file that a process, whose number is in it, was writing."""
YOUNG_S = 3600.0
OLD = ".old"
"""Stands before it in the name of what was whole."""


def write_file(path: Path, data: bytes) -> None:
    """Write a file of these bytes, in place of one that is there."""
    with replaced_file(path) as aside:
        aside.write_bytes(data)


_check: Callable[[], None] = lambda: None  # noqa: E731


@contextmanager
def fenced(check: Callable[[], None]) -> Iterator[None]:
    """In the block `check` is asked before anything is renamed into place, and may raise."""
    global _check
    before, _check = _check, check
    try:
        yield
    finally:
        _check = before


def check_fence() -> None:
    """Raises what the fence raises, if this process may write no more."""
    _check()


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield the name to write the file under; a block that fails leaves the file that was there."""
    # A report may be written by the run and by somebody who asks for it at the same time.
    aside = path.with_name(f"{path.name}.{os.getpid()}{SUFFIX}")
    try:
        yield aside
        _put(aside, path)
    except OSError as problem:
        problem.filename = problem.filename or str(path)  # a write, other than an opening, does not say
        raise
    finally:
        aside.unlink(missing_ok=True)


def begin_folder(path: Path) -> Path:
    """Make the empty folder to fill before `complete(path)`."""
    aside = aside_of(path)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


@contextmanager
def abandoned(path: Path) -> Iterator[None]:
    """A block that fails takes away what `begin_folder` began: half a checkpoint takes the room that the next try needs."""
    try:
        yield
    except BaseException:
        shutil.rmtree(aside_of(path), ignore_errors=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield the empty folder to fill; a block that fails, by Ctrl-C too, leaves nothing of it.

    Raises:
        OSError: something stands in its place, an empty folder excepted.
    """
    # Outside of a run other files may be called anything, so what is written aside has a name that is nobody's.
    aside = path.with_name(f"{path.name}.{os.getpid()}{SUFFIX}")
    aside.mkdir(parents=True)
    try:
        yield aside
        if path.is_dir():
            path.rmdir()
        _put(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def complete(path: Path) -> None:
    """Put the folder that was filled in its place; one that is there is replaced."""
    _put(aside_of(path), path)


def _put(aside: Path, path: Path) -> None:
    """Sync what was written aside, a file or a folder, and rename it."""
    fault_point("written", path)
    for folder, _, names in os.walk(aside):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))
    if not aside.is_dir():
        _sync(aside)
    fault_point("synced", path)
    check_fence()
    # A folder cannot be renamed over another, and half deleted it would look whole: so it leaves under another name first.
    old = _old(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        fault_point("moved away", path)
    aside.rename(path)
    _sync(path.parent)
    fault_point("renamed", path)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Delete a folder; half deleted it does not look like one."""
    check_fence()
    shutil.rmtree(path.rename(aside_of(path)))


def move_link(link: Path, target: Path) -> None:
    """Point a symbolic link at `target`, relative to the link's folder."""
    check_fence()
    aside = aside_of(link)
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    aside.replace(link)
    _sync(link.parent)


def sweep(folder: Path, name: re.Pattern[str]) -> None:
    """Clear away the folders that a stopped process left aside, of those that `name` describes.

    One that had been moved away for a newer of its name that never came is put back.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        whole = path.with_name(path.name.removesuffix(SUFFIX).removesuffix(OLD))
        if not name.fullmatch(whole.name):
            continue
        if path == _old(whole) and not whole.exists() and path.is_dir() and not path.is_symlink():
            path.rename(whole)
        # Takes neither a file nor a link; what a dying process still holds open is left to the next start.
        shutil.rmtree(path, ignore_errors=True)


def sweep_files(folder: Path) -> None:
    """Delete the files, anywhere in a folder, that a stopped process left aside; young ones may be somebody's at work."""
    for path in folder.rglob(f"*{SUFFIX}"):
        if LEFT.fullmatch(path.name) and path.is_file() and time.time() - path.stat().st_mtime > YOUNG_S:
            path.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a name is that of something complete."""
    return not path.name.endswith(SUFFIX)


def aside_of(path: Path) -> Path:
    """The name under which a folder or a link is made before it is whole."""
    return path.with_name(path.name + SUFFIX)


def check_writable(option: str, file: Path) -> None:
    """Raises InputError when a file cannot be written there, its folders included."""
    if file.is_dir():
        raise InputError(f"{option} {file}: is a folder")
    parent = file.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{option} {file.parent}: {parent} is a file, not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{option} {file.parent}: {parent} is not writable; choose another folder")


def end_torn_line(path: Path) -> None:
    """A crash may have cut the last line: drop it, so that the next one does not become part of it."""
    if not path.is_file():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        write_file(path, data[: data.rfind(b"\n") + 1])


def fault_point(moment: str, path: Path) -> None:
    """A moment in the life of a write: `checkpoint.synced`, `step.renamed`, `file.written` (rollout/faults.py)."""
    kind = "checkpoint" if path.parent.name == "checkpoints" else "step" if path.suffix == ".parquet" else "file"
    where = path if moment == "renamed" else aside_of(path) if kind == "checkpoint" else path
    reach(f"{kind}.{moment.replace(' ', '-')}", where)


def _old(path: Path) -> Path:
    """The name of a folder that a newer one is about to replace."""
    return path.with_name(path.name + OLD + SUFFIX)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        # Some network file systems cannot sync a folder; there its names are as safe as they get.
        if not path.is_dir() or problem.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
