"""Learner side of a publish as a whole: a model without its adapters by one transport, and its adapters beside it.

    shm    rank 0 writes buckets to shared memory before generation is paused; engines map them
    nccl   the engines are told first, then rank 0 broadcasts into vLLM's own transfer engine
    ipc    CUDA handles of rank 0's tensors travel in the manifest; engines on the same GPU map them

Adapters (LoRA) are small, and travel as a peft folder in shared memory on every host.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch

from learner.publish.gpu import IpcPublisher, NcclPublisher
from learner.publish.shared_memory import AdapterPublisher, SharedMemoryPublisher
from rollout.weights.manifest import Backend, WeightManifest, discard


class Publisher(Protocol):
    """One transport of weights. `stage` and `send` are collective over the ranks."""

    def stage(self, model: Any, version: int, sharded: bool) -> WeightManifest | None:
        """Make the weights ready to be loaded as `version`; the manifest on rank 0."""

    def connect(self, address: str, port: int, world_size: int) -> None:
        """Meet the engines, where the transport needs it."""

    def send(self, model: Any, sharded: bool) -> None:
        """While the engines load: send what the manifest does not hold."""

    def release(self, manifest: WeightManifest) -> None:
        """Free what was staged: the engines have it."""

    def close(self) -> None:
        """Free everything."""


PUBLISHERS: Mapping[Backend, Callable[[int, int, torch.dtype], Publisher]] = {
    "shm": SharedMemoryPublisher,
    "nccl": NcclPublisher,
    "ipc": IpcPublisher,
}
"""Transport → what serves it, made from rank, bytes of a bucket, and the engines' dtype."""


class ModelPublisher:
    """One model's weights to the engines, version after version."""

    def __init__(self, rank: int, backend: Backend, bucket_bytes: int, dtype: torch.dtype) -> None:
        self.rank = rank
        self.backend = backend
        self._base = PUBLISHERS[backend](rank, bucket_bytes, dtype)
        self._adapters = AdapterPublisher(rank, dtype)
        self._base_is_staged = False

    def stage(self, model: Any, version: int, sharded: bool, *, base: bool, adapter: bool) -> WeightManifest | None:
        """Collective over the ranks; the manifest on rank 0.

        Args:
            base: whether to stage the model without its adapters.
            adapter: whether to stage its adapters.
        """
        self._base_is_staged = base
        manifest = self._base.stage(model, version, sharded) if base else None
        files = self._adapters.stage(model, version, sharded) if adapter else ()
        if self.rank != 0:
            return None
        manifest = manifest or WeightManifest(version=version, backend=self.backend, num_bytes=0)
        size = manifest.num_bytes + sum(file.num_bytes for file in files)
        return replace(manifest, adapter=files, num_bytes=size)

    def connect(self, address: str, port: int, world_size: int) -> None:
        """Form the group that weights are broadcast in (nccl). `world_size`: 1 + all engine workers."""
        self._base.connect(address, port, world_size)

    def send(self, model: Any, sharded: bool) -> None:
        """While the engines load what was staged: send what the manifest does not hold. Collective over the ranks."""
        if self._base_is_staged:
            self._base.send(model, sharded)

    def release(self, manifest: WeightManifest) -> None:
        """Free what was staged: the engines have it."""
        self._base.release(manifest)
        discard(manifest)

    def close(self) -> None:
        """Free the shared memory of all versions."""
        self._base.close()
        self._adapters.close()
