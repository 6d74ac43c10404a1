"""A Hugging Face folder from a checkpoint, in one process: without ranks, without a GPU, whatever it was written with.

The model is in memory once, in the dtype that it trained in, and beside it one parameter in float32: shards are mapped and read
as they are asked for. Rounding and merging are those of the stage's own export (learner/export.py), so the weights are, to the
last bit, those that it would have written then.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from learner.checkpoint import Shards, read_record
from learner.export import merged_weights, write_adapter, write_tokenizer, write_weights
from learner.model.lora import adapter_parameters, add_adapters
from learner.spec import LearnerSpec
from learner.trained_model import load_module
from rollout.errors import InputError


def export_checkpoint(
    spec: LearnerSpec, checkpoint: Path, folder: Path, tokenizer_from: str, *, adapter_only: bool = False
) -> None:
    """Write the model of a checkpoint into an empty folder.

    Args:
        spec: what the stage opened its model with; its dtype is that of the checkpoint.
        adapter_only: the adapter in peft's form in place of the model with the adapter merged.

    Raises:
        FileNotFoundError: there is no checkpoint, or no more.
        InputError: the model that the stage started from cannot be loaded, or is another.
    """
    layout, _ = read_record(checkpoint)
    saved = Shards(checkpoint)  # holds its files open: a run that goes on may delete them meanwhile
    dtype: Any = layout.dtype
    spec = replace(spec, dtype=dtype, reference_path="")
    module = load_module(spec)
    if spec.lora_rank:
        add_adapters(module, spec)
    module.to(getattr(torch, spec.dtype))
    _take(module, saved, checkpoint)
    model: Any = module.model
    if adapter_only:
        write_adapter(model, {name: each.detach() for name, each in adapter_parameters(model)}, folder)
    else:
        state = merged_weights(model, spec.bucket_bytes, sharded=False, keeps=True)
        write_weights(model, state, folder)
    write_tokenizer(tokenizer_from, folder, trust_remote_code=spec.trust_remote_code)


@torch.no_grad()
def _take(module: torch.nn.Module, saved: Shards, checkpoint: Path) -> None:
    """Overwrite what trains with what was saved, a parameter at a time."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if strange := trained.keys() ^ saved.names:
        raise InputError(
            f"{checkpoint} is of another model than the recipe says: one of the two has no parameter {min(strange)}"
        )
    for name, parameter in trained.items():
        values = saved.tensor(name, "weights")
        if values.numel() != parameter.numel():
            raise InputError(
                f"{checkpoint} is of another model than the recipe says: {name} has {values.numel():,} values there, "
                f"{parameter.numel():,} in the model"
            )
        parameter.copy_(values.view(parameter.shape))
