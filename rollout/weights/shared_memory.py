"""Worker side of the shared-memory weight transfer: runs inside vLLM's worker processes on hosts without a GPU."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from rollout.weights.manifest import open_verified


@dataclass
class ShmInitInfo(WeightTransferInitInfo):
    """Nothing to agree on: a bucket names its own file."""


@dataclass
class ShmUpdateInfo(WeightTransferUpdateInfo):
    """One bucket, as rollout.weights.manifest.Bucket in plain data."""

    path: str
    num_bytes: int
    checksum: int
    tensors: list[dict[str, Any]]


class ShmWeightTransferEngine(WeightTransferEngine[ShmInitInfo, ShmUpdateInfo]):
    """Maps the learner's buckets and loads them through vLLM's layerwise reload."""

    init_info_cls = ShmInitInfo
    update_info_cls = ShmUpdateInfo

    def init_transfer_engine(self, init_info: ShmInitInfo) -> None:
        pass

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # Not the base class's: it synchronises an accelerator that a CPU host does not have.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: ShmUpdateInfo) -> None:
        """Raises ServiceError when the bytes are not the ones that were sent."""
        view = open_verified(update_info.path, update_info.num_bytes, update_info.checksum)
        self.model.load_weights(_tensors(view, update_info.tensors))

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        # The CPU backend prepacks weights for its matrix products. The head of a model with tied embeddings is not
        # reloaded as a layer of its own and would keep multiplying by the old packed copy, without an error.
        head = getattr(self.model, "lm_head", None)
        if self.model_config.hf_config.tie_word_embeddings and head is not None and hasattr(head, "weight"):
            dispatch_cpu_unquantized_gemm(head, remove_weight=False)

    def shutdown(self) -> None:
        pass


def _tensors(view: mmap.mmap, tensors: list[dict[str, Any]]) -> Iterator[tuple[str, torch.Tensor]]:
    offset = 0
    for meta in tensors:
        dtype = getattr(torch, meta["dtype"])
        count = 1
        for size in meta["shape"]:
            count *= size
        # Copied: the loader may keep a tensor until its layer is complete, and the file may be gone by then.
        flat = torch.frombuffer(bytearray(view[offset : offset + count * dtype.itemsize]), dtype=dtype)
        yield meta["name"], flat.view(meta["shape"])
        offset += count * dtype.itemsize
