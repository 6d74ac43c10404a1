"""Buckets on disk and on the way to another host."""

import os
import stat
import zlib
from pathlib import Path

import numpy as np
import pytest

from rollout.weights import manifest as weights
from rollout.weights.manifest import TensorMeta, WeightManifest, checksum, localize, remove_segments, write_bucket

METAS = (TensorMeta(name="a", dtype="uint8", shape=(3,)), TensorMeta(name="b", dtype="uint8", shape=(2,)))


@pytest.fixture(autouse=True)
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(weights, "SHARED_MEMORY", folder)
    return folder


def test_a_bucket_is_its_arrays_end_to_end(tmp_path: Path) -> None:
    arrays = [np.array([1, 2, 3], np.uint8), np.array([4, 5], np.uint8)]
    bucket = write_bucket(tmp_path / "0-0", arrays, METAS)
    data = Path(bucket.path).read_bytes()
    assert data == bytes([1, 2, 3, 4, 5])
    assert (bucket.num_bytes, bucket.checksum, bucket.tensors) == (5, zlib.crc32(data), METAS)
    assert checksum(data) == bucket.checksum
    assert stat.S_IMODE(os.stat(bucket.path).st_mode) == 0o600


def test_a_bucket_replaces_a_longer_file_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "0-0").write_bytes(b"x" * 100)
    bucket = write_bucket(tmp_path / "0-0", [np.array([1], np.uint8)], METAS[:1])
    assert Path(bucket.path).read_bytes() == b"\x01"


def manifest(tmp_path: Path) -> WeightManifest:
    buckets = tuple(write_bucket(tmp_path / f"7-{i}", [np.full(5, i, np.uint8)], METAS) for i in range(2))
    return WeightManifest(version=7, backend="shm", num_bytes=10, buckets=buckets)


def test_a_local_copy_has_the_same_bytes_and_everything_but_the_path(tmp_path: Path, shared_memory: Path) -> None:
    sent = manifest(tmp_path)
    local = localize(sent, [Path(bucket.path).read_bytes() for bucket in sent.buckets])
    assert (local.version, local.backend, local.num_bytes) == (7, "shm", 10)
    for here, there in zip(local.buckets, sent.buckets, strict=True):
        assert Path(here.path).parent == shared_memory / f"rayzero-{os.getpid()}"
        assert Path(here.path).read_bytes() == Path(there.path).read_bytes()
        assert (here.num_bytes, here.checksum, here.tensors) == (there.num_bytes, there.checksum, there.tensors)


def test_the_senders_checksum_covers_the_way_to_another_host(tmp_path: Path) -> None:
    sent = manifest(tmp_path)
    damaged = [b"\x00\x00\x00\x00\x09", Path(sent.buckets[1].path).read_bytes()]
    local = localize(sent, damaged)
    matches = [checksum(Path(bucket.path).read_bytes()) == bucket.checksum for bucket in local.buckets]
    assert matches == [False, True]


def test_a_missing_bucket_is_not_overlooked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        localize(manifest(tmp_path), [b"\x00" * 5])


def test_removing_segments_twice_does_no_harm(shared_memory: Path) -> None:
    folder = shared_memory / "rayzero-1"
    folder.mkdir()
    (folder / "0-0").write_bytes(b"x")
    remove_segments(folder)
    remove_segments(folder)
    assert not folder.exists()
