"""A run whose files are in a storage (`cluster.storage`), which all hosts reach and none has to share a folder for.

    RUN                     on the storage
    what the driver writes  a copy, some seconds old at most              (mirror.py)
    checkpoints, exports    written by the ranks; here without weights    (stubs.py)
    storage.json            which run it is: {"id": …}; here also "uri"

The run's folder on the driver's disk may be gone: `restore` brings it back. One process writes a run; beside the lock of
the folder, state.json on the storage tells that another host's does.
"""

import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from orchestrator.config.load import STORED
from orchestrator.config.recipe import Recipe
from orchestrator.config.stage_kinds import kind_of
from orchestrator.display import Display
from orchestrator.run.files import move_link, new_folder, remove_folder, write_file
from orchestrator.run.folder import checkpoints, stored_recipe
from orchestrator.run.lease import LEASE, is_newer, read_lease
from orchestrator.run.mirror import HURRY_S, IDENTITY, Mirror
from orchestrator.run.state import SILENT_S, STATE
from orchestrator.run.stubs import delete_torn, is_plain, make_stub, stored_at, take_stubs
from rollout.errors import InputError, ServiceError
from rollout.storage.folders import MANIFEST, commit, put_files
from rollout.storage.objects import Storage, StoredFile, hurry
from rollout.storage.uri import check_uri, inside, is_uri, shown, split

P = ParamSpec("P")
T = TypeVar("T")

KEY = "cluster.storage"


class RunStorage:
    """The storage of one run, from the side of the process that writes the run."""

    def __init__(self, uri: str, run_dir: Path, display: Display) -> None:
        """Let the folder and the storage agree, and begin to copy. Raises ServiceError when the storage is away."""
        self.uri, self._run_dir = uri, run_dir
        storage = Storage(uri)
        names = storage.list()
        delete_torn(uri, names)
        take_stubs(uri, run_dir, names)
        for folder in _folders_of_ranks(run_dir):
            if not stored_at(folder):
                self._put(folder)
        self.mirror = Mirror(run_dir, storage, display.warn)

    def begin(self, folder: Path) -> str:
        """Where ranks on any host write a folder of the run."""
        return inside(self.uri, folder.relative_to(self._run_dir).as_posix())

    def commit(self, folder: Path, files: Sequence[StoredFile]) -> None:
        """Let a folder be there, whose files the ranks have put into the storage; the driver's files of before come there first."""
        self.mirror.flush()
        place = self.begin(folder)
        make_stub(folder, place, commit(place, files))

    def shared(self, folder: Path) -> str:
        """URI by which actors on any host read a folder of the run; one that is only here is sent first."""
        return stored_at(folder) or self._put(folder)

    def remove(self, folder: Path) -> None:
        """Delete a folder, there and here."""
        storage = Storage(self.begin(folder))
        storage.delete(MANIFEST)
        remove_folder(folder)
        storage.delete_all()

    def _put(self, folder: Path) -> str:
        place = self.begin(folder)
        make_stub(folder, place, commit(place, put_files(place, folder)))
        return place


