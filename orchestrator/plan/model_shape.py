"""Widths and depth of a decoder, from the `config.json` of its folder or from `model.build`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.sections.model import ModelSection
from orchestrator.plan.model_folder import read_config


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes that activations and caches follow from."""

    layers: int
    hidden: int
    """Width of the residual stream."""
    intermediate: int
    """Width of the feed-forward layers."""
    query: int
    """Width of the queries: heads × head size."""
    key: int
    """Width of the keys, and of the values: key/value heads × head size."""
    vocabulary: int


def model_shape(model: ModelSection, vocabulary: int) -> ModelShape | None:
    """The shape of a stage's model; None: not known here.

    Args:
        vocabulary: tokens of the model that `model.build` describes.
    """
    if model.path:
        folder = Path(model.path)
        return _of_config(read_config(folder, model.path)) if (folder / "config.json").is_file() else None
    build = model.build
    return ModelShape(
        layers=build.layers,
        hidden=build.hidden,
        intermediate=build.intermediate,
        query=build.hidden,
        key=build.hidden // build.heads * build.kv_heads,
        vocabulary=vocabulary,
    )


def _of_config(config: dict[str, Any]) -> ModelShape | None:
    """None where a size does not stand under its usual name."""
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    layers, hidden, intermediate, heads, vocabulary = (_size(config.get(name)) for name in names)
    if not (layers and hidden and intermediate and heads and vocabulary):
        return None
    head = _size(config.get("head_dim")) or hidden // heads
    return ModelShape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        query=heads * head,
        key=(_size(config.get("num_key_value_heads")) or heads) * head,
        vocabulary=vocabulary,
    )


def _size(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
