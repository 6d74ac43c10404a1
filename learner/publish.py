"""Learner side of a publish: the current weights, bucket by bucket, on their way to the engines.

    shm    rank 0 writes buckets to shared memory before generation is paused; engines map them
    nccl   the engines are told first, then rank 0 broadcasts into vLLM's own transfer engine
    ipc    CUDA handles of rank 0's tensors travel in the manifest; engines on the same GPU map them

Under ZeRO-3 every rank takes part in gathering a bucket; only rank 0 keeps it.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from rollout.weights import Bucket, TensorMeta, WeightManifest, remove_segments, segment_folder, write_bucket


class SharedMemoryPublisher:
    """Weights → files in shared memory. One version lives at a time."""

    backend = "shm"

    def __init__(self, rank: int, bucket_bytes: int, dtype: torch.dtype) -> None:
        self.rank = rank
        self.bucket_bytes = bucket_bytes
        self.dtype = dtype
        self.folder: Path | None = segment_folder() if rank == 0 else None

    def stage(self, model: Any, version: int, sharded: bool) -> WeightManifest | None:
        """Collective over the ranks; the manifest on rank 0, None elsewhere."""
        buckets: list[Bucket] = []
        for i, parameters in enumerate(_buckets(model, self.bucket_bytes)):
            with _gathered([parameter for _, parameter in parameters], sharded):
                if self.folder is not None:
                    buckets.append(self._write(self.folder / f"{version}-{i}", parameters))
        if self.folder is None:
            return None
        size = sum(bucket.num_bytes for bucket in buckets)
        return WeightManifest(version=version, backend="shm", num_bytes=size, buckets=tuple(buckets))

    def connect(self, address: str, port: int, world_size: int) -> None:
        """Shared memory needs no meeting."""

    def send(self, model: Any, sharded: bool) -> None:
        """The bytes are where the manifest says."""

    def release(self, manifest: WeightManifest) -> None:
        """The engines have it: free the shared memory."""
        for bucket in manifest.buckets:
            Path(bucket.path).unlink(missing_ok=True)

    def close(self) -> None:
        if self.folder is not None:
            remove_segments(self.folder)

    def _write(self, path: Path, parameters: list[tuple[str, Any]]) -> Bucket:
        tensors = [parameter.detach().to("cpu", self.dtype).contiguous() for _, parameter in parameters]
        metas = tuple(
            TensorMeta(name=name, dtype=str(self.dtype).removeprefix("torch."), shape=tuple(tensor.shape))
            for (name, _), tensor in zip(parameters, tensors, strict=True)
        )
        return write_bucket(path, [tensor.reshape(-1).view(torch.uint8).numpy() for tensor in tensors], metas)


def _buckets(model: Any, limit: int) -> Iterator[list[tuple[str, Any]]]:
    """Parameters in the model's order, in runs of about `limit` bytes (float32)."""
    bucket: list[tuple[str, Any]] = []
    size = 0
    for name, parameter in model.named_parameters():
        # Under ZeRO-3 a parameter is empty outside a gather; `ds_numel` is its true size.
        count = 4 * getattr(parameter, "ds_numel", parameter.numel())
        if bucket and size + count > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, parameter))
        size += count
    if bucket:
        yield bucket


def _gathered(parameters: list[Any], sharded: bool) -> Any:
    if not sharded:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters)
