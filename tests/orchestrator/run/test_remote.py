"""A run whose files are in a storage: what is there at which moment, and what a host that has lost all of it gets back."""

import asyncio
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.config.load import load_recipe
from orchestrator.config.recipe import Recipe
from orchestrator.display import Display
from orchestrator.run import mirror
from orchestrator.run import remote as remote_run
from orchestrator.run.folder import checkpoints
from orchestrator.run.lease import LeaseLost, leased
from orchestrator.run.lock import run_lock
from orchestrator.run.mirror import Mirror
from orchestrator.run.reading import reading
from orchestrator.run.remote import RunStorage, folder_of_uri, patiently, restored, stored_run
from orchestrator.run.state import read_state, standing, write_state
from orchestrator.run.store import RunStore
from orchestrator.run.stubs import stored_at, whole
from rollout.errors import InputError, ServiceError
from rollout.storage import host, objects
from rollout.storage.folders import MANIFEST, stored_files, written
from rollout.storage.objects import Storage
from rollout.storage.uri import inside

WEIGHTS = b"w" * 5000


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(host.VARIABLE, str(tmp_path / "cache"))
    return f"file://{tmp_path}/storage"


@pytest.fixture
def recipe(place: str) -> Recipe:
    return load_recipe("arithmetic", [f"cluster.storage={place}"])


@contextmanager
def running(recipe: Recipe, folder: Path) -> Iterator[tuple[RunStore, RunStorage]]:
    """A process that holds the run."""
    with run_lock(folder), leased(folder):
        store = RunStore(folder, recipe)
        with stored_run(recipe, folder, Display()) as store.remote:
            assert store.remote is not None
            yield store, store.remote


def save(store: RunStore, step: int, stage: str = "reasoning") -> Path:
    """What two ranks and the driver do for a checkpoint."""
    assert store.remote is not None
    folder, files = store.checkpoint_folder(stage, step), []
    for rank in range(2):
        with written(store.remote.begin(folder)) as (scratch, own):
            (scratch / "learner").mkdir(parents=True)
            (scratch / "learner" / f"shard-{rank}.pt").write_bytes(WEIGHTS)
            if rank == 0:
                (scratch / "state.json").write_text(json.dumps({"step": step}))
        files += own
    store.remote.commit(folder, files)
    return folder


def export(store: RunStore, stage: str) -> Path:
    assert store.remote is not None
    with written(store.remote.begin(store.export_folder(stage))) as (scratch, files):
        scratch.mkdir()
        (scratch / "config.json").write_text("{}")
        (scratch / "model.safetensors").write_bytes(WEIGHTS)
    store.remote.commit(store.export_folder(stage), files)
    store.link_export(stage)
    return store.export_folder(stage)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- What is there


def test_files_of_the_driver_are_copied_as_they_change_and_deleted_with_it(recipe: Recipe, tmp_path: Path) -> None:
    with running(recipe, tmp_path / "run") as (store, remote):
        there = Storage(remote.uri)
        store.record("step", "cold-start", step=1)
        (store.folder / "reasoning").mkdir()
        (store.folder / "reasoning" / "rows").write_text("rows")
        (store.folder / "left.12.part").write_text("half")
        remote.mirror.flush()
        assert set(there.list()) == {"lease.json", "metrics.jsonl", "recipe.toml", "reasoning/rows", "storage.json"}
        (store.folder / "reasoning" / "rows").unlink()
        store.record("step", "cold-start", step=2)
        remote.mirror.flush()
        assert there.read("metrics.jsonl") == (store.folder / "metrics.jsonl").read_bytes()
        assert "reasoning/rows" not in there.list()
        store.record("step", "cold-start", step=3)
    assert b'"step": 3' in there.read("metrics.jsonl"), "the end of a run sends the rest"


def test_the_mirror_copies_by_itself_and_in_the_order_of_the_changes(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "ROUND_S", 0.05)
    put, order, run = Storage.put_file, [], tmp_path / "run"
    monkeypatch.setattr(Storage, "put_file", lambda self, name, file: order.append(name) or put(self, name, file))
    run.mkdir()
    for age, name in enumerate(("c", "a", "b")):
        (run / name).write_text(name)
        os.utime(run / name, (1000 + age, 1000 + age))
    own = Mirror(run, Storage(place), pytest.fail)
    wait_for(lambda: set(Storage(place).list()) == {"a", "b", "c"})
    own.close(soon=False)
    assert order == ["c", "a", "b"]


