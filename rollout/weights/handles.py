"""CUDA tensors in another process of the same GPU, without a copy: what names one, as plain data that any RPC carries.

PyTorch shares a tensor as the arguments of a function that opens it elsewhere; classes and dtypes among them do not pass
through vLLM's serializer, and nothing here is to be unpickled. So they are given by name.
"""

from typing import Any

import torch
from torch import Tensor

_PLAIN = (
    "size", "stride", "offset", "dtype", "handle", "storage_bytes", "storage_offset", "counter", "counter_offset",
    "event", "event_sync",
)  # fmt: skip
"""What a handle says; `handle`, `counter` and `event` are bytes."""


def gpu_id(device: torch.device | int) -> str:
    """The physical GPU behind a device: processes number theirs each on its own."""
    return str(torch.cuda.get_device_properties(device).uuid)


def export_tensor(tensor: Tensor) -> dict[str, Any]:
    """The handle of a tensor, which must be kept until the others have closed theirs; a view counts with its storage."""
    from torch.multiprocessing.reductions import reduce_tensor

    _, (_, size, stride, offset, _, dtype, _, handle, bytes_, start, _, counter, counter_offset, event, sync) = (
        reduce_tensor(tensor.detach())
    )
    values = (
        list(size), list(stride), offset, str(dtype).removeprefix("torch."), handle, bytes_, start, counter,
        counter_offset, event, sync,
    )  # fmt: skip
    return dict(zip(_PLAIN, values, strict=True))


def open_tensor(handle: dict[str, Any], device: int) -> Tensor:
    """The tensor behind a handle, as `device` of this process; its memory stays the other's."""
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    return rebuild_cuda_tensor(
        torch.Tensor,
        torch.Size(handle["size"]),
        tuple(handle["stride"]),
        handle["offset"],
        torch.storage.TypedStorage,
        getattr(torch, handle["dtype"]),
        device,
        handle["handle"],
        handle["storage_bytes"],
        handle["storage_offset"],
        False,
        handle["counter"],
        handle["counter_offset"],
        handle["event"],
        handle["event_sync"],
    )
