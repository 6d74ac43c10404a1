"""A recipe, a model folder and a data file that pass every check; a test spoils one thing."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks.preflight import preflight
from orchestrator.config.load import parse_recipe
from orchestrator.config.recipe import Recipe
from rollout.errors import InputError

CONFIG = {"model_type": "qwen2", "num_attention_heads": 4, "max_position_embeddings": 512}
DOWNLOAD = "model.path = 'org/model' is not on this machine yet; it will be downloaded from the Hugging Face hub"
"""The note about the model of `recipe()`."""

R1_SOURCES = ("cold-start", "math", "code", "general", "helpful-pairs", "harmless-pairs", "helpful", "harmless")
R1_SETS = ("gsm8k", "aime24", "amc23", "humaneval")
NEEDED: Mapping[str, tuple[str, ...]] = {
    "gsm8k": ("model.path=org/model",),
    "r1-zero": ("model.path=org/model", "data.sources.math.path=math.jsonl", "eval.sets.aime24.path=aime24.jsonl"),
    "r1": (
        "model.path=org/model",
        "stages.student.model.path=org/student",
        *(f"data.sources.{name}.path={name}.jsonl" for name in R1_SOURCES),
        *(f"eval.sets.{name}.path={name}-set.jsonl" for name in R1_SETS),
    ),
}
"""What a shipped recipe leaves to the user, as it is given on the command line."""


def safetensors(shape: tuple[int, ...] = (10, 4), name: str = "w") -> bytes:
    size = 4 * int(shape[0]) * int(shape[1])
    header = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def model_folder(folder: Path, **files: bytes | None) -> Path:
    """A folder that passes; `files` replaces by name (dots as underscores), None leaves out."""
    content: dict[str, bytes | None] = {
        "config_json": json.dumps(CONFIG).encode(),
        "model_safetensors": safetensors(),
        "tokenizer_json": b"{}",
        **files,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        if data is not None:
            stem, _, suffix = name.rpartition("_")
            (folder / f"{stem}.{suffix}").write_bytes(data)
    return folder


def decoder_folder(
    folder: Path, *, hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, vocab: int, tied: bool
) -> Path:
    """A folder with the config and the tensors' shapes of a Qwen2, and none of their bytes."""
    key = hidden // heads * kv_heads
    layer = {
        "self_attn.q_proj.weight": [hidden, hidden],
        "self_attn.q_proj.bias": [hidden],
        "self_attn.k_proj.weight": [key, hidden],
        "self_attn.k_proj.bias": [key],
        "self_attn.v_proj.weight": [key, hidden],
        "self_attn.v_proj.bias": [key],
        "self_attn.o_proj.weight": [hidden, hidden],
        "mlp.gate_proj.weight": [intermediate, hidden],
        "mlp.up_proj.weight": [intermediate, hidden],
        "mlp.down_proj.weight": [hidden, intermediate],
        "input_layernorm.weight": [hidden],
        "post_attention_layernorm.weight": [hidden],
    }
    shapes = {f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden]}
    shapes |= {} if tied else {"lm_head.weight": [vocab, hidden]}
    header = json.dumps(
        {name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    ).encode()
    config = {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 131072,
    }
    return model_folder(
        folder,
        config_json=json.dumps(config).encode(),
        model_safetensors=struct.pack("<Q", len(header)) + header,
        tokenizer_config_json=b'{"chat_template": "{{ messages }}"}',
    )


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def recipe(**sections: Any) -> Recipe:
    """One RL stage on a generated task, with a model from the hub."""
    raw: dict[str, Any] = {
        "name": "small",
        "model": {"path": "org/model"},
        "data": {"sources": {"a": {"task": "arithmetic", "limit": 50}}},
        "stages": [{"name": "rl", "kind": "grpo"}],
        **sections,
    }
    return parse_recipe(raw)


def fault(checked: Recipe) -> str:
    """What preflight refuses a recipe with."""
    with pytest.raises(InputError) as caught:
        preflight(checked)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 3
    return text
