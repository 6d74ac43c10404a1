"""Large folders of a run whose files are in a storage: checkpoints, exports, built models.

In the run's folder each has what a reader of the run looks at, all but the weights, and a copy of its manifest that also says
where it is. `whole` gives one with the weights.
"""

import json
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from orchestrator.run.files import SUFFIX, begin_folder, complete, write_file
from rollout.errors import InputError
from rollout.storage.folders import MANIFEST, delete_folder, fetch, has_all, manifest_text, read_manifest, stored_files
from rollout.storage.objects import Storage, StoredFile
from rollout.storage.uri import inside

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""Ends of the names of files that stay in the storage."""
OF_RANKS = re.compile(r"((?:[^/]+/(?:checkpoints/step-\d{6,}|export))|base(?:-[^/]+)?)/.*")
"""Files of the folders that learner ranks write, in a run."""


def stored_at(folder: Path) -> str:
    """URI of a folder of a run; empty: it is in no storage."""
    try:
        return str(json.loads((folder / MANIFEST).read_text("utf-8")).get("uri", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def whole(folder: Path) -> Path:
    """A folder of a run with all its files: itself, or a copy of what is in the storage.

    Raises:
        InputError: it is gone from there.
        ServiceError: the storage is away.
    """
    uri = stored_at(folder)
    if not uri or has_all(folder, _listed(folder)):
        return folder
    try:
        return fetch(uri)
    except FileNotFoundError as gone:
        raise InputError(f"{folder}: its files are no longer in the storage: {gone}") from None


def make_stub(folder: Path, uri: str, files: Sequence[StoredFile]) -> None:
    """Put a folder of the storage in its place in the run, without its weights; one that has all files stays as it is.

    Raises:
        FileNotFoundError: its files are being deleted.
        ServiceError: the storage is away.
    """
    text = manifest_text(files, uri=uri)
    if folder.is_dir() and has_all(folder, files):
        write_file(folder / MANIFEST, text.encode())
        return
    storage, aside = Storage(uri), begin_folder(folder)
    for file in files:
        if not file.name.endswith(WEIGHTS):
            storage.get_file(file.name, aside / file.name, file)
    write_file(aside / MANIFEST, text.encode())
    complete(folder)


def take_stubs(uri: str, run_dir: Path, names: Collection[str]) -> set[str]:
    """Let the run's folder have what the storage has, and no more; returns the folders.

    Args:
        names: of all objects of the run.
    """
    folders = {name.removesuffix(f"/{MANIFEST}") for name in names if name.endswith(f"/{MANIFEST}")}
    for name in sorted(folders):
        place = inside(uri, name)
        files = stored_files(place)
        if stored_at(run_dir / name) != place or _listed(run_dir / name) != files:
            make_stub(run_dir / name, place, files)
    for path in list(run_dir.rglob(MANIFEST)):
        folder = path.parent
        if folder.name.endswith(SUFFIX) or folder.relative_to(run_dir).as_posix() in folders:
            continue
        if has_all(folder, _listed(folder)):
            path.unlink()  # it came into the storage from here
        else:
            shutil.rmtree(folder)
    return folders


def _listed(folder: Path) -> list[StoredFile]:
    return read_manifest((folder / MANIFEST).read_text("utf-8"))


def is_plain(name: str, folders: Collection[str]) -> bool:
    """Whether an object is a file of the driver's, and no part of a folder, be it one that is not whole.

    Args:
        folders: those that are.
    """
    return name[0] != "." and not OF_RANKS.fullmatch(name) and not any(name.startswith(f"{each}/") for each in folders)


def delete_torn(uri: str, names: Collection[str]) -> None:
    """Delete what ranks left of folders that never were whole, or that were being deleted. Nobody may be writing the run."""
    begun = {found[1] for name in names if (found := OF_RANKS.fullmatch(name))}
    for name in begun:
        if f"{name}/{MANIFEST}" not in names:
            delete_folder(inside(uri, name))
