"""LoRA by peft: the base is frozen, and beside each of its linear layers trains a small adapter, y = W x + α/r · B A x.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021). A begins random and B with zero, so that a stage
begins with exactly its base. The adapters are put into the model in place: its class, its names and its forward pass
stay those of `transformers`. Of a reward model the value head (`score`) trains as well, as a whole.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from learner.model.policy import PackTensors, Policy, RewardModel
from learner.spec import LearnerSpec
from rollout.errors import InputError, did_you_mean

ADAPTER = "default"
"""peft's name of the only adapter. It is part of parameter names, and of no file."""
HEAD = "score"
"""The value head of a reward model."""


def add_adapters(module: Policy | RewardModel, spec: LearnerSpec) -> None:
    """Freeze the base and put adapters beside the layers of `spec.lora_targets` (none named: all but the head).

    The module's `state_dict` holds from then on what trains and nothing else.

    Raises:
        InputError: a target is not the name of linear layers of the model.
    """
    from peft import LoraConfig, TaskType, inject_adapter_in_model

    model, scores = module.model, spec.head == "score"
    _check_targets(model, spec)
    config = LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,
        target_modules=list(spec.lora_targets) or "all-linear",
        task_type=TaskType.SEQ_CLS if scores else TaskType.CAUSAL_LM,
        modules_to_save=[HEAD] if scores else None,
        base_model_name_or_path=spec.model_path,
    )
    inject_adapter_in_model(config, model, ADAPTER)
    module.register_state_dict_post_hook(_keep_trained)


def _check_targets(model: Any, spec: LearnerSpec) -> None:
    heads = (model.get_output_embeddings(), getattr(model, HEAD, None))
    layers = {
        name.rpartition(".")[2]
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer not in heads
    }
    for target in spec.lora_targets:
        if target not in layers:
            raise InputError(
                f"learner.lora_targets: {target!r} is no linear layer of {spec.model_path!r}"
                f"{did_you_mean(target, layers)}; there is: {', '.join(sorted(layers))}"
            )


def base_name(name: str) -> str | None:
    """The name that a parameter has in the model without adapters; None for what exists only because of them."""
    if ".lora_A." in name or ".lora_B." in name or ".original_module." in name:
        return None
    return name.replace(".base_layer.", ".").replace(f".modules_to_save.{ADAPTER}.", ".")


def adapter_parameters(model: Any) -> list[tuple[str, Any]]:
    """(name in an adapter's file of peft's, parameter) of what trains; empty for a model without adapters."""
    found = []
    for name, parameter in model.named_parameters():
        if f".{ADAPTER}." in name and parameter.requires_grad:
            plain = name.replace(f".modules_to_save.{ADAPTER}.", ".").replace(f".{ADAPTER}.", ".")
            found.append((f"base_model.model.{plain}", parameter))
    return found


def adapter_config(model: Any) -> dict[str, Any]:
    """Content of `adapter_config.json` as peft writes it."""
    config = model.peft_config[ADAPTER].to_dict()
    # Sets have no order, and a file of the same adapter should be the same file.
    return {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(config.items())}


def adapted_layers(model: Any) -> Mapping[str, Any]:
    """Plain name of a weight → the peft layer round it."""
    from peft.tuners.lora import LoraLayer

    return {f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def merged_weight(layer: Any) -> Tensor:
    """W + α/r · B A of one layer, in W's dtype, computed in float32. The layer is left as it is."""
    weight = layer.get_base_layer().weight.detach()
    product = layer.lora_B[ADAPTER].weight.detach().float() @ layer.lora_A[ADAPTER].weight.detach().float()
    merged: Tensor = product.mul_(layer.scaling[ADAPTER]).add_(weight.float()).to(weight.dtype)
    return merged


class BaseReference:
    """The frozen reference of a policy with adapters: the policy without them. No second model is held."""

    def __init__(self, policy: Policy, forward: Any) -> None:
        """A policy and `forward`, its DeepSpeed engine, which gathers what is sharded."""
        self._policy = policy
        self._forward = forward

    @torch.no_grad()
    def logprobs(self, pack: PackTensors, temperature: float) -> Tensor:
        """[N] float32 log-probabilities of the targets; a collective under ZeRO-3."""
        with _without_adapters(self._policy):
            logprobs: Tensor = self._forward(pack, temperature)[0]
        return logprobs


@contextmanager
def _without_adapters(module: nn.Module) -> Iterator[None]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def load_trained(src: Mapping[str, Tensor], dst: nn.Module) -> None:
    """DeepSpeed's `custom_load_fn` for checkpoints that hold what trains: all of it must be there, and no more.

    Raises:
        InputError: the checkpoint was made with other adapters.
    """
    result = dst.load_state_dict(src, strict=False)
    lost = [
        name for name, parameter in dst.named_parameters() if parameter.requires_grad and name in result.missing_keys
    ]
    if lost or result.unexpected_keys:
        raise InputError(
            f"the checkpoint does not fit the model: it lacks {len(lost)} trained parameters and has "
            f"{len(result.unexpected_keys)} others, such as {(lost or result.unexpected_keys)[0]}; were learner.lora_* changed?"
        )


def _keep_trained(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Drop frozen parameters from a state. DeepSpeed does so by name, and misses the second name of a tied one."""
    for name, parameter in module.named_parameters(prefix.rstrip("."), remove_duplicate=False):
        if not parameter.requires_grad:
            state.pop(name, None)
