"""Bytes of a host without GPUs: against what autograd keeps of a layer, and a peak that was measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.batch import TrainingSequence, make_batch
from learner.model import head
from learner.model.policy import load_policy, to_device
from orchestrator.config.recipe import Stage
from orchestrator.plan.gpu_memory import activations
from orchestrator.plan.host_memory import HEAD_TILE_BYTES, RANK_BYTES, host_memory
from orchestrator.plan.model_shape import ModelShape
from tests.orchestrator.factories import recipe

pytestmark = pytest.mark.usefixtures("laptop")


def test_what_is_said_of_other_modules_is_so() -> None:
    assert head._TILE_BYTES["cpu"] == HEAD_TILE_BYTES


def stage_of(**learner: Any) -> Stage:
    return recipe(
        model={"dtype": "float32", "build": {"tokenizer": "characters"}}, learner={"kl_coef": 0, **learner}
    ).stages[0]


def predicted(shape: ModelShape, tokens: int, **learner: Any) -> float:
    return activations(stage_of(**learner), shape, tokens, compiled=False, tile=HEAD_TILE_BYTES)


@pytest.mark.parametrize(("hidden", "intermediate", "heads", "kv_heads"), [(72, 192, 9, 3), (64, 256, 4, 4)])
@pytest.mark.parametrize("same", [1, 8], ids=["prompts of their own", "shared prompts"])
def test_a_layer_keeps_what_is_predicted(
    tmp_path: Path, hidden: int, intermediate: int, heads: int, kv_heads: int, same: int
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), torch.float32, trust_remote_code=False, logit_chunk_tokens=64)
    rng, rows = np.random.default_rng(0), []
    for number in range(16):
        if number % same == 0:
            prompt = rng.integers(2, 64, 40)
        ids = np.concatenate([prompt, rng.integers(2, 64, int(rng.integers(20, 64)))])
        rows.append(TrainingSequence(token_ids=ids, first_target=40, advantage=1.0))
    cut: dict[str, Any] = {"ranks": 1, "mini_batches": 1, "micro_batch_tokens": 10**6, "length_norm": "token"}
    ((pack,),) = make_batch(rows, **cut, constant_length=1, temperature=1.0, seed=0).packs[0]
    tokens, known = len(pack.token_ids), {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}
    held: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy(to_device(pack, torch.device("cpu")), 1.0)
    kept_tokens = sum(tensor.untyped_storage().nbytes() for place, tensor in held.items() if place not in known)
    size = hidden // heads
    shape = {"hidden": hidden, "intermediate": intermediate, "query": heads * size, "key": kv_heads * size}
    one, two = (predicted(ModelShape(layers=layers, vocabulary=64, **shape), tokens) for layers in (1, 2))
    assert kept_tokens == pytest.approx(2 * (two - one), rel=0.2)


def test_a_host_holds_states_processes_and_the_fullest_pack() -> None:
    stage = stage_of(ranks=2, micro_batch_tokens=1000)
    parts = host_memory(stage)
    assert parts["processes of the ranks"] == 1e9
    assert {"engine weights", "learner", "activations"} <= set(parts)
    less = host_memory(stage_of(ranks=2, micro_batch_tokens=1000, activation_checkpointing=True))
    assert less["activations"] < parts["activations"]


def test_a_rank_takes_what_was_measured() -> None:
    """A Qwen2 of 33,047,616 parameters, 8 layers; peak of VmHWM in three steps whose fullest pack had 1,333 to 1,509 tokens."""
    shape = ModelShape(layers=8, hidden=576, intermediate=1536, query=576, key=192, vocabulary=8192)
    estimate = 16 * 33_047_616 + RANK_BYTES + predicted(shape, 1509)
    assert estimate / 1e9 == pytest.approx(1.84, rel=0.2)
