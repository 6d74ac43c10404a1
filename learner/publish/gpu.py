"""Learner side of a publish between GPUs. The engines' side is rollout/weights/gpu.py.

    nccl   rank 0 and every engine worker form one NCCL group; rank 0 broadcasts packed buckets while the engines receive
    ipc    learner rank and engine worker share a GPU; handles of the tensors travel in the manifest, no byte is moved

The engines are driven by the loop (`RolloutPool.load`), for all transports alike; here only the bytes are sent.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from learner.publish.buckets import stream
from learner.publish.shared_memory import base_parameters
from rollout.weights.digest import BYTES, Digest
from rollout.weights.handles import export_tensor, gpu_id
from rollout.weights.manifest import DIGEST, PACKED_BUFFERS, WeightManifest


class NcclPublisher:
    """Weights → NCCL broadcast. `connect` must have met the engines before the first `send`."""

    def __init__(self, rank: int, bucket_bytes: int, dtype: torch.dtype) -> None:
        self.rank = rank
        self.bucket_bytes = bucket_bytes
        self.dtype = dtype
        self._group: Any = None

    def connect(self, address: str, port: int, world_size: int) -> None:
        """Wait until every engine worker has joined, in place of those before. `world_size`: 1 + all engine workers."""
        if self.rank != 0:
            return
        from vllm.distributed.weight_transfer.nccl_common import trainer_init

        self.close()
        with _same_stream():
            self._group = trainer_init({"master_address": address, "master_port": port, "world_size": world_size})

    def stage(self, model: Any, version: int, sharded: bool) -> WeightManifest | None:
        """Manifest of names and shapes only: the bytes follow in `send`, while the engines receive."""
        if self.rank != 0:
            return None
        metas = [(name, list(_shape(parameter))) for name, parameter in base_parameters(model)]
        size = sum(torch.Size(shape).numel() for _, shape in metas) * self.dtype.itemsize
        dtype = str(self.dtype).removeprefix("torch.")
        payload = {
            "names": [name for name, _ in metas] + [DIGEST],
            "dtype_names": [dtype] * len(metas) + ["uint8"],
            "shapes": [shape for _, shape in metas] + [[BYTES]],
        }
        return WeightManifest(version=version, backend="nccl", num_bytes=size, payload=payload)

    def send(self, model: Any, sharded: bool) -> None:
        """Broadcast the weights. Collective over the ranks: all gather, rank 0 broadcasts."""
        if self.rank != 0:
            for _ in stream(base_parameters(model), self.bucket_bytes, sharded):
                continue
            return
        from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

        # The broadcast reads on streams of its own, and the step before it may still be writing.
        torch.cuda.synchronize()
        packed_nccl_broadcast_producer(
            iterator=self._tensors(model, sharded),
            group=self._group,
            src=0,
            post_iter_func=lambda item: item[1],
            buffer_size_bytes=self.bucket_bytes,
            num_buffers=PACKED_BUFFERS,
        )

    def _tensors(self, model: Any, sharded: bool) -> Iterator[tuple[str, Tensor]]:
        """What is sent, and at its end the digest of it."""
        digest, device = Digest(), None
        for name, tensor in stream(base_parameters(model), self.bucket_bytes, sharded):
            sent = tensor.to(self.dtype)
            digest.add(name, sent)
            device = sent.device
            yield name, sent
        yield DIGEST, torch.tensor(list(digest.value()), dtype=torch.uint8, device=device)

    def release(self, manifest: WeightManifest) -> None:
        """Nothing to do: no tensor is held."""

    def close(self) -> None:
        """Leave the group, also in the middle of a broadcast that nobody receives any more."""
        group, self._group = self._group, None
        if group is not None:
            group.destroy()


class IpcPublisher:
    """Weights → CUDA IPC handles. The tensors are kept until `release`; under ZeRO-3 they are a whole second model."""

    def __init__(self, rank: int, bucket_bytes: int, dtype: torch.dtype) -> None:
        self.rank = rank
        self.bucket_bytes = bucket_bytes
        self.dtype = dtype
        self._held: list[Tensor] = []

    def stage(self, model: Any, version: int, sharded: bool) -> WeightManifest | None:
        """Make the handles. Collective over the ranks: each has a GPU of its own to share; the manifest on rank 0."""
        names, handles, digest = [], [], Digest()
        for name, tensor in stream(base_parameters(model), self.bucket_bytes, sharded):
            tensor = tensor.to(self.dtype)
            # Under ZeRO-3 a gathered tensor is gone after its turn; elsewhere this is the parameter itself.
            tensor = tensor.clone() if sharded else tensor.contiguous()
            self._held.append(tensor)
            names.append(name)
            handles.append(export_tensor(tensor))
            if self.rank == 0:
                digest.add(name, tensor)
        torch.cuda.synchronize()
        # What an optimizer step needed and does not any more is the engine's while it samples.
        torch.cuda.empty_cache()
        shares: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, (gpu_id(torch.cuda.current_device()), handles))
        if self.rank != 0:
            return None
        payload = {"names": names, "handles": dict(shares), "digest": digest.value().hex()}
        size = sum(tensor.numel() * tensor.itemsize for tensor in self._held)
        return WeightManifest(version=version, backend="ipc", num_bytes=size, payload=payload)

    def connect(self, address: str, port: int, world_size: int) -> None:
        """Nothing to do: handles need no group."""

    def send(self, model: Any, sharded: bool) -> None:
        """Nothing to do: the handles are in the manifest."""

    def release(self, manifest: WeightManifest) -> None:
        self._held.clear()
        torch.cuda.ipc_collect()

    def close(self) -> None:
        self._held.clear()


@contextmanager
def _same_stream() -> Iterator[None]:
    """vLLM makes a stream of its own the thread's current one when it first asks for it; a rank goes on on its own."""
    before = torch.cuda.current_stream()
    try:
        yield
    finally:
        torch.cuda.set_stream(before)


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
