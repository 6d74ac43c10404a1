"""Weights on their way from the learner to the engines: what is sent, in which buckets, under which version.

On hosts without a GPU a bucket is a file in shared memory that the learner writes once and every engine worker of the
host maps. Checksums are CRC-32 of the bytes of a bucket: they find torn or mixed-up transfers, not forgery.
"""

import mmap
import os
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rollout.errors import ServiceError

SHARED_MEMORY = Path("/dev/shm")

Backend = Literal["shm", "nccl", "ipc"]
DIGEST = "rayzero.digest"
"""Name of what is sent after the weights on a way that cannot carry their digest beside them."""

PACKED_BUFFERS = 2
"""Packed buckets in flight at a time between GPUs, on each side: both must say the same."""


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
    """Tensors of the bucket, in order, end to end, unpadded."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Names of two sets of weights: equal names are equal weights."""

    base: str = ""
    """Name of the weights of the engine's own model; without adapters a new one after every update."""
    adapter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """One publish: everything an engine needs to load policy version `version`."""

    version: int
    backend: Backend
    num_bytes: int
    buckets: tuple[Bucket, ...] = ()
    """Buckets of the weights, for the backend `shm`; empty for others."""
    payload: dict[str, Any] = field(default_factory=dict)
    """Update info of vLLM's own backend, for `nccl` and `ipc`."""
    adapter: tuple[Bucket, ...] = ()
    """The files of a peft folder, whatever the backend; empty without adapters, and when they have not changed."""
    holding: Holding | None = None
    """Weights that an engine holds once it has loaded this; None: not known."""

    @property
    def has_base(self) -> bool:
        """Whether the engine's own model is sent; it is not where the engine holds it already."""
        return bool(self.buckets or self.payload)

    @property
    def files(self) -> tuple[Bucket, ...]:
        """Everything in shared memory."""
        return self.buckets + self.adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """One load as the engine saw it."""

    replica: int
    version: int
    checksums: tuple[str, ...]
    """Checksums of the engine's weights as loaded, one a worker; equal over replicas of one shape."""
    pause_seconds: float
    """Wall time during which generation stood still."""


def checksum(data: Any) -> int:
    """CRC-32 of a buffer."""
    return zlib.crc32(data)


def open_verified(path: str, num_bytes: int, sent: int) -> mmap.mmap:
    """A bucket, mapped; raises ServiceError when its bytes are not the ones that were sent."""
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), num_bytes, prot=mmap.PROT_READ)
    found = checksum(view)
    if found != sent:
        raise ServiceError(f"weights {path} arrived damaged: checksum {found:#x}, sent {sent:#x}")
    return view


def write_bucket(path: Path, arrays: Iterable[Any], tensors: tuple[TensorMeta, ...]) -> Bucket:
    """Write flat uint8 arrays end to end into a private file."""
    crc, size = 0, 0
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        for array in arrays:
            view = memoryview(array)
            crc = zlib.crc32(view, crc)
            size += file.write(view)
    return Bucket(path=str(path), num_bytes=size, checksum=crc, tensors=tensors)


def discard(manifest: WeightManifest) -> None:
    """Free the shared memory of a manifest; doing so again does no harm."""
    for bucket in manifest.buckets:
        Path(bucket.path).unlink(missing_ok=True)
    for folder in {Path(file.path).parent for file in manifest.adapter}:
        remove_segments(folder)


def segment_folder() -> Path:
    """A folder in shared memory named after this process, and a sweep of those whose process is gone."""
    for old in SHARED_MEMORY.glob("rayzero-*"):
        pid = old.name.removeprefix("rayzero-")
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            remove_segments(old)  # as far as it is ours
    folder = SHARED_MEMORY / f"rayzero-{os.getpid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def remove_segments(folder: Path) -> None:
    """Remove a segment folder and what is in it; another process may be doing the same."""
    shutil.rmtree(folder, ignore_errors=True)
