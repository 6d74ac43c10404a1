"""Parameters and bytes of the stages of a recipe: estimates from the recipe and the files of the model alone."""

from pathlib import Path

from orchestrator.config.recipe import Stage
from orchestrator.config.sections.model import BuildSection, ModelSection
from orchestrator.config.stage_kinds import kind_of
from orchestrator.plan.machine import on_gpus
from orchestrator.plan.model_folder import folder_parameters, tensor_shapes

CHARACTER_VOCABULARY = 262
"""Tokens of `model.build.tokenizer = "characters"`: 256 bytes, four tags, two special tokens (learner/model/small.py)."""
NOT_ADAPTED = ("embed", "lm_head", "wte", "wpe", "score", "classifier", "norm")
"""Parts of the names of matrices that get no adapter: embeddings and heads."""
TRAINING_BYTES = {
    4: ((16, 0), (8, 12), (4, 16), (0, 20)),
    2: ((8, 12), (8, 12), (2, 16), (0, 18)),
}
"""Bytes an item of the forward pass → by ZeRO stage (bytes a parameter on every rank, bytes divided over the ranks).

float32 is weights 4, gradients 4, AdamW's two moments 8; from stage 1 on DeepSpeed steps on a copy of the weights, 4 more.
bfloat16 is weights 2, gradients 2, their sums in float32 4, master weights 4, moments 8; stage 0 is built as stage 1, and
from stage 2 on gradients are added to their sums at once. Not counted: the bucket in which DeepSpeed reduces gradients, and
what a step makes on its way. tests/orchestrator/plan/test_learner_bytes.py holds it against what is allocated.
"""


def wire_bytes(model: ModelSection) -> int:
    """Bytes a parameter in the engine and on the way to it."""
    return 2 if model.dtype == "bfloat16" or (model.dtype == "auto" and on_gpus()) else 4


def parameters(model: ModelSection) -> int:
    """Number of parameters of a model folder, or of the small model when there is no path; 0: not known here."""
    if not model.path:
        return _built_parameters(model)
    folder = Path(model.path)
    return folder_parameters(folder) if folder.is_dir() else 0


def vocabulary(model: ModelSection) -> int:
    """Tokens of the model that `model.build` describes."""
    return CHARACTER_VOCABULARY if model.build.tokenizer == "characters" else model.build.vocab_size


def _built_parameters(model: ModelSection) -> int:
    """Number of parameters of the Qwen2 that `model.build` describes."""
    build = model.build
    width, kv_width = build.hidden, build.hidden // build.heads * build.kv_heads
    attention = width * width + width + 2 * (width * kv_width + kv_width) + width * width
    layer = attention + 3 * width * build.intermediate + 2 * width
    return (1 if build.tied else 2) * vocabulary(model) * width + build.layers * layer + width


def linear_layers(model: ModelSection) -> dict[str, tuple[int, int]]:
    """Name → (outputs, inputs) of the layers that can have adapters; empty when the model's size is not known."""
    if not model.path:
        return _built_layers(model.build)
    folder = Path(model.path)
    shapes = tensor_shapes(folder) if folder.is_dir() else {}
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if len(shape) == 2 and name.endswith(".weight") and not any(part in name for part in NOT_ADAPTED)
    }


def _built_layers(build: BuildSection) -> dict[str, tuple[int, int]]:
    """Name → (outputs, inputs) of the linear layers of the Qwen2 that `model.build` describes."""
    width, kv_width, inner = build.hidden, build.hidden // build.heads * build.kv_heads, build.intermediate
    attention = {"q_proj": (width, width), "k_proj": (kv_width, width), "v_proj": (kv_width, width)}
    rest = {
        "o_proj": (width, width),
        "gate_proj": (inner, width),
        "up_proj": (inner, width),
        "down_proj": (width, inner),
    }
    return {f"{i}.{name}": shape for i in range(build.layers) for name, shape in (attention | rest).items()}


def adapter_parameters(stage: Stage) -> int:
    """Number of parameters of the adapters that train in place of the model (LoRA); 0: none, or not known here."""
    settings = stage.learner
    return sum(
        settings.lora_rank * sum(shape)
        for name, shape in linear_layers(stage.model).items()
        if not settings.lora_targets or name.rpartition(".")[2] in settings.lora_targets
    )


def rank_bytes(stage: Stage) -> float:
    """Estimated bytes that one rank holds on its GPU between two steps, with a reference; 0: the model's size is not known here."""
    held = {part: size for part, size in memory(stage).items() if not part.startswith("engine")}
    if held and not stage.learner.lora_rank:
        held["reference"] = _reference_bytes(stage)
    return (sum(held.values()) - offloaded_bytes(stage)) / stage.learner.ranks


def offloaded_bytes(stage: Stage) -> float:
    """Bytes over all ranks that `learner.offload_optimizer` keeps in the host's memory: master weights and moments."""
    if not stage.learner.offload_optimizer:
        return 0.0
    return 12.0 * (adapter_parameters(stage) if stage.learner.lora_rank else parameters(stage.model))


def memory(stage: Stage, training: bool = True) -> dict[str, float]:
    """Part of the memory → estimated bytes over all processes, without activations.

    Empty when the model's size is not known.
    """
    count = parameters(stage.model)
    if not count:
        return {}
    ranks, replicas, item = stage.learner.ranks, stage.rollout.replicas, wire_bytes(stage.model)
    parts = {"engine weights": float(replicas * count * item)}
    if not on_gpus():
        parts["engine KV cache"] = replicas * stage.rollout.kv_cache_gb * 2.0**30
    if not training:
        return parts
    whole, sharded = TRAINING_BYTES[item][stage.learner.zero_stage]
    if stage.learner.lora_rank:
        # The frozen base, in the dtype of the forward pass, is divided as parameters are: by stage 3.
        parts["frozen base"] = float(count * item * (1 if stage.learner.zero_stage == 3 else ranks))
        parts["adapters"] = float(adapter_parameters(stage) * (ranks * whole + sharded))
        return parts  # the reference is the base
    parts["learner"] = float(count * (ranks * whole + sharded))
    if kind_of(stage).needs_reference(stage.learner.kl_coef):
        parts["reference"] = _reference_bytes(stage)
    return parts


def _reference_bytes(stage: Stage) -> float:
    """Bytes of a frozen copy over all ranks. It is divided as parameters are: by stage 3 (learner/model/reference.py)."""
    copies = 1 if stage.learner.zero_stage == 3 else stage.learner.ranks
    return float(parameters(stage.model) * wire_bytes(stage.model) * copies)
