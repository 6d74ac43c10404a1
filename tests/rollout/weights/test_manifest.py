"""Buckets in shared memory."""

import os
import stat
import zlib
from pathlib import Path

import numpy as np
import pytest

from rollout.weights import manifest as weights
from rollout.weights.manifest import TensorMeta, checksum, remove_segments, write_bucket

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


def test_removing_segments_twice_does_no_harm(shared_memory: Path) -> None:
    folder = shared_memory / "rayzero-1"
    folder.mkdir()
    (folder / "0-0").write_bytes(b"x")
    remove_segments(folder)
    remove_segments(folder)
    assert not folder.exists()
