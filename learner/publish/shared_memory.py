"""Learner side of a publish on one host, and of adapters: files in shared memory, which engines map."""

import json
from pathlib import Path
from typing import Any

import torch

from learner.model.lora import adapter_config, adapter_parameters, base_name
from learner.publish.buckets import Named, carry
from rollout.faults import reach
from rollout.weights.manifest import (
    Bucket,
    TensorMeta,
    WeightManifest,
    discard,
    remove_segments,
    segment_folder,
    write_bucket,
)


def base_parameters(model: Any) -> Named:
    """Parameters that the engine's own model is made of, under their Hugging Face names; tied ones once."""
    named = ((base_name(name), parameter) for name, parameter in model.named_parameters())
    return [(name, parameter) for name, parameter in named if name]


class SharedMemoryPublisher:
    """Weights → files in shared memory. One version is held at a time."""

    def __init__(self, rank: int, bucket_bytes: int, dtype: torch.dtype) -> None:
        """Rank 0 makes the folder. `dtype`: the engine's, in which the bytes are written."""
        self.rank = rank
        self.bucket_bytes = bucket_bytes
        self.dtype = dtype
        self.folder: Path | None = segment_folder() if rank == 0 else None

    def stage(self, model: Any, version: int, sharded: bool) -> WeightManifest | None:
        """Write the weights. Collective over the ranks; the manifest on rank 0, None elsewhere."""
        folder = self.folder

        def write(index: int, bucket: Named) -> Bucket:
            assert folder is not None
            return _write(folder / f"{version}-{index}", bucket, self.dtype)

        try:
            written = carry(base_parameters(model), self.bucket_bytes, sharded, write if folder else None)
        except OSError:
            # There was no room: what is written takes it from whoever may make some.
            for part in folder.glob(f"{version}-*") if folder else ():
                part.unlink()
            raise
        if folder is None:
            return None
        size = sum(bucket.num_bytes for bucket in written)
        return WeightManifest(version=version, backend="shm", num_bytes=size, buckets=tuple(written))

    def connect(self, address: str, port: int, world_size: int) -> None:
        """Nothing to do: shared memory needs no meeting."""

    def send(self, model: Any, sharded: bool) -> None:
        """Nothing to do: the bytes are where the manifest says."""

    def release(self, manifest: WeightManifest) -> None:
        """Free the shared memory: the engines have the weights."""
        discard(manifest)

    def close(self) -> None:
        if self.folder is not None:
            remove_segments(self.folder)


class AdapterPublisher:
    """Adapters → a peft folder in shared memory: what vLLM loads as one."""

    def __init__(self, rank: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.folder: Path | None = segment_folder() if rank == 0 else None

    def stage(self, model: Any, version: int, sharded: bool) -> tuple[Bucket, ...]:
        """Write the adapters. Collective over the ranks; the files of the folder on rank 0, nothing elsewhere."""
        from safetensors.torch import save

        parts: list[dict[str, torch.Tensor]] = carry(
            adapter_parameters(model),
            64 << 20,
            sharded,
            (lambda _, bucket: {name: _on_wire(p, self.dtype).clone() for name, p in bucket}) if self.folder else None,
        )
        if self.folder is None:
            return ()
        folder = self.folder / f"{version}-adapter"
        folder.mkdir(mode=0o700, exist_ok=True)
        contents = {
            "adapter_model.safetensors": save({name: tensor for part in parts for name, tensor in part.items()}),
            "adapter_config.json": json.dumps(adapter_config(model)).encode(),
        }
        return tuple(write_bucket(folder / name, [data], ()) for name, data in contents.items())

    def close(self) -> None:
        if self.folder is not None:
            remove_segments(self.folder)


def _write(path: Path, bucket: Named, dtype: torch.dtype) -> Bucket:
    """Write a bucket. One tensor is converted at a time: the bucket exists once, as the learner holds it."""
    metas = tuple(
        TensorMeta(name=name, dtype=str(dtype).removeprefix("torch."), shape=tuple(parameter.shape))
        for name, parameter in bucket
    )
    flat = (_on_wire(parameter, dtype).reshape(-1).view(torch.uint8).numpy() for _, parameter in bucket)
    written = write_bucket(path, flat, metas)
    reach("bucket.written", path, who="learner-0")
    return written


def _on_wire(parameter: Any, dtype: torch.dtype) -> torch.Tensor:
    tensor: torch.Tensor = parameter.detach().to("cpu", dtype).contiguous()
    return tensor
