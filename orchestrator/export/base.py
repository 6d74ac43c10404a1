"""The model that a line of stages began with: its name on a hub, and its licence where that is known here."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.wiring import root_of
from orchestrator.plan.model_folder import is_local

CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
"""Name of the folder in which the hub's cache holds a model."""
LICENCE = ("license", "license_name", "license_link")
"""Keys of a model card's front matter that say under which licence a model is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Where a model comes from."""

    hub_id: str
    """Name on a hub; empty: not known, or nowhere."""
    words: str
    """The model for a reader, without a path of this machine."""
    licence: dict[str, str] = field(default_factory=dict)
    """Keys of LICENCE as the base's own card has them; empty: not known."""
    built: bool = False
    """Whether the run built it from random weights, so that no terms of another model hold."""


def base_of(recipe: Recipe, stage: Stage, hub_id: str = "") -> Base:
    """The model that a stage's line began with. `hub_id`: what the user says of it; empty: by the recipe."""
    model = root_of(recipe.stages, stage).model
    if not model.path and not hub_id:
        build = model.build
        words = f"a model built for it from scratch, {build.layers} layers of {build.hidden}"
        return Base(hub_id="", words=words, built=True)
    hub_id = hub_id or _hub_id(model.path)
    return Base(hub_id=hub_id, words=hub_id or Path(model.path).name, licence=_licence(model.path, hub_id))


def _hub_id(path: str) -> str:
    if not is_local(path):
        return path
    cached = next((found for part in Path(path).parts if (found := CACHED.fullmatch(part))), None)
    return f"{cached[1]}/{cached[2]}" if cached else ""


def _licence(path: str, hub_id: str) -> dict[str, str]:
    """What the base's card says, from its folder or the hub's cache: nothing is downloaded."""
    from huggingface_hub import metadata_load, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    from yaml import YAMLError

    try:
        cached = try_to_load_from_cache(hub_id, "README.md") if hub_id else None
    except HFValidationError:  # what the recipe names is nowhere on the hub
        cached = None
    for card in (Path(path, "README.md"), *([Path(cached)] if isinstance(cached, str) else [])):
        if not card.is_file():
            continue
        try:
            said: Mapping[str, Any] = metadata_load(card) or {}
        except (YAMLError, ValueError, OSError):  # somebody else's card, which need not be in order
            continue
        found = {key: value for key in LICENCE if isinstance(value := said.get(key), str)}
        if "license" in found:
            return _with_whole_link(found, hub_id)
    return {}


def _with_whole_link(licence: dict[str, str], hub_id: str) -> dict[str, str]:
    """A link to a file beside the base's card leads there from other folders too, or is left out."""
    link = licence.get("license_link", "")
    if not link or link.startswith(("https://", "http://")):
        return licence
    if hub_id:
        return {**licence, "license_link": f"https://huggingface.co/{hub_id}/blob/main/{link}"}
    return {key: value for key, value in licence.items() if key != "license_link"}


def rename_adapter_base(folder: Path, hub_id: str) -> None:
    """Name the model that an adapter belongs to by its hub id in place of a path."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = hub_id
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
