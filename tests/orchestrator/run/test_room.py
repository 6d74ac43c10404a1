"""A full disk: the run waits, says so with path and bytes, and goes on; nothing is written in part or twice."""

import asyncio
import errno
import json
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.config.load import load_recipe
from orchestrator.run import room
from orchestrator.run.files import aside_of, begin_folder, complete, replaced_file, write_file
from orchestrator.run.room import with_room, write_with_room
from orchestrator.run.store import RunStore
from orchestrator.run.threads import told_threads
from rollout.errors import StorageError
from rollout.failures import as_expected
from tests.disks import PAGE, fill, small_disk
from tests.orchestrator.factories import recipe
from tests.orchestrator.stage_context import context_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(room, "LONGEST_PAUSE_S", 0.05)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_records_wait_for_room_whole_and_in_order(tmp_path: Path) -> None:
    with small_disk(tmp_path / "run", 40 * PAGE) as folder:
        store = RunStore(folder, load_recipe("arithmetic"))
        store.record("step", "s", step=1)
        ballast = fill(folder)
        for step in range(2, 500):
            store.record("step", "s", step=step, text="x" * 50)
        assert [line["step"] for line in lines(folder)] == list(range(1, len(lines(folder)) + 1))  # none in part
        assert len(lines(folder)) < 499
        with pytest.raises(OSError, match="No space") as caught:
            store.write_records()
        assert caught.value.filename == str(folder / "metrics.jsonl")
        said: list[str] = []

        async def wait() -> None:
            waiting = asyncio.create_task(write_with_room(store.write_records, said.append))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            ballast.unlink()
            await asyncio.wait_for(waiting, 5)

        asyncio.run(wait())
        assert [line["step"] for line in lines(folder)] == list(range(1, 500))
        assert f"{folder}/metrics.jsonl: No space left on device (" in said[0]
        assert "bytes are free); free some room there" in said[0]
        assert "the run waits for room, for up to 60 min" in said[0]
        assert "there is room again" in said[1]
        assert len(said) == 2


def test_a_step_and_its_rows_wait_for_room(tmp_path: Path) -> None:
    table = pa.table({"completion": [f"{i}" * 100 for i in range(1000)]})
    with small_disk(tmp_path / "run", 60 * PAGE) as folder:
        context = context_of(recipe(), folder)
        ballast = fill(folder)
        file = context.store.trajectory_file("rl", 1)

        def write() -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(file) as aside:
                pq.write_table(table, aside)

        async def step() -> None:
            context.record_step(1, {"reward/mean": 0.5})  # TensorBoard has no room either
            later = threading.Timer(0.2, ballast.unlink)
            later.start()
            await context.written(write)
            await context.room()

        said: list[str] = []
        with told_threads(said.append):
            asyncio.run(asyncio.wait_for(step(), 10))
            context.record_step(2, {"reward/mean": 0.5})
        assert all("No space left on device" in each for each in said)
        assert file.stat().st_size > 0
        assert [line["step"] for line in lines(folder)] == [1, 2]
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        context.close()


def test_half_a_checkpoint_does_not_take_the_room_of_the_next_try(tmp_path: Path) -> None:
    from orchestrator.run.files import abandoned

    with small_disk(tmp_path / "run", 100 * PAGE) as folder:
        path, tries = folder / "step-000001", 0
        ballast = fill(folder, left=30 * PAGE)

        async def save() -> None:
            nonlocal tries
            tries += 1
            if tries == 3:
                ballast.unlink()
            with abandoned(path):
                for name in ("a", "b"):
                    (begin_folder(path) if name == "a" else aside_of(path)).joinpath(name).write_bytes(b"x" * 20 * PAGE)
                complete(path)

        said: list[str] = []
        asyncio.run(asyncio.wait_for(with_room(save, said.append), 10))
        assert (tries, sorted(each.name for each in path.iterdir())) == (3, ["a", "b"])


def test_room_that_does_not_come_ends_the_wait_with_path_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PATIENCE_S", 0.1)
    with small_disk(tmp_path / "run", 20 * PAGE) as folder:
        fill(folder)
        target = folder / "file"
        with pytest.raises(
            StorageError, match=rf"waited 0 s for room: {target}: No space left on device \(0 bytes are"
        ):
            asyncio.run(write_with_room(lambda: write_file(target, b"x" * 100), lambda _: None))
        assert [each.name for each in folder.iterdir()] == ["ballast"]


@pytest.mark.parametrize("kind", ["read-only", "vanished", "file in the way"])
def test_what_no_room_mends_is_raised_at_once(tmp_path: Path, kind: str) -> None:
    def write() -> None:
        write_file(folder / "file", b"x")

    with small_disk(tmp_path / "disk", 20 * PAGE, ",ro" if kind == "read-only" else "") as disk:
        folder = disk if kind == "read-only" else disk / "gone"
        if kind == "file in the way":
            folder.write_bytes(b"")
        began = time.monotonic()
        with pytest.raises(StorageError) as caught:
            asyncio.run(write_with_room(write, lambda _: None))
        assert time.monotonic() - began < 1
    said = {
        "read-only": "can only be read",
        "vanished": "is not there",
        "file in the way": "a part of the path is a file",
    }
    assert said[kind] in str(caught.value)
    assert caught.value.path.startswith(str(folder / "file"))


def test_other_failures_of_the_disk_are_one_line_with_their_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output") as caught, replaced_file(tmp_path / "file"):
        raise OSError(errno.EIO, "Input/output error")
    said = as_expected(caught.value)
    assert str(said) == f"{tmp_path}/file: Input/output error; the disk failed: look at the machine's log (dmesg)"


def test_what_a_librarys_thread_raises_is_a_line_and_a_defect_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", traced.append)
    said: list[str] = []

    def raise_in_a_thread(problem: Exception) -> None:
        def fail() -> None:
            raise problem

        thread = threading.Thread(target=fail, name="writer")
        thread.start()
        thread.join()

    with told_threads(said.append):
        raise_in_a_thread(OSError(errno.ENOSPC, "No space left on device", "/run/events"))
        assert [len(said), len(traced)] == [1, 0]
        raise_in_a_thread(KeyError("a defect"))
    assert said[0].startswith("writer: /run/events: No space left on device")
    assert [type(each.exc_value) for each in traced] == [KeyError]
