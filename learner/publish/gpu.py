"""Learner side of a publish between GPUs, through vLLM's own transfer engines.

    nccl   rank 0 and every engine worker form one NCCL group; rank 0 broadcasts packed buckets while the engines receive
    ipc    learner rank and engine worker share a GPU; CUDA handles of the tensors travel in the manifest, no byte is moved

The engines' side is driven by the loop (`RolloutPool.load`), for all transports alike; here only the bytes are sent.
"""

from collections.abc import Iterator
from typing import Any

import torch

from learner.publish.buckets import stream
from learner.publish.shared_memory import base_parameters
from rollout.weights.manifest import WeightManifest


class NcclPublisher:
    """Weights → NCCL broadcast. `connect` must have met the engines before the first `send`."""

    def __init__(self, rank: int, bucket_bytes: int, dtype: torch.dtype) -> None:
        self.rank = rank
        self.bucket_bytes = bucket_bytes
        self.dtype = dtype
        self._engine: Any = None
        self._source: _Source | None = None

    def connect(self, address: str, port: int, world_size: int) -> None:
        """Wait until every engine worker has joined. `world_size`: 1 + all engine workers."""
        if self.rank != 0:
            return
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

        info = NCCLTrainerInitInfo(master_address=address, master_port=port, world_size=world_size, rank=0)
        self._source = _Source(self.bucket_bytes, self.dtype)
        self._engine = NCCLTrainerWeightTransferEngine.trainer_init(info, client=_Silent(), source=self._source)

    def stage(self, model: Any, version: int, sharded: bool) -> WeightManifest | None:
        """Manifest of names and shapes only: the bytes follow in `send`, while the engines receive."""
        if self.rank != 0:
            return None
        metas = [(name, _shape(parameter)) for name, parameter in base_parameters(model)]
        size = sum(torch.Size(shape).numel() for _, shape in metas) * self.dtype.itemsize
        dtype = str(self.dtype).removeprefix("torch.")
        payload = {
            "names": [name for name, _ in metas],
            "dtype_names": [dtype] * len(metas),
            "shapes": [list(shape) for _, shape in metas],
        }
        return WeightManifest(version=version, backend="nccl", num_bytes=size, payload=payload)

    def send(self, model: Any, sharded: bool) -> None:
        """Broadcast the weights. Collective over the ranks: all gather, rank 0 broadcasts."""
        if self.rank != 0:
            for _ in stream(base_parameters(model), self.bucket_bytes, sharded):
                continue
            return
        assert self._source is not None
        self._source.aim(model, sharded)
        self._engine.send_weights()

    def release(self, manifest: WeightManifest) -> None:
        """Nothing to do: no tensor is held."""

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()


class IpcPublisher:
    """Weights → CUDA IPC handles. The tensors are kept until `release`; under ZeRO-3 they are a whole second model."""

    def __init__(self, rank: int, bucket_bytes: int, dtype: torch.dtype) -> None:
        self.rank = rank
        self.bucket_bytes = bucket_bytes
        self.dtype = dtype
        self._held: list[torch.Tensor] = []

    def stage(self, model: Any, version: int, sharded: bool) -> WeightManifest | None:
        """Make the handles. Collective over the ranks; the manifest with its handles on rank 0."""
        from torch.multiprocessing.reductions import reduce_tensor

        device = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        names, shapes, handles = [], [], []
        for name, tensor in stream(base_parameters(model), self.bucket_bytes, sharded):
            if self.rank == 0:
                tensor = tensor.to(self.dtype)
                # Under ZeRO-3 a gathered tensor is gone after its turn; elsewhere this is the parameter itself.
                tensor = tensor.clone() if sharded else tensor.contiguous()
                self._held.append(tensor)
                names.append(name)
                shapes.append(list(tensor.shape))
                handles.append({device: reduce_tensor(tensor)[1]})
        if self.rank != 0:
            return None
        torch.cuda.synchronize()
        dtype = str(self.dtype).removeprefix("torch.")
        payload = {"names": names, "dtype_names": [dtype] * len(names), "shapes": shapes, "ipc_handles": handles}
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


class _Source:
    """vLLM's `WeightSource`: the weights of the learner's model as they are when `send` is called."""

    def __init__(self, bucket_bytes: int, dtype: torch.dtype) -> None:
        self._bucket_bytes = bucket_bytes
        self._dtype = dtype
        self._model: Any = None
        self._sharded = False

    def aim(self, model: Any, sharded: bool) -> None:
        """Read from this model from now on."""
        self._model, self._sharded = model, sharded

    def metadata(self) -> list[Any]:
        from vllm.distributed.weight_transfer.base import ParamMeta

        return [ParamMeta(name, self._dtype, _shape(p)) for name, p in base_parameters(self._model)]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        tensors = stream(base_parameters(self._model), self._bucket_bytes, self._sharded)
        return ((name, tensor.to(self._dtype)) for name, tensor in tensors)


class _Silent:
    """A client that sends nothing: the engines are driven by the loop, so vLLM's trainer side has nothing to tell them."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None: ...

    def start_weight_update(self) -> None: ...

    def update_weights(self, update_info: Any) -> None: ...

    def finish_weight_update(self, weight_version: str | None = None) -> None: ...


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
