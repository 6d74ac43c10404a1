"""The folder of an exported model, whole or absent: weights or adapter, tokenizer, model card."""

import os
import shutil
import sys
from pathlib import Path

from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.wiring import parent_of
from orchestrator.export.base import Base, rename_adapter_base
from orchestrator.export.card import model_card
from orchestrator.export.chosen import Chosen
from orchestrator.plan.model_folder import is_local
from orchestrator.run.files import check_writable, new_folder
from orchestrator.run.folder import start_model
from orchestrator.run.stubs import whole
from rollout.errors import InputError, ServiceError
from rollout.storage.folders import MANIFEST

ADAPTER = "adapter"
"""Folder of the adapter inside of a stage's export."""


def check_target(folder: Path) -> None:
    """Raises InputError unless a folder can be made there; an empty one may be there."""
    check_writable("DIR", folder / "config.json")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"DIR {folder}: is not empty; name a new folder")


def check_adapter(chosen: Chosen, base: Base, *, published: bool) -> None:
    """Raises InputError where a model has no adapter, or one that nobody else could put on anything.

    Args:
        published: whether it goes to a hub.
    """
    name = f"{chosen.run.directory}/{chosen.stage.name}"
    if not chosen.stage.learner.lora_rank:
        raise InputError(f"--adapter: {name} trained the whole model (learner.lora_rank = 0); leave the option out")
    if published and not base.hub_id:
        raise InputError(
            f"--adapter --push: the model that {name} started from has no known name on the hub, without which the adapter is "
            "of no use to others; push that model, and name it with --base-model OWNER/NAME"
        )


def adapter_base(chosen: Chosen, base: Base, given: str) -> Base:
    """What an adapter is put on: the model that its stage started from, which is the line's base only for a first stage."""
    parent = parent_of(chosen.recipe.stages, chosen.stage)
    if parent is None or given:
        return base
    return Base(hub_id="", words=f"the model of stage {parent.name}", licence=base.licence)


def write_model(chosen: Chosen, base: Base, folder: Path, *, name: str, adapter: bool) -> None:
    """Write the model that is meant.

    Args:
        name: what its card calls it.
        adapter: the adapter alone in place of the model with the adapter merged.

    Raises:
        InputError: what the stage started from is gone, or is another model; the checkpoint is gone.
        ServiceError: the disk is full, or fails. Nothing of the folder is left.
    """
    from safetensors import SafetensorError

    try:
        with new_folder(folder.resolve()) as aside:
            if chosen.checkpoint is None:
                _copy(chosen, aside, adapter=adapter)
            else:
                _consolidate(chosen, whole(chosen.checkpoint), aside, adapter=adapter)
            if adapter and base.hub_id:
                rename_adapter_base(aside, base.hub_id)
            card = model_card(chosen, base, name=name, adapter=adapter)
            (aside / "README.md").write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as problem:
        raise ServiceError(f"{folder}: could not be written: {problem}; nothing of it is left") from problem


def _copy(chosen: Chosen, aside: Path, *, adapter: bool) -> None:
    """The stage's own export is already what is asked for."""
    export = whole(chosen.export)
    if not adapter:
        shutil.copytree(
            export, aside, ignore=shutil.ignore_patterns(ADAPTER, "README.md", MANIFEST), dirs_exist_ok=True
        )
        return
    from learner.export import write_tokenizer

    shutil.copytree(export / ADAPTER, aside, dirs_exist_ok=True)
    write_tokenizer(str(export), aside, trust_remote_code=chosen.stage.model.trust_remote_code)


def _consolidate(chosen: Chosen, checkpoint: Path, aside: Path, *, adapter: bool) -> None:
    """The model of a checkpoint, put together in this process: no ranks, no cluster, no GPU."""
    # DeepSpeed's classes are in the files, and it looks for a device when it is imported: a GPU may be somebody's at work.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from transformers.utils.logging import disable_progress_bar

    from learner.from_checkpoint import export_checkpoint
    from orchestrator.cluster.specs import learner_spec

    if not sys.stderr.isatty():
        disable_progress_bar()
    start = start_model(chosen.recipe, chosen.stage, chosen.run.directory)
    if is_local(start):
        start = str(whole(Path(start)))
    spec = learner_spec(chosen.stage, start, "", chosen.recipe.seed, "cpu")
    try:
        export_checkpoint(spec, checkpoint, aside, _tokenizer(chosen, start), adapter_only=adapter)
    except FileNotFoundError as gone:
        raise InputError(
            f"{checkpoint}: is not whole, or was deleted just now by the run that goes on ({gone})"
        ) from gone


def _tokenizer(chosen: Chosen, start: str) -> str:
    """Folder or hub id of the tokenizer: the model's own, unless the stage wrote one. That of a reward model writes pairs as it
    reads them, and others carry what the recipe says of the chat template.
    """
    if kind_of(chosen.stage).leaves != "rewards" and not chosen.stage.data.dress:
        return start
    folder = chosen.run.directory / chosen.stage.name / "tokenizer"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is not there yet; `rayzero train {chosen.run.directory}` writes it when the stage goes on"
        )
    return str(folder)
