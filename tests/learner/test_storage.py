"""A full disk under a learner: said with path and bytes before anything is written, and the rank goes on."""

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
