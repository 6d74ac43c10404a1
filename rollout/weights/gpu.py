"""Worker side of a publish between GPUs: runs inside vLLM's worker processes. Both ways compare what arrived with what the
learner sent, by a digest that each side makes on its own GPU.

    nccl   vLLM's own packed broadcast; the digest is the last thing that the learner sends
    ipc    the tensors of the learner rank on the same GPU, opened by their handles; the digest comes with these
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from rollout.errors import ServiceError
from rollout.weights.digest import Digest
from rollout.weights.handles import gpu_id, open_tensor
from rollout.weights.manifest import DIGEST


def _compare(found: bytes, sent: bytes) -> None:
    if found != sent:
        raise ServiceError(f"weights arrived damaged: digest {found.hex()}, sent {sent.hex() or 'none'}")


class VerifiedNcclEngine(NCCLWeightTransferEngine):
    """vLLM's NCCL engine, which also adds up what it loads."""

    def init_transfer_engine(self, init_info: Any) -> None:
        """Join the learner, in place of a group that was joined before: vLLM would keep that one, and its memory on the GPU."""
        self.shutdown()
        super().init_transfer_engine(init_info)

    def start_weight_update(self) -> None:
        self._digest, self._sent = Digest(), b""
        super().start_weight_update()

    def receive_weights(self, update_info: Any) -> None:
        load = self.model.load_weights
        self.model.load_weights = lambda weights: load(self._counted(weights))
        try:
            super().receive_weights(update_info)
        finally:
            del self.model.load_weights  # the class has its own

    def finish_weight_update(self) -> None:
        """Raises ServiceError when other weights arrived than were sent."""
        super().finish_weight_update()
        _compare(self._digest.value(), self._sent)

    def _counted(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights:
            if name == DIGEST:
                self._sent = bytes(tensor.tolist())
            else:
                self._digest.add(name, tensor)
                yield name, tensor


@dataclass
class HandlesInitInfo(WeightTransferInitInfo):
    """Nothing to agree on: handles say everything."""


@dataclass
class HandlesUpdateInfo(WeightTransferUpdateInfo):
    """The whole model."""

    names: list[str]
    handles: dict[str, list[dict[str, Any]]]
    """Physical GPU → handle of each tensor there, in the order of the names."""
    digest: str


class HandlesEngine(WeightTransferEngine[HandlesInitInfo, HandlesUpdateInfo]):
    """Loads the tensors of the learner rank that shares this worker's GPU."""

    init_info_cls = HandlesInitInfo
    update_info_cls = HandlesUpdateInfo

    def init_transfer_engine(self, init_info: HandlesInitInfo) -> None:
        pass

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: HandlesUpdateInfo) -> None:
        """Raises ServiceError when no rank has this GPU, or other weights arrived than were sent."""
        device = self.device.index or 0
        handles = update_info.handles.get(gpu_id(device))
        if handles is None:
            raise ServiceError(f"no learner rank shares GPU {gpu_id(device)}: {', '.join(update_info.handles)}")
        digest = Digest()

        def weights() -> Iterator[tuple[str, torch.Tensor]]:
            for name, handle in zip(update_info.names, handles, strict=True):
                tensor = open_tensor(handle, device)
                digest.add(name, tensor)
                yield name, tensor

        self.model.load_weights(weights())
        _compare(digest.value(), bytes.fromhex(update_info.digest))

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        pass
