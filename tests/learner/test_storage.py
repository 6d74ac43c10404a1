"""A full disk under a learner: said with path and bytes before anything is written, and the rank goes on."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from learner import rank as rank_module
from learner import storage
from learner.model.small import build_model
from learner.rank import LearnerRank
from learner.storage import check_room, storing
from rollout.weights import manifest
from tests.disks import PAGE, fill, small_disk
from tests.learner.specs import build_spec, learner_spec
from tests.learner.test_rank import policy_batch

CPU = torch.device("cpu")


def test_too_little_room_is_told_with_the_bytes_that_are_missing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 10 * PAGE) as disk:
        check_room(disk / "not" / "there", 5 * PAGE, 1, CPU)
        check_room(disk, 0, 1, CPU)
        with pytest.raises(OSError, match=rf"{100 * PAGE - 10 * PAGE:,} bytes more than are free") as caught:
            check_room(disk / "not" / "there", 100 * PAGE, 1, CPU)
        assert caught.value.filename == str(disk / "not" / "there")


def test_whatever_fails_on_a_full_disk_is_said_to_and_other_failures_are_not(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 10 * PAGE) as disk:
        with pytest.raises(RuntimeError, match="unexpected"), storing(tmp_path):
            raise RuntimeError("unexpected")
        with pytest.raises(KeyError), storing(Path("/")):
            raise KeyError
        fill(disk)
        with pytest.raises(OSError, match="No space left on device") as caught, storing(disk):
            torch.save({"x": torch.zeros(100_000)}, disk / "file.pt")  # not always an OSError of itself
        assert caught.value.filename in (str(disk), str(disk / "file.pt"))


TWO = """
import sys
from pathlib import Path
import torch
from learner.storage import check_room
rank, store, folder, needed = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
try:
    check_room(folder, needed, 2, torch.device("cpu"))
    print("room")
except OSError as problem:
    print(problem.errno, problem.strerror)
"""


def test_all_ranks_hear_that_one_of_them_has_too_little_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 10 * PAGE) as disk:
        for needed, expected in ((0, "room"), (30 * PAGE, f"28 No space left on device: {20 * PAGE:,} bytes more")):
            ranks = [
                subprocess.Popen(
                    [sys.executable, "-c", TWO, str(rank), str(tmp_path / f"store-{needed}"), str(disk), str(share)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for rank, share in enumerate((needed, 0))  # the second writes nothing
            ]
            said = [rank.communicate(timeout=60)[0] for rank in ranks]
            assert all(each.startswith(expected) for each in said), said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(), iter(()), path)
    return str(path)


@pytest.mark.engine
@pytest.mark.parametrize("early", [True, False], ids=["told before", "in the middle"])
def test_a_checkpoint_without_room_leaves_the_rank_whole(
    rank: LearnerRank, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    if not early:
        monkeypatch.setattr(rank_module, "check_room", lambda *_: None)
    rank.open(learner_spec(folder, zero_stage=0))
    rank.train(policy_batch(0), "grpo")
    size = rank.model.checkpoint_bytes
    with small_disk(tmp_path / "disk", 2 * size + 100 * PAGE) as disk:
        ballast = fill(disk, left=size // 2)
        with pytest.raises(OSError, match="No space left on device") as caught:
            rank.save(str(disk / "checkpoint"), {"step": 1})
        assert str(disk) in str(caught.value.filename)
        assert (disk / "checkpoint").exists() is not early
        ballast.unlink()
        rank.save(str(disk / "checkpoint"), {"step": 1})
        written = sum(path.stat().st_size for path in (disk / "checkpoint").rglob("*") if path.is_file())
        assert 0.9 * size < written < 1.3 * size + 100 * PAGE  # what is asked for is about what is taken
        rank.train(policy_batch(1), "grpo")
        rank.load(str(disk / "checkpoint"))


@pytest.mark.engine
@pytest.mark.parametrize("early", [True, False], ids=["told before", "in the middle"])
def test_weights_without_room_in_shared_memory_leave_the_rank_whole_and_nothing_behind(
    rank: LearnerRank, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    rank.open(learner_spec(folder))
    size = rank.model.num_parameters * 4
    publisher: Any = rank.publisher._base
    with small_disk(tmp_path / "shm", 2 * size + 20 * PAGE) as disk:
        monkeypatch.setattr(rank_module, "SHARED_MEMORY", disk)
        monkeypatch.setattr(manifest, "SHARED_MEMORY", disk)
        monkeypatch.setattr(publisher, "folder", disk)
        if not early:
            monkeypatch.setattr(rank_module, "check_room", lambda *_: None)
        ballast = fill(disk, left=size // 2)
        with pytest.raises(OSError, match="No space left on device") as caught:
            rank.stage_weights(7)
        assert caught.value.filename == str(disk)
        assert [path.name for path in disk.iterdir()] == ["ballast"]
        ballast.unlink()
        staged = rank.stage_weights(7)
        assert staged is not None
        assert staged.num_bytes > 0.5 * size
        rank.release_weights(staged)


def test_no_bound_where_a_file_system_does_not_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: type("Usage", (), {"total": 0, "free": 0})())
    check_room(tmp_path, 1 << 50, 1, CPU)
