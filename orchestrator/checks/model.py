"""Whether the model that a stage starts from is there, whole, and fits the stage: folder, hub id."""

import os
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

from orchestrator.checks.engine import cpu_head_sizes
from orchestrator.checks.naming import key_in
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.sections.model import ModelSection
from orchestrator.config.stage_kinds import kind_of
from orchestrator.plan.machine import on_gpus
from orchestrator.plan.model_folder import (
    ONLY_WHEN_SAMPLING,
    cached_folder,
    check_whole,
    embedding_rows,
    generation_faults,
    is_local,
    read_config,
    read_json_file,
    token_ids_in,
    tokenizer_ids,
)
from rollout.errors import InputError, did_you_mean


def check_model(recipe: Recipe, stage: Stage, *, training: bool = True) -> list[str]:
    """Notes about the model of a stage. Raises InputError when it is not there, not whole, or does not fit."""
    path = stage.model.path
    if not path:
        _check_heads(recipe, stage, stage.model.build.heads)
        return []
    named = f"{key_in(recipe, stage, 'model.path')} = {path!r}"
    notes = check_place(named, path)
    if Path(path).is_dir():
        _check_folder(recipe, stage, named, Path(path))
        notes += _check_written_back(named, Path(path)) if training else []
    return notes


def check_place(named: str, path: str) -> list[str]:
    """Notes about a model by its folder or hub id. Raises InputError, with `named` in front, when it is not there or not whole."""
    folder = Path(path)
    if folder.is_dir():
        read_config(folder, named)
        check_whole(folder, named)
        _check_vocabulary(named, folder)
        return []
    if folder.is_file():
        raise InputError(f"{named}: is a file; give the folder that holds config.json, weights and tokenizer")
    if path.startswith("~"):
        raise InputError(f"{named}: ~ is not expanded here; write {str(folder.expanduser())!r}")
    if is_local(path):
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise InputError(f"{named}: no folder there{did_you_mean(folder.name, beside)}")
    return _check_hub(named, path)


def _check_hub(named: str, name: str) -> list[str]:
    """A hub id is taken as it is; whether it is on this machine already can be told from the cache."""
    if cached_folder(name):
        return []
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise InputError(
            f"{named}: no such folder, not in the Hugging Face cache, and HF_HUB_OFFLINE forbids to download it"
        )
    return [f"{named} is not on this machine yet; it will be downloaded from the Hugging Face hub"]


def _check_folder(recipe: Recipe, stage: Stage, named: str, folder: Path) -> None:
    config = read_config(folder, named)
    _check_code(named, config, stage.model)
    positions = config.get("max_position_embeddings")
    stretched = config.get("rope_scaling") or config.get("rope_parameters", {}).get("factor")
    if isinstance(positions, int) and not stretched and stage.model.max_tokens > positions:
        raise InputError(
            f"{key_in(recipe, stage, 'model.max_tokens')} = {stage.model.max_tokens}: "
            f"the model has only {positions} positions (max_position_embeddings in its config.json); lower it"
        )
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    if isinstance(heads, int):
        _check_heads(recipe, stage, heads)
        size = config.get("head_dim") or (width // heads if isinstance(width, int) else 0)
        _check_head_size(recipe, stage, named, size)


def _check_vocabulary(named: str, folder: Path) -> None:
    """Raises InputError for ids without a row in the embedding: looking one up would end the run."""
    config = read_config(folder, named)
    rows, ids = embedding_rows(folder), tokenizer_ids(folder)
    said = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    if rows and isinstance(said, int) and said != rows:
        raise InputError(
            f"{named}: config.json says vocab_size = {said}, the embedding has {rows} rows; make them the same"
        )
    rows = rows or (said if isinstance(said, int) else 0)
    if rows and ids > rows:
        raise InputError(
            f"{named}: the tokenizer has ids up to {ids - 1}, the embedding {rows} rows (0 to {rows - 1}); copy the tokenizer "
            f"that belongs to the weights, or save the model after resize_token_embeddings({ids})"
        )
    generation = folder / "generation_config.json"
    for file, held in (("config.json", config), (generation.name, read_json_file(generation))):
        for key, token in token_ids_in(held).items():
            if rows and token >= rows:
                raise InputError(
                    f"{named}: {file} says {key} = {token}, the embedding has {rows} rows; correct it there"
                )


def _check_written_back(named: str, folder: Path) -> list[str]:
    """Notes on what an export will say otherwise than the folder. Raises InputError for weights that cannot be trained."""
    method = (read_config(folder, named).get("quantization_config") or {}).get("quant_method")
    if method:
        raise InputError(
            f"{named}: its weights are quantized ({method}), which can be sampled from and not trained; give the model that it "
            "was made from"
        )
    generation = read_json_file(folder / "generation_config.json")
    returned = generation.get("num_return_sequences")
    alone = generation.get("do_sample") is not True and (generation.get("num_beams") or 1) == 1
    if isinstance(returned, int) and returned > 1 and alone:
        raise InputError(
            f"{named}: generation_config.json has num_return_sequences = {returned} without do_sample, which transformers does not "
            "load; remove the key"
        )
    faults = generation_faults(folder)
    if not faults:
        return []
    listed = ", ".join(f"{key} = {value}" for key, value in faults.items())
    dropped = [
        key for key, value in faults.items() if key not in ONLY_WHEN_SAMPLING or (key, value) == ("temperature", 0)
    ]
    mended = [f"leave out {', '.join(dropped)}"] if dropped else []
    mended += ["say do_sample = true"] if len(dropped) < len(faults) else []
    return [
        f"{named}: generation_config.json has {listed}, which transformers does not write back as it is; exports will "
        f"{' and '.join(mended)}"
    ]


def _check_heads(recipe: Recipe, stage: Stage, heads: int) -> None:
    workers = stage.rollout.tensor_parallel
    if heads % workers:
        named = key_in(recipe, stage, "rollout.tensor_parallel")
        raise InputError(f"{named} = {workers}: does not divide the {heads} attention heads of the model")
    together = stage.learner.sequence_parallel
    if heads < together:
        named = key_in(recipe, stage, "learner.sequence_parallel")
        raise InputError(
            f"{named} = {together}: ranks divide heads, and the model has {heads}; set it to {heads} at most"
        )


def _check_head_size(recipe: Recipe, stage: Stage, named: str, size: int) -> None:
    served = cpu_head_sizes() if kind_of(stage).generates and not recipe.cluster.address and not on_gpus() else ()
    if size and served and size not in served:
        raise InputError(
            f"{named}: its attention heads have a size of {size}, and engines on a CPU serve {', '.join(map(str, served))}; take "
            "another model, or a host with GPUs"
        )


def _check_code(named: str, config: Mapping[str, Any], model: ModelSection) -> None:
    """A model that `transformers` knows needs no code of its own, whatever its config offers."""
    kind = str(config.get("model_type", ""))
    spec = util.find_spec("transformers")
    places = list(spec.submodule_search_locations or ()) if spec else []
    known = any((Path(place) / "models" / kind.replace("-", "_")).is_dir() for place in places) if kind else False
    if config.get("auto_map") and not known and not model.trust_remote_code:
        raise InputError(
            f"{named}: the model runs Python from its own folder (auto_map in config.json); "
            "read it, then set model.trust_remote_code=true"
        )
