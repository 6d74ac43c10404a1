"""Bytes that a stage takes of a host without GPUs while it trains: what is held between steps, and the activations of a step.

A layer keeps the same tensors on a CPU as on a GPU whose layers are not compiled. tests/orchestrator/plan/test_host_memory.py holds
that against what autograd keeps, and the whole against the peak of a rank.
"""

from orchestrator.config.recipe import Stage
from orchestrator.plan.gpu_memory import activations, most_tokens
from orchestrator.plan.memory import memory, vocabulary
from orchestrator.plan.model_shape import model_shape

HEAD_TILE_BYTES = 16 << 20
"""Logits of one tile of the head on a CPU (learner/model/head.py)."""
RANK_BYTES = 500_000_000
"""Bytes of a rank's process before it opens a model: Python, torch, DeepSpeed, Ray."""


def host_memory(stage: Stage) -> dict[str, float]:
    """Part of the memory → estimated bytes over all processes when there is most, with the fullest pack that the recipe allows.

    Engines and ranks; activations are missing where the shape of the model is not known here. Empty: its size is not.
    """
    parts = memory(stage)
    if not parts:
        return {}
    parts["processes of the ranks"] = float(RANK_BYTES * stage.learner.ranks)
    shape = model_shape(stage.model, vocabulary(stage.model))
    if shape:
        own = activations(stage, shape, most_tokens(stage), compiled=False, tile=HEAD_TILE_BYTES)
        parts["activations"] = own * stage.learner.ranks
    return parts