def test_a_storage_that_is_away_is_told_once_and_gets_all_later(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "ROUND_S", 0.02)
    storage, told, away = Storage(place), [], [True]
    put = Storage.put_file

    def flaky(self: Storage, name: str, file: Path) -> object:
        if away[0]:
            raise ServiceError("storage x: away")
        return put(self, name, file)

    monkeypatch.setattr(Storage, "put_file", flaky)
    own = Mirror(tmp_path, storage, told.append)
    (tmp_path / "metrics.jsonl").write_text("1")
    wait_for(lambda: bool(told))
    time.sleep(0.2)
    assert len(told) == 1
    away[0] = False
    wait_for(lambda: len(told) == 2)
    assert "is back" in told[1]
    assert storage.read("metrics.jsonl") == b"1"
    away[0] = True
    (tmp_path / "metrics.jsonl").write_text("12")
    with pytest.raises(ServiceError, match="away"):
        own.close(soon=True)


def test_a_run_that_is_stopped_does_not_wait_for_a_storage_that_is_away(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_run, "HURRY_S", 0.0)
    monkeypatch.setattr(objects, "_hurry", [float("inf")])
    storage, tries = Storage(place), []

    def away() -> None:
        tries.append(1)
        raise OSError("NETWORK_CONNECTION")

    async def stopped() -> None:
        waiting = asyncio.create_task(patiently(storage._again, "x", away))
        while not tries:
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    began = time.monotonic()
    asyncio.run(stopped())  # waits for its threads
    assert time.monotonic() - began < 10


