"""Folders of a storage that are there whole or not at all, whoever wrote their files.

    with written(place) as (folder, files): …      fill a folder of this host; at the end its files are put at `place`
    commit(uri, files)                             once all hosts have done so: the manifest, written last
    fetch(uri)                                     a copy on this host

A store has no rename, so a folder is what its manifest lists: readers believe nothing else. It names each file with size and
digest. A place that is no URI is a folder that all hosts see, which is filled as it is.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TypeVar

from rollout.errors import ServiceError
from rollout.storage.host import cache_root, held_folder, locked
from rollout.storage.objects import Storage, StoredFile
from rollout.storage.uri import is_uri

T = TypeVar("T")

MANIFEST = "stored.json"
"""Object that lists the files of a folder."""
AT_ONCE = 4
"""Files that a process sends or fetches at a time."""


@contextmanager
def written(place: str) -> Iterator[tuple[Path, list[StoredFile]]]:
    """Yield (folder of this host to fill, list that has at the end what was put in the storage). It need not be made.

    Raises:
        ServiceError: the storage is away. What was put there is in no manifest.
    """
    files: list[StoredFile] = []
    if not is_uri(place):
        yield Path(place), files
        return
    scratch = cache_root() / f"leaving-{uuid.uuid4().hex}"
    scratch.mkdir(parents=True)
    try:
        yield scratch / "folder", files
        files += put_files(place, scratch / "folder")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def put_files(uri: str, folder: Path) -> list[StoredFile]:
    """Copy the files of a folder of this host, which need not be there. Raises OSError or ServiceError."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    storage = Storage(uri)
    return _each(lambda name: storage.put_file(name, folder / name), [name for name in names if name != MANIFEST])


def commit(uri: str, files: Iterable[StoredFile]) -> list[StoredFile]:
    """Write the manifest of a folder whose files are there; returns its files by name.

    Raises:
        ServiceError: the storage is away, lacks one of them, or was given two of one name.
    """
    by_name: dict[str, StoredFile] = {}
    for file in files:
        if by_name.setdefault(file.name, file) != file:
            raise ServiceError(f"{uri}: two hosts wrote a file {file.name}, and not the same")
    storage = Storage(uri)
    there = storage.list()
    for file in by_name.values():
        if there.get(file.name, (-1, 0.0))[0] != file.size:
            raise ServiceError(f"storage {storage}: {file.name} was written, and is not there")
    listed = [by_name[name] for name in sorted(by_name)]
    storage.write(MANIFEST, manifest_text(listed).encode())
    return listed


def manifest_text(files: Sequence[StoredFile], **more: str) -> str:
    """A manifest as JSON. `more`: keys beside the files."""
    return json.dumps({**more, "files": [asdict(file) for file in files]}, indent=1)


def read_manifest(text: bytes | str) -> list[StoredFile]:
    """The files of a manifest.

    Raises:
        ValueError: it is none, or one of its names leads out of the folder.
    """
    try:
        files = [StoredFile(**entry) for entry in json.loads(text)["files"]]
    except (KeyError, TypeError) as problem:
        raise ValueError(f"no manifest: {problem}") from None
    for file in files:
        path = PurePosixPath(file.name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"no manifest: a file is called {file.name!r}")
    return files


def stored_files(uri: str) -> list[StoredFile]:
    """What the manifest of a folder lists.

    Raises:
        FileNotFoundError: there is no such folder, or it is not whole.
        ServiceError: the storage is away.
    """
    storage = Storage(uri)
    try:
        return read_manifest(storage.read(MANIFEST))
    except FileNotFoundError:
        raise FileNotFoundError(f"{storage} is not there, or not whole (no {MANIFEST})") from None
    except ValueError as problem:
        raise ServiceError(f"storage {storage}: {problem}") from None


def damage_of(uri: str) -> str:
    """What is wrong with a folder, by the sizes of its files; empty: nothing. Raises ServiceError when the storage is away."""
    try:
        files, there = stored_files(uri), Storage(uri).list()
    except FileNotFoundError as problem:
        return str(problem)
    for file in files:
        size = there.get(file.name, (-1, 0.0))[0]
        if size != file.size:
            return f"storage {Storage(uri)}: {file.name} {'is missing' if size < 0 else 'is not what was written'}"
    return ""


def delete_folder(uri: str) -> None:
    """Delete a folder; from the first moment on it is not there. Raises ServiceError."""
    storage = Storage(uri)
    storage.delete(MANIFEST)
    storage.delete_all()


def fetch(uri: str, wanted: Callable[[str], bool] = lambda _: True) -> Path:
    """A copy of a folder on this host, made once however many processes ask.

    Args:
        wanted: by their names, the files that are needed; others may be missing in the copy.

    Raises:
        FileNotFoundError: there is no such folder, or it is not whole.
        ServiceError: the storage is away.
    """
    files = stored_files(uri)
    storage = Storage(uri)
    # A folder that was written anew is another one.
    copy = held_folder(uri, manifest_text(files))

    def get(name: str) -> None:
        known = next(file for file in files if file.name == name)
        with locked(copy, name):
            if not _has(copy, known):
                storage.get_file(name, copy / name, known)

    _each(get, [file.name for file in files if wanted(file.name)])
    return copy


def has_all(folder: Path, files: Iterable[StoredFile]) -> bool:
    """Whether a folder of this host has all files of a manifest, by their sizes."""
    return all(_has(folder, file) for file in files)


def local_folder(place: str, wanted: Callable[[str], bool] = lambda _: True) -> str:
    """A place as this host reads it: a copy of what is in a storage; a folder or a hub id as it is. Raises as `fetch` does."""
    return str(fetch(place, wanted)) if is_uri(place) else place


def _has(folder: Path, file: StoredFile) -> bool:
    try:
        return os.stat(folder / file.name).st_size == file.size
    except OSError:
        return False


def _each(act: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """What `act` returns for each name; the first failure is raised when those under way have ended."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        doing = [pool.submit(act, name) for name in names]
        try:
            return [each.result() for each in doing]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
