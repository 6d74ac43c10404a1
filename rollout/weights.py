"""Weights on their way from the learner to the engines: what is sent, in which buckets, under which version.

On hosts without a GPU a bucket is a file in shared memory that the learner writes once and every engine worker of the
host maps. Checksums are CRC-32 of the bytes of a bucket: they find torn or mixed-up transfers, not forgery.
"""

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

SHARED_MEMORY = Path("/dev/shm")

Backend = Literal["shm", "nccl", "ipc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMeta:
    name: str
    """Hugging Face parameter name."""
    dtype: str
    """torch dtype name, such as `float32`: the wire dtype, which is the engine's."""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    path: str
    num_bytes: int
    checksum: int
    """CRC-32 of the bytes."""
    tensors: tuple[TensorMeta, ...]
    """In order, end to end, unpadded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """One publish: everything an engine needs to load policy version `version`."""

    version: int
    backend: Backend
    num_bytes: int
    buckets: tuple[Bucket, ...] = ()
    """Filled for `shm`."""
    payload: dict[str, Any] = field(default_factory=dict)
    """Update info of vLLM's own backend, for `nccl` and `ipc`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What one engine says of one load."""

    replica: int
    version: int
    checksums: tuple[str, ...]
    """Of the engine's weights as loaded, one entry a worker; equal over replicas of one shape."""
    pause_seconds: float
    """Wall time during which generation stood still."""


def checksum(data: Any) -> int:
    """CRC-32 of a buffer."""
    return zlib.crc32(data)


def write_bucket(path: Path, arrays: list[Any], tensors: tuple[TensorMeta, ...]) -> Bucket:
    """Write flat uint8 arrays end to end into a private file."""
    crc, size = 0, 0
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        for array in arrays:
            view = memoryview(array)
            crc = zlib.crc32(view, crc)
            size += file.write(view)
    return Bucket(path=str(path), num_bytes=size, checksum=crc, tensors=tensors)


def localize(manifest: WeightManifest, contents: list[bytes]) -> WeightManifest:
    """The same manifest with its buckets written to this host's shared memory. The caller removes the files."""
    folder = segment_folder()
    buckets = []
    for i, (bucket, data) in enumerate(zip(manifest.buckets, contents, strict=True)):
        path = folder / f"remote-{manifest.version}-{i}"
        write_bucket(path, [data], bucket.tensors)
        buckets.append(replace(bucket, path=str(path)))  # the sender's checksum stays: it covers this way too
    return replace(manifest, buckets=tuple(buckets))


def segment_folder() -> Path:
    """A folder in shared memory named after this process, and a sweep of those whose process is gone."""
    for old in SHARED_MEMORY.glob("rayzero-*"):
        pid = old.name.removeprefix("rayzero-")
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            # It may be another user's, or another process may be removing it right now.
            with suppress(OSError):
                remove_segments(old)
    folder = SHARED_MEMORY / f"rayzero-{os.getpid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def remove_segments(folder: Path) -> None:
    """Remove a segment folder and what is in it; another process may be doing the same."""
    for file in _entries(folder):
        file.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        folder.rmdir()


def _entries(folder: Path) -> Iterator[Path]:
    return folder.glob("*") if folder.is_dir() else iter(())