def wait_for(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not there():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_checkpoint_is_in_the_storage_and_all_but_its_weights_here(recipe: Recipe, tmp_path: Path) -> None:
    with running(recipe, tmp_path / "run") as (store, remote):
        store.record("step", "reasoning", step=5)
        folder = save(store, 5)
        assert names(folder) == {"state.json", MANIFEST}
        assert checkpoints(store.folder, "reasoning") == {5: folder}
        assert b'"step": 5' in Storage(remote.uri).read("metrics.jsonl"), "what came before it is there before it"
        assert names(whole(folder)) == {"state.json", "learner/shard-0.pt", "learner/shard-1.pt"}
        assert remote.shared(folder) == stored_at(folder) == inside(remote.uri, "reasoning/checkpoints/step-000005")
        for step in (6, 7):
            save(store, step)
        store.keep_checkpoints("reasoning", newest=1, best=6)
        left = {name.split("/")[2] for name in Storage(remote.uri).list() if "/checkpoints/" in name}
        assert left == {"step-000006", "step-000007"} == {path.name for path in store.checkpoints("reasoning")}


def test_a_folder_of_the_driver_is_sent_when_another_host_wants_it(recipe: Recipe, tmp_path: Path) -> None:
    with running(recipe, tmp_path / "run") as (store, remote):
        tokenizer = store.folder / "reasoning" / "tokenizer"
        tokenizer.mkdir(parents=True)
        (tokenizer / "tokenizer.json").write_text("{}")
        uri = store.shared(tokenizer)
        assert [file.name for file in stored_files(uri)] == ["tokenizer.json"]
        assert stored_at(tokenizer) == uri == remote.begin(tokenizer)


# --- Gone from here


def test_a_run_that_is_gone_from_the_disk_comes_back_whole(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(recipe, folder) as (store, remote):
        store.record("step", "reasoning", step=5)
        save(store, 5)
        export(store, "cold-start")
        (folder / "trajectories").mkdir()
        (folder / "trajectories" / "step-1").write_bytes(b"rows")
    before, uri = {name: (folder / name).read_bytes() for name in names(folder) - {"lock"}}, remote.uri
    shutil.rmtree(folder)
    assert restored(recipe, folder)
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert os.readlink(folder / "export") == "cold-start/export"
    assert not restored(recipe, folder), "what is there is not fetched again"
    listed = Storage(uri).list()
    with running(recipe, folder) as (store, _):
        assert [path.name for path in store.checkpoints("reasoning")] == ["step-000005"]
    assert Storage(uri).list()["trajectories/step-1"] == listed["trajectories/step-1"], "nor sent again"


def test_a_run_is_continued_by_its_uri_on_another_host(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(recipe, tmp_path / "run") as (store, remote):
        save(store, 5)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for _ in range(2):
        folder, setting = folder_of_uri(remote.uri, "")
        assert (str(folder), setting) == ("runs/run", f'cluster.storage="{recipe.cluster.storage}"')
    with running(recipe, folder.absolute()) as (store, again):
        assert again.uri == remote.uri
    with pytest.raises(InputError, match="holds no run"):
        folder_of_uri(inside(recipe.cluster.storage, "else"), "")
    RunStore(Path("runs/mine"), recipe)
    with pytest.raises(InputError, match="another run"):
        folder_of_uri(remote.uri, "runs/mine")


def test_a_crash_between_the_files_and_the_manifest_leaves_no_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(recipe, folder) as (store, remote):
        save(store, 5)
        with written(remote.begin(store.checkpoint_folder("reasoning", 6))) as (scratch, _):
            scratch.mkdir()
            (scratch / "shard.pt").write_bytes(WEIGHTS)
    shutil.rmtree(folder)
    restored(recipe, folder)
    with running(recipe, folder) as (store, remote):
        assert list(checkpoints(folder, "reasoning")) == [5]
        assert not any("step-000006" in name for name in Storage(remote.uri).list())


@pytest.mark.parametrize("here", [True, False])
def test_a_crash_between_two_steps_of_a_deletion_is_mended(recipe: Recipe, tmp_path: Path, here: bool) -> None:
    folder = tmp_path / "run"
    with running(recipe, folder) as (store, remote):
        old, _ = save(store, 5), save(store, 6)
        Storage(remote.begin(old)).delete(MANIFEST)
        if not here:
            shutil.rmtree(old)
    with running(recipe, folder) as (store, remote):
        assert list(checkpoints(folder, "reasoning")) == [6]
        assert not any("step-000005" in name for name in Storage(remote.uri).list())


def test_a_checkpoint_that_only_the_storage_has_is_found(recipe: Recipe, tmp_path: Path) -> None:
    """The driver's host died after the manifest was written and before its own folder was."""
    folder = tmp_path / "run"
    with running(recipe, folder) as (store, _):
        save(store, 5)
        shutil.rmtree(save(store, 6))
    with running(recipe, folder) as (store, _):
        assert list(checkpoints(folder, "reasoning")) == [5, 6]


def test_a_run_that_began_without_a_storage_goes_there_with_its_checkpoints(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    store = RunStore(folder, recipe)
    old = store.checkpoint_folder("cold-start", 3)
    old.mkdir(parents=True)
    (old / "shard.pt").write_bytes(WEIGHTS)
    with running(recipe, folder) as (store, remote):
        assert [file.name for file in stored_files(remote.begin(old))] == ["shard.pt"]
    assert whole(old) == old, "it is whole here too"


# --- Mistakes


def test_two_runs_of_one_name_do_not_mix(recipe: Recipe, tmp_path: Path) -> None:
    with running(recipe, tmp_path / "run"):
        pass
    other = tmp_path / "elsewhere" / "run"
    with pytest.raises(InputError, match="holds another run than"), running(recipe, other):
        pass


def test_a_run_says_where_its_files_are_when_it_is_continued_without_its_storage(
    recipe: Recipe, tmp_path: Path, place: str
) -> None:
    folder = tmp_path / "run"
    with running(recipe, folder) as (store, _):
        save(store, 5)
    for uri, says in (("", "continue it with cluster.storage="), (f"{place}-else", "continue it with that")):
        other = recipe.model_copy(update={"cluster": recipe.cluster.model_copy(update={"storage": uri})})
        with pytest.raises(InputError, match=says), stored_run(other, folder, Display()):
            pass
    shutil.rmtree(tmp_path / "storage")
    with pytest.raises(InputError, match="no longer holds the run"), running(recipe, folder):
        pass


def test_a_run_that_another_host_writes_is_neither_restored_nor_continued(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    said = {"state": "running", "host": "another", "pid": 1, "time": time.time()}
    with running(recipe, folder):
        write_state(folder, said)
    with pytest.raises(InputError, match="written by process 1 on another"):
        restored(recipe, tmp_path / "else" / "run")
    with pytest.raises(InputError, match="written by process 1 on another"), running(recipe, folder):
        pass
    write_state(folder, {**said, "time": time.time() - 600})
    Storage(inside(recipe.cluster.storage, "run")).put_file("state.json", folder / "state.json")
    assert restored(recipe, tmp_path / "else" / "run")


def test_a_run_that_was_continued_elsewhere_is_not_written_over_from_an_older_folder(
    recipe: Recipe, tmp_path: Path
) -> None:
    old, new = tmp_path / "old" / "run", tmp_path / "new" / "run"
    with running(recipe, old):
        pass
    assert restored(recipe, new)
    with running(recipe, new) as (store, remote):
        store.record("step", "reasoning", step=9)
    for _ in range(2):
        with pytest.raises(InputError, match=r"was continued on .* since; move this folder away"):
            restored(recipe, old)
    shutil.rmtree(old)
    assert restored(recipe, old)
    assert b'"step": 9' in (old / "metrics.jsonl").read_bytes()
    assert not restored(recipe, old)
    assert b'"step": 9' in Storage(remote.uri).read("metrics.jsonl")


def test_a_process_that_wakes_up_after_another_host_took_over_writes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    frozen, other = tmp_path / "frozen" / "run", tmp_path / "other" / "run"
    uri = inside(recipe.cluster.storage, "run")

    def go_on() -> None:
        with running(recipe, frozen) as (store, remote):
            remote.mirror.flush()
            assert restored(recipe, other)
            with running(recipe, other) as (taken, _):
                taken.record("step", "reasoning", step=9)
            (store.folder / "late").write_text("late")
            remote.mirror.flush()

    with pytest.raises(LeaseLost, match="taken over"):
        go_on()
    assert "late" not in Storage(uri).list()
    assert b'"step": 9' in Storage(uri).read("metrics.jsonl")


def test_a_storage_that_cannot_be_written_is_told_before_anything_starts(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "storage").write_text("a file")
    with pytest.raises(InputError, match=r"cluster\.storage = 'file:") as told:
        restored(recipe, tmp_path / "run")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("cluster.storage=s3://AKIA:hush@b/p", "holds a secret"),
        ("cluster.storage=bucket", "is no URI of a storage"),
        ("cluster.storage_cache=here", "absolute path"),
        ("cluster.env.AWS_SECRET_ACCESS_KEY=hush", "rayzero submit --env AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_settings_that_cannot_be_meant(setting: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as told:
        load_recipe("arithmetic", [setting])
    assert "hush" not in str(told.value)


# --- Reading


def test_a_command_reads_a_run_by_its_uri_as_it_stands(recipe: Recipe, tmp_path: Path) -> None:
    with running(recipe, tmp_path / "run") as (store, remote):
        store.record("step", "reasoning", step=5)
        save(store, 5)
        export(store, "cold-start")
        (store.folder / "trajectories").mkdir()
        (store.folder / "trajectories" / "step-1").write_bytes(b"rows")
        remote.mirror.flush()
        with reading(remote.uri) as (folder, copy):
            assert copy is not None
            assert names(folder) == {"recipe.toml", "metrics.jsonl", "lease.json", ".copy"}
            store.record("step", "reasoning", step=6)
            remote.mirror.flush()
            copy._next = 0.0
            copy.refresh(samples=True, models=True)
            assert b'"step": 6' in (folder / "metrics.jsonl").read_bytes()
            assert {"trajectories/step-1", "cold-start/export/config.json"} < names(folder)
            assert (whole(folder / "cold-start" / "export") / "model.safetensors").read_bytes() == WEIGHTS
        write_state(store.folder, {"state": "running", "host": socket.gethostname(), "pid": 1, "time": time.time()})
        remote.mirror.flush()
        with reading(remote.uri) as (folder, _):
            said = read_state(folder)
            assert standing(folder, said, finished=False, begun=True)[0] == "running", "its lock is not here"
    with reading(f"{remote.uri}/reasoning@5", models=True) as (path, _):
        assert path.parent.name == "run"
        assert path.name == "reasoning@5"
    with pytest.raises(InputError, match="is no run, and in none"), reading(f"{recipe.cluster.storage}/none"):
        pass
    with reading("runs/x") as (path, copy):
        assert (path, copy) == (Path("runs/x"), None)
