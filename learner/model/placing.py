"""How a model comes to the devices of its ranks: rank 0 reads it, the others receive it parameter by parameter.

So a host with eight ranks holds a model once in its memory, not eight times, and under ZeRO-3 no device ever holds the whole.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from rollout.errors import InputError

Module = TypeVar("Module", bound=nn.Module)


def read_once(read: Callable[[bool], Module], rank: int, ranks: int) -> Module:
    """A model with its weights on rank 0, and its shapes alone (on torch's `meta` device) on the others. Collective.

    Args:
        read: the model; told whether shapes alone are wanted. Reads more than that on any rank where shapes are not enough.

    Raises:
        InputError: as `read` does on rank 0, here on every rank.
    """
    if ranks == 1:
        return read(False)
    module, problem = None, ""
    if rank == 0:
        try:
            module = read(False)
        except InputError as mistake:
            problem = str(mistake)
    said: list[Any] = [problem, _shapes(module) if module is not None else []]
    distributed.broadcast_object_list(said, src=0)
    if said[0]:
        raise InputError(said[0])
    if module is None:
        module = read(True)
        if _shapes(module) != said[1] or _strays(module):
            # A stranger's code that makes another model of a config than of a checkpoint, or hides a tensor from torch.
            module = read(False)
    return module


def place(module: Module, config: dict[str, Any], device: torch.device, ranks: int = 1) -> Module:
    """Bring what `read_once` gave to the device of its rank; under ZeRO-3 each rank keeps its part of every parameter. Collective.

    Args:
        config: DeepSpeed's.
    """
    if ranks > 1:
        for buffer in module.buffers():
            _receive(_arrived(buffer, device))
    if config["zero_optimization"]["stage"] == 3:
        import deepspeed

        node = _node_group(config["zero_optimization"].get("zero_hpz_partition_size", 1))
        for parameter in module.parameters():
            # It is broadcast from rank 0 here, and divided.
            deepspeed.zero.Init(
                module=nn.ParameterList([_arrived(parameter, device)]),
                config_dict_or_path=config,
                zero_param_parallel_group=node,
            )
    elif ranks > 1:
        for parameter in module.parameters():
            _receive(_arrived(parameter, device))
    return module.to(device)


def _node_group(size: int) -> Any:
    """The ranks that keep a second copy of the parameters between them: a group that DeepSpeed makes once in a process."""
    from deepspeed.utils import groups

    if size == 1:
        return None
    if groups._get_zero_param_intra_parallel_group() is None:
        groups._create_zero_param_parallel_group(size)
    return groups._get_zero_param_intra_parallel_group()


def _arrived(tensor: Tensor, device: torch.device) -> Tensor:
    """The same tensor, with room on the device; modules that share it share it still."""
    if tensor.is_meta:
        room = torch.empty_like(tensor, device=device)
        is_parameter = isinstance(tensor, nn.Parameter)
        torch.utils.swap_tensors(tensor, nn.Parameter(room, tensor.requires_grad) if is_parameter else room)
    else:
        tensor.data = tensor.data.to(device)
    return tensor


def _receive(tensor: Tensor) -> None:
    """What rank 0 has, as bytes: not every transport knows every dtype."""
    data = tensor.data.contiguous()
    distributed.broadcast(data.view(-1).view(torch.uint8) if data.numel() else data, src=0)
    if data.data_ptr() != tensor.data_ptr():
        tensor.data.copy_(data)


def _shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...], str]]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors]


def _strays(module: nn.Module) -> list[Tensor]:
    """Tensors without values that are neither parameters nor buffers."""
    values = (value for each in module.modules() for value in vars(each).values())
    return [value for value in values if isinstance(value, Tensor) and value.is_meta]
