"""Weights in shared memory: exactly the parameters, private, checked, gone when they should be."""

import os
import stat
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from learner.publish import buckets as bucket_module
from learner.publish import shared_memory as publish
from learner.publish.shared_memory import SharedMemoryPublisher
from rollout.weights import manifest as weights
from rollout.weights.manifest import Bucket, segment_folder


@pytest.fixture(autouse=True)
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "SHARED_MEMORY", tmp_path)
    return tmp_path


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3, bias=False), nn.Embedding(11, 7))
    net[1].weight = nn.Parameter(torch.randn(7, 3).T)  # not contiguous
    return net


def read_back(buckets: tuple[Bucket, ...]) -> dict[str, torch.Tensor]:
    """What an engine makes of the files, by their metas alone."""
    tensors = {}
    for bucket in buckets:
        data = Path(bucket.path).read_bytes()
        assert len(data) == bucket.num_bytes
        assert zlib.crc32(data) == bucket.checksum
        begin = 0
        for meta in bucket.tensors:
            dtype = getattr(torch, meta.dtype)
            size = torch.Size(meta.shape).numel() * dtype.itemsize
            piece = torch.frombuffer(bytearray(data[begin : begin + size]), dtype=dtype)
            tensors[meta.name] = piece.view(meta.shape)
            begin += size
        assert begin == len(data)
    return tensors


@pytest.mark.parametrize(("limit", "buckets"), [(1 << 20, 1), (4 * (35 + 7), 3), (1, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_buckets_reproduce_the_parameters(limit: int, buckets: int, dtype: torch.dtype) -> None:
    net = model()
    manifest = SharedMemoryPublisher(0, limit, dtype).stage(net, version=3, sharded=False)
    assert manifest is not None
    assert (manifest.version, manifest.backend) == (3, "shm")
    assert len(manifest.buckets) == buckets
    received = read_back(manifest.buckets)
    assert list(received) == [name for name, _ in net.named_parameters()]
    for name, parameter in net.named_parameters():
        assert received[name].dtype == dtype
        assert torch.equal(received[name], parameter.detach().to(dtype))
    count = sum(parameter.numel() for parameter in net.parameters())
    assert manifest.num_bytes == count * dtype.itemsize


def test_tied_parameters_travel_once() -> None:
    net = nn.ModuleDict({"embed": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    net["head"].weight = net["embed"].weight
    manifest = SharedMemoryPublisher(0, 1 << 20, torch.float32).stage(net, 0, False)
    assert manifest is not None
    assert [meta.name for meta in manifest.buckets[0].tensors] == ["embed.weight"]


def test_files_are_private() -> None:
    publisher = SharedMemoryPublisher(0, 64, torch.float32)
    manifest = publisher.stage(model(), 0, False)
    assert manifest is not None
    assert {stat.S_IMODE(os.stat(bucket.path).st_mode) for bucket in manifest.buckets} == {0o600}
    assert publisher.folder is not None
    assert stat.S_IMODE(publisher.folder.stat().st_mode) == 0o700


def test_release_removes_the_files_and_close_the_folder(shared_memory: Path) -> None:
    publisher = SharedMemoryPublisher(0, 64, torch.float32)
    first, second = publisher.stage(model(), 0, False), publisher.stage(model(), 1, False)
    assert first is not None
    assert second is not None
    publisher.release(first)
    publisher.release(first)  # once more does no harm
    assert not any(Path(bucket.path).exists() for bucket in first.buckets)
    assert all(Path(bucket.path).exists() for bucket in second.buckets)
    publisher.close()
    assert list(shared_memory.iterdir()) == []
    publisher.close()


def test_a_bucket_is_written_while_the_next_is_gathered_and_no_third_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in bytes held: of the gathered parameters, and of the copies that go into the files."""
    net = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(9)).to(torch.float32)
    size, limit = 4 * 16 * 16, 2 * 4 * 16 * 16
    held: set[int] = set()
    peak, gathered = 0, threading.Semaphore(0)

    @contextmanager
    def gather(parameters: list[nn.Parameter], sharded: bool) -> Iterator[None]:
        """As ZeRO-3 does it: the parameters exist inside the block."""
        nonlocal peak
        assert sharded
        held.update(map(id, parameters))
        peak = max(peak, len(held) * size)
        if len(held) * size > limit:  # a second bucket, beside the one that is being written
            gathered.release()
        yield
        held.difference_update(map(id, parameters))

    def write(path: Path, arrays: Iterator, metas: tuple) -> Bucket:
        nonlocal peak
        last = len(metas) == 1  # nothing is left to gather
        assert last or gathered.acquire(timeout=10), "the next bucket is not gathered meanwhile"
        for array in arrays:
            peak = max(peak, len(held) * size + (array.nbytes if dtype != torch.float32 else 0))
        return original(path, [], metas)

    original = publish.write_bucket
    monkeypatch.setattr(bucket_module, "gather", gather)
    monkeypatch.setattr(publish, "write_bucket", write)
    for dtype, most in ((torch.float32, 2 * limit), (torch.bfloat16, 2 * limit + size // 2)):
        peak, gathered = 0, threading.Semaphore(0)
        manifest = SharedMemoryPublisher(0, limit, dtype).stage(net, 0, sharded=True)
        assert manifest is not None
        assert [len(bucket.tensors) for bucket in manifest.buckets] == [2, 2, 2, 2, 1]
        assert limit < peak <= most
        assert not held


def test_only_rank_0_writes(shared_memory: Path) -> None:
    publisher = SharedMemoryPublisher(1, 64, torch.float32)
    assert publisher.stage(model(), 0, False) is None
    publisher.close()
    assert list(shared_memory.iterdir()) == []


def test_the_sweep_takes_folders_of_dead_processes_only(shared_memory: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ended_folder, running_folder = shared_memory / f"rayzero-{ended.pid}", shared_memory / f"rayzero-{os.getppid()}"
    strangers = [shared_memory / "rayzero-notes", shared_memory / "other-1"]
    for folder in (ended_folder, running_folder, *strangers):
        folder.mkdir()
        (folder / "0-0").write_bytes(b"x")
    mine = segment_folder()
    assert mine == shared_memory / f"rayzero-{os.getpid()}"
    assert not ended_folder.exists()
    assert all((folder / "0-0").exists() for folder in (running_folder, *strangers))
    assert segment_folder() == mine


def test_a_dead_folder_that_cannot_be_removed_does_not_stop_the_run(shared_memory: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (shared_memory / f"rayzero-{ended.pid}" / "foreign").mkdir(parents=True)
    assert segment_folder().is_dir()
