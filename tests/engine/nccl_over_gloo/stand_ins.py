"""NCCL played by gloo, with what makes NCCL hard to work with: a broadcast ends when everybody has it, and where somebody does
not come, or is gone, it waits for ever, unless the communicator is destroyed. Streams and events do nothing."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import PrefixStore, ProcessGroupGloo


class Communicator:
    """In place of vLLM's PyNcclCommunicator."""

    alive = 0
    """Communicators of this process that nobody has destroyed: each holds memory of a GPU."""

    def __init__(self, group: Any, device: Any) -> None:
        self.group = group
        self._aborted = threading.Event()
        hour = timedelta(hours=1)
        self._gloo = ProcessGroupGloo(PrefixStore("gloo", group.store), group.rank, group.world_size, hour)
        type(self).alive += 1
        self.all_reduce(torch.zeros(1))

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        self._finish(self._gloo.broadcast(tensor, src))
        self._finish(self._gloo.barrier())

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        self._finish(self._gloo.allreduce(tensor))
        return tensor

    def destroy(self) -> None:
        if not self._aborted.is_set():
            type(self).alive -= 1
        self._aborted.set()

    def _finish(self, work: Any) -> None:
        while not work.is_completed():
            if self._aborted.wait(0.001):
                raise RuntimeError("the communicator was destroyed")
        try:
            work.wait()
        except RuntimeError:
            self._aborted.wait()  # gloo notices that a peer is gone, NCCL does not
            raise


class Nothing:
    """A stream or an event."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.device = torch.device("cpu")

    def record(self, *args: Any) -> None: ...

    synchronize = wait = wait_event = wait_stream = record


def _noop() -> Callable[..., None]:
    """A function of its own each time: torch's compiler knows them by who they are."""
    return lambda *args, **kwargs: None


def install() -> None:
    """Put them in their places; again changes nothing."""
    from vllm.distributed.device_communicators import pynccl

    if pynccl.PyNcclCommunicator is Communicator:
        return
    pynccl.PyNcclCommunicator = Communicator
    here = Nothing()
    torch.cuda.Stream = torch.Event = Nothing  # type: ignore[assignment,misc]
    torch.cuda.stream = lambda stream: nullcontext()  # type: ignore[assignment]
    for module in (torch.cuda, torch.accelerator):
        module.synchronize = _noop()
        module.current_stream = lambda *args: here
    torch.cuda.set_stream = _noop()
    torch.accelerator.current_device_index = lambda: 0
    torch.Tensor.record_stream = _noop()  # type: ignore[assignment]