async def patiently(act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `act` returns, in a thread: it waits for a storage. A run that is stopped does not wait so long."""
    try:
        return await asyncio.to_thread(act, *args, **kwargs)
    except asyncio.CancelledError:
        hurry(HURRY_S)
        raise


@contextmanager
def stored_run(recipe: Recipe, run_dir: Path, display: Display) -> Iterator[RunStorage | None]:
    """The storage of a run whose lock this process holds; None without `cluster.storage`. At the end of the block the rest is sent.

    Raises:
        InputError: the storage holds another run, or no longer this one, or the run's files are in another storage.
        ServiceError: the storage is away, at the end too: then not all of it came there.
    """
    uri = storage_of(recipe, run_dir)
    if not uri:
        yield None
        return
    hurry(inf)
    check_unwritten(Storage(uri))
    _identify(uri, run_dir)
    remote = RunStorage(uri, run_dir, display)
    try:
        yield remote
    except BaseException:
        try:
            remote.mirror.close(soon=True)
        except ServiceError as problem:
            display.warn(f"{problem}; `rayzero train {run_dir}` sends the rest")
        raise
    remote.mirror.close(soon=False)


def storage_of(recipe: Recipe, run_dir: Path) -> str:
    """URI of a run; empty: it is in its folder alone.

    Raises:
        InputError: the run in the folder is in another storage than the recipe says.
    """
    known = _identity(run_dir)
    above, name = split(known["uri"]) if known else ("", run_dir.resolve().name)
    if not recipe.cluster.storage:
        if known:
            raise InputError(f"{run_dir}: the run is in a storage; continue it with {KEY}={above}")
        return ""
    # Options, such as the address of a server, may be others today.
    if known and shown(above).rstrip("/") != shown(recipe.cluster.storage).rstrip("/"):
        raise InputError(
            f"{KEY} = {recipe.cluster.storage!r}: the run in {run_dir} is in {shown(above)}; continue it with that"
        )
    return inside(recipe.cluster.storage, name)


def probe_storage(recipe: Recipe) -> None:
    """Raises InputError in a line where this process cannot use the storage of a recipe."""
    probe(recipe.cluster.storage, f"{KEY} = {recipe.cluster.storage!r}")


def probe(uri: str, named: str) -> None:
    """Raises InputError in a line unless this process may write, read and delete in a storage.

    Args:
        named: key and value, or argument, at the start of the message.
    """
    try:
        check_uri(uri)
    except InputError as problem:
        # A secret must not be shown either.
        raise InputError(f"{named.partition(' = ')[0]}: {problem}") from None
    try:
        Storage(uri).probe()
    except InputError as problem:
        raise InputError(f"{named}: {problem}") from None


def restore(uri: str, run_dir: Path) -> bool:
    """Bring back a run's folder from the storage, whole or not at all; returns whether there is such a run.

    Raises:
        InputError: another process writes the run, or something stands in the folder's place.
        ServiceError: the storage is away.
    """
    storage = Storage(uri)
    there = storage.list()
    if STORED not in there or IDENTITY not in there:
        return False
    check_unwritten(storage)
    with new_folder(run_dir.absolute()) as aside:
        stubs = take_stubs(uri, aside, there)
        for name, (_, changed) in there.items():
            if is_plain(name, stubs) and name != IDENTITY:
                storage.get_file(name, aside / name)
                os.utime(aside / name, (changed, changed))
        _link_newest(aside)
        _write_identity(aside, uri, json.loads(storage.read(IDENTITY))["id"])
    return True


def restored(recipe: Recipe, run_dir: Path) -> bool:
    """Whether a run that is gone from this disk was brought back from its recipe's storage. Raises InputError where the storage
    cannot be used, and as `restore` does."""
    if not recipe.cluster.storage:
        return False
    probe_storage(recipe)
    _check_newest(recipe, run_dir)
    if (run_dir / STORED).is_file():
        return False
    return restore(inside(recipe.cluster.storage, run_dir.resolve().name), run_dir)


def folder_of_uri(uri: str, run_dir: str) -> tuple[Path, str]:
    """(folder of the run that a URI names, brought here if need be; the setting that says where its storage is).

    Args:
        run_dir: folder to bring it to; empty: `runs/<its name>`.

    Raises:
        InputError: there is no such run, or another one in the folder.
    """
    check_uri(uri)
    above, name = split(uri)
    folder = Path(run_dir) if run_dir else Path("runs") / name
    known = _identity(folder)
    if known and shown(known["uri"]) != shown(uri):
        raise InputError(f"{folder}: holds another run, of {shown(known['uri'])}; name another folder with --run DIR")
    if not (folder / STORED).is_file():
        probe(above, uri)
        if not restore(uri, folder):
            raise InputError(f"{shown(uri)}: holds no run (no {STORED} in it)")
    elif not known:
        raise InputError(f"{folder}: holds another run, of no storage; name another folder with --run DIR")
    return folder, f"{KEY}={json.dumps(above)}"


def check_unwritten(storage: Storage) -> None:
    """Raises InputError when another process has just said that it writes the run of a storage."""
    try:
        state: dict[str, Any] = json.loads(storage.read(STATE))
    except (FileNotFoundError, ValueError):
        return
    host, pid, age = state.get("host"), state.get("pid"), time.time() - float(state.get("time") or 0)
    if state.get("state") != "running" or age > 2 * SILENT_S:
        return
    if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
        return
    raise InputError(
        f"{storage}: is being written by process {pid} on {host}, which said so {age:.0f} s ago; stop it there, or wait a minute if it is gone"
    )


def _check_newest(recipe: Recipe, run_dir: Path) -> None:
    """Raises InputError when the run of a folder was continued elsewhere since: what is here would be written over what is newer."""
    uri, lease = storage_of(recipe, run_dir), read_lease(run_dir)
    if not _identity(run_dir) or lease is None:
        return
    with suppress(FileNotFoundError):
        if is_newer(there := Storage(uri).read(LEASE), lease):
            raise InputError(
                f"{run_dir}: the run was continued on {json.loads(there)['host']} since; move this folder away, and the same command "
                f"brings back what is newer from {shown(uri)}"
            )


def _identify(uri: str, run_dir: Path) -> None:
    """Make sure that folder and storage are of the same run; a new run gets its name there."""
    known, storage = _identity(run_dir), Storage(uri)
    try:
        there = json.loads(storage.read(IDENTITY))["id"]
    except FileNotFoundError:
        there = ""
    if known and there == known["id"]:
        _write_identity(run_dir, uri, there)
        return
    if there:
        raise InputError(
            f"{storage}: holds another run than {run_dir}; continue that one with `rayzero train {shown(uri)}`, or name another "
            "folder with --run DIR"
        )
    if any(stored_at(path.parent) for path in run_dir.rglob(MANIFEST)):
        raise InputError(
            f"{storage}: no longer holds the run, whose checkpoints are there; bring them back, or start another"
        )
    name = secrets.token_hex(8)
    _write_identity(run_dir, uri, name)
    storage.write(IDENTITY, json.dumps({"id": name}).encode())


def _identity(run_dir: Path) -> dict[str, str]:
    """`id` and `uri` of the run in a folder; empty: it is in no storage."""
    with suppress(OSError, ValueError):
        found = json.loads((run_dir / IDENTITY).read_text("utf-8"))
        if isinstance(found, dict) and is_uri(str(found.get("uri"))):
            return found
    return {}


def _write_identity(run_dir: Path, uri: str, name: str) -> None:
    write_file(run_dir / IDENTITY, json.dumps({"id": name, "uri": uri}).encode())


def _folders_of_ranks(run_dir: Path) -> Iterator[Path]:
    """Checkpoints, exports and built models of a run."""
    recipe = stored_recipe(run_dir)
    for stage in recipe.stages if recipe else ():
        yield from checkpoints(run_dir, stage.name).values()
        yield from (folder for folder in [run_dir / stage.name / "export"] if folder.is_dir())
    yield from (folder for folder in sorted(run_dir.glob("base*")) if (folder / "config.json").is_file())


def _link_newest(run_dir: Path) -> None:
    """Point `export` at the model that the run had come to."""
    recipe = stored_recipe(run_dir)
    stages = recipe.stages if recipe else ()
    there = [stage for stage in stages if (run_dir / stage.name / "export").is_dir()]
    policies = [stage for stage in there if kind_of(stage).leaves == "policy"] or there
    if policies:
        move_link(run_dir / "export", Path(policies[-1].name) / "export")
