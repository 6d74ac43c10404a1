"""The stage's result: an ordinary Hugging Face folder that `transformers` and vLLM load."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from learner.model.lora import adapted_layers, adapter_config, adapter_parameters, merged_weight
from learner.publish.buckets import carry, gather
from learner.publish.shared_memory import base_parameters

ADAPTER_FOLDER = "adapter"
FILE_BYTES = "5GB"
"""Largest file of weights: `safetensors` holds a copy of one file while it writes it."""


def export_model(
    model: Any,
    folder: Path,
    tokenizer_from: str,
    *,
    rank: int,
    sharded: bool,
    bucket_bytes: int,
    trust_remote_code: bool,
) -> None:
    """Weights, config, generation config, and the tokenizer of `tokenizer_from`; rank 0 writes. Collective.

    Adapters are merged into the weights, one layer at a time, and stand beside them in `adapter/` in peft's form. The
    live weights stay as they are.
    """
    writes = rank == 0
    state = merged_weights(model, bucket_bytes, sharded=sharded, keeps=writes)
    adapter = _collect(adapter_parameters(model), bucket_bytes, sharded, writes)
    if writes:
        _write(model, state, adapter, folder, tokenizer_from, trust_remote_code)


def merged_weights(model: Any, bucket_bytes: int, *, sharded: bool, keeps: bool) -> dict[str, Tensor]:
    """Name in a model's file → weight on the CPU, adapters merged into theirs. Collective where `sharded`.

    `keeps`: false on a rank that only helps to gather, which gets nothing.
    """
    layers = adapted_layers(model) if adapter_parameters(model) else {}
    plain = [(name, parameter) for name, parameter in base_parameters(model) if name not in layers]
    state = _collect(plain, bucket_bytes, sharded, keeps)
    for name, layer in layers.items():
        with gather(list(layer.parameters()), sharded):
            if keeps:
                state[name] = merged_weight(layer).cpu()
    return state


def _collect(parameters: list[tuple[str, Any]], limit: int, sharded: bool, keeps: bool) -> dict[str, Tensor]:
    """Name → parameter on the CPU; what is whole and there already is not copied."""

    def take(_: int, bucket: list[tuple[str, Any]]) -> dict[str, Tensor]:
        return {name: p.detach().cpu().clone() if sharded else p.detach().cpu() for name, p in bucket}

    parts = carry(parameters, limit, sharded, take if keeps else None)
    return {name: tensor for part in parts for name, tensor in part.items()}


def _write(
    model: Any,
    state: dict[str, Tensor],
    adapter: dict[str, Tensor],
    folder: Path,
    tokenizer_from: str,
    trust_remote_code: bool,
) -> None:
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    write_weights(model, state, aside)
    write_tokenizer(tokenizer_from, aside, trust_remote_code=trust_remote_code)
    if adapter:
        write_adapter(model, adapter, aside / ADAPTER_FOLDER)
    _complete(aside, folder)


def write_weights(model: Any, state: dict[str, Tensor], folder: Path) -> None:
    """Weights of these names, config and generation config of a model."""
    model.save_pretrained(folder, state_dict=state, max_shard_size=FILE_BYTES)


def write_tokenizer(tokenizer_from: str, folder: Path, *, trust_remote_code: bool) -> None:
    """The tokenizer of another model folder, with its chat template."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(tokenizer_from, trust_remote_code=trust_remote_code).save_pretrained(folder)


def write_adapter(model: Any, adapter: dict[str, Tensor], folder: Path) -> None:
    """An adapter in peft's form."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in adapter.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config(model), indent=2))


def _complete(aside: Path, folder: Path) -> None:
    """Sync what was written aside and put it in its place, as orchestrator/run/files.py does; the learner cannot import it."""
    for place, _, names in os.walk(aside):
        for path in (*(Path(place, name) for name in names), Path(place)):
            _sync(path)
    old = folder.with_name(folder.name + ".old.part")
    if folder.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    aside.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        # Some network file systems cannot sync a folder; there its names are as safe as they get.
        if not path.is_dir() or problem.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
