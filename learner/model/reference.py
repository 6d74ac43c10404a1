"""The frozen reference: where the policy began, or what it was at the last refresh."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from learner.model.policy import PackTensors, Policy

FILE = "reference.safetensors"
"""Weights of the reference in a checkpoint; without it, the reference is the model that the stage began with."""


class FrozenPolicy(Protocol):
    """What a policy is compared with."""

    def logprobs(self, pack: PackTensors, temperature: float) -> Tensor:
        """[N] float32 log-probabilities of the targets, without gradient; a collective under ZeRO-3."""


class Reference:
    """A frozen policy with weights of its own. On every rank the whole of it, under ZeRO-3 a shard."""

    def __init__(self, policy: Policy, config: dict[str, Any], sharded: bool) -> None:
        """Freeze a policy. `config`: DeepSpeed's, for the sharding."""
        self._policy = policy.requires_grad_(False).eval()
        self._forward: Any = self._policy
        self._sharded = sharded
        self._refreshed = False
        if sharded:
            import deepspeed

            self._forward = deepspeed.initialize(model=self._policy, config=config, dist_init_required=False)[0]

    @torch.no_grad()
    def logprobs(self, pack: PackTensors, temperature: float) -> Tensor:
        """[N] float32 log-probabilities of the targets; a collective under ZeRO-3."""
        logprobs: Tensor = self._forward(pack, temperature)[0]
        return logprobs

    def refresh(self, policy: Policy) -> None:
        """Take the weights that the policy has now. Under ZeRO-3 a rank's part of a parameter is its part of the other's too."""
        names = dict(policy.named_parameters())
        for name, parameter in self._policy.named_parameters():
            if self._sharded:
                _take_part(parameter, names[name])
            else:
                parameter.data.copy_(names[name].data)
        self._refreshed = True

    def save(self, folder: Path, rank: int) -> None:
        """Rank 0 writes the weights, if they are not those that the stage began with. Collective."""
        if not self._refreshed:
            return
        from safetensors.torch import save_file

        weights = {}
        for name, parameter in self._policy.named_parameters():
            with self._gather(parameter):
                if rank == 0:
                    weights[name] = parameter.data.to("cpu", copy=True).contiguous()
        if rank == 0:
            save_file(weights, folder / FILE)

    def load(self, folder: Path) -> None:
        """Take the weights that `save` wrote, if it wrote any. Collective."""
        if not (folder / FILE).is_file():
            return
        from safetensors import safe_open

        with safe_open(folder / FILE, framework="pt") as weights:
            for name, parameter in self._policy.named_parameters():
                with self._gather(parameter, writes=True):
                    parameter.data.copy_(weights.get_tensor(name))
        self._refreshed = True

    def _gather(self, parameter: Tensor, writes: bool = False) -> Any:
        """Make a parameter whole while the block is open; what rank 0 then holds is shared out again when it `writes`."""
        import deepspeed

        return deepspeed.zero.GatheredParameters(
            [parameter], modifier_rank=0 if writes else None, enabled=self._sharded
        )


def _take_part(parameter: Any, source: Any) -> None:
    """Overwrite this rank's part of a frozen parameter of ZeRO-3's; what is whole because it is small is gathered anew."""
    assert parameter.ds_tensor.shape == source.ds_tensor.shape, "both are divided over the same ranks"
    if parameter.ds_status.name == "AVAILABLE":
        parameter.partition()
    parameter.ds_tensor.data.copy_(source.ds_tensor.data)
    parameter.ds_secondary_tensor = None  # the copy that a node keeps (ZeRO++ hpZ) is of the weights before


def refresh_is_due(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` optimizer steps lies in (before, after]; `every` 0: never."""
    return every > 0 and before // every != after // every
