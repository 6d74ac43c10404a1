"""Architectures by name: what is served agrees with the model's own attention beyond its window and publishes the names of
its checkpoint; what is not is refused, and the message says what it is.

All from tiny configurations, in float32 on the CPU.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.batch import TrainingSequence
from learner.model.policy import load_policy, load_reward_model
from learner.publish.shared_memory import base_parameters
from rollout.errors import InputError
from tests.learner.packs import packs_of

WINDOW = 6
TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 16}
SLIDING_QWEN = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
GEMMA = {"sliding_window": WINDOW, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]}
PARTIAL = {"partial_rotary_factor": 1.0, "original_max_position_embeddings": 128}
LONG_ROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
"""Rotary embeddings that change their frequencies at a length: half the head's size of factors each."""

SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen2-sliding": ("qwen2", SLIDING_QWEN),
    "qwen3": ("qwen3", {}),
    "qwen3-sliding": ("qwen3", SLIDING_QWEN),
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "mistral-full": ("mistral", {"sliding_window": None}),
    "gemma2-uncapped": ("gemma2", GEMMA | {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma3": ("gemma3_text", GEMMA),
    "phi3": ("phi3", PARTIAL | {"sliding_window": WINDOW}),
    "olmo3": ("olmo3", {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma2": ("gemma2", GEMMA, "gemma2 needs soft caps"),
    "gemma2-logits": ("gemma2", GEMMA | {"attn_logit_softcapping": None}, "gemma2 rescales its logits"),
    "gemma3-logits": ("gemma3_text", GEMMA | {"final_logit_softcapping": 30.0}, "gemma3_text rescales its logits"),
    "gemma3-both-ways": ("gemma3_text", GEMMA | {"use_bidirectional_attention": True}, "later tokens"),
    "granite": ("granite", {"logits_scaling": 4.0}, "granite rescales its logits"),
    "cohere": ("cohere", {}, "cohere rescales its logits"),
    "qwen3-moe": ("qwen3_moe", EXPERTS, "qwen3_moe is a mixture of experts"),
    "mixtral": ("mixtral", EXPERTS, "mixtral is a mixture of experts"),
    "gpt-oss": ("gpt_oss", EXPERTS, "gpt_oss is a mixture of experts"),
    "phi3-long": ("phi3", PARTIAL | {"rope_parameters": LONG_ROPE}, "rotary embeddings that depend on the length"),
    "qwen2-dynamic": ("qwen2", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, r"batch \(dynamic\)"),
    "mamba": ("mamba", {}, "0 of them with causal attention"),
}


def write(folder: Path, kind: str, changes: dict[str, Any], spread: float = 0.3) -> str:
    """A model with random weights that differ from each other everywhere, norms and biases included."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(TINY | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += spread * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return str(folder)


def rows() -> list[TrainingSequence]:
    """Sequences up to four windows long: alone, of a prompt longer than the window, and of one shorter."""
    rng = np.random.default_rng(0)

    def ids(count: int) -> np.ndarray:
        return rng.integers(2, 64, size=count)

    long, short = ids(3 * WINDOW), ids(8)
    texts = [(long, 4), (long, 2), (long, 25), (short, 3), (short, 17), (ids(2), 22), (ids(3), 2)]
    return [
        TrainingSequence(token_ids=np.concatenate([prompt, ids(own)]), first_target=len(prompt))
        for prompt, own in texts
    ]


def by_transformers(folder: str, sequences: list[TrainingSequence]) -> list[Tensor]:
    """Log-probabilities of each sequence's targets by the model's own forward pass, one sequence at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    found = []
    for row in sequences:
        ids = torch.tensor(row.token_ids)
        logprobs = torch.log_softmax(model(ids[None]).logits[0, row.first_target - 1 : -1], -1)
        found.append(logprobs.gather(1, ids[row.first_target :, None])[:, 0])
    return found


@pytest.mark.parametrize(("kind", "changes"), SERVED.values(), ids=SERVED)
def test_a_pack_is_what_the_model_says_of_each_sequence(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    folder = write(tmp_path, kind, changes)
    policy = load_policy(folder, torch.float32, trust_remote_code=False, logit_chunk_tokens=7)
    sequences = rows()
    (numbers,) = packs_of(sequences)
    assert int((numbers.layout.prefixes >= 0).sum()) == 5, "five sequences read a prompt of another's"
    found = policy(numbers, 1.0)[0]
    expected = by_transformers(folder, sequences)
    # In the order of the pack, where a sequence is found by its first targets.
    order = [next(i for i, row in enumerate(sequences) if _is(row, numbers, s)) for s in range(len(sequences))]
    torch.testing.assert_close(found, torch.cat([expected[i] for i in order]), rtol=0, atol=3e-5)

    found.sum().backward()
    slopes = [parameter.grad for parameter in policy.parameters()]
    assert all(slope is not None and bool(slope.isfinite().all()) for slope in slopes)


def _is(row: TrainingSequence, pack: Any, segment: int) -> bool:
    return bool(np.array_equal(pack.targets[pack.segments == segment].numpy(), row.token_ids[row.first_target :]))


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_the_window_matters_where_it_is_compared(tmp_path: Path, name: str) -> None:
    kind, changes = SERVED[name]
    folder = write(tmp_path, kind, changes)
    policy = load_policy(folder, torch.float32, trust_remote_code=False, logit_chunk_tokens=64)
    (pack,) = packs_of(rows())
    with torch.no_grad():
        before = policy(pack, 1.0)[0]
        for module in policy.modules():
            if getattr(module, "sliding_window", None):
                module.sliding_window = None
        policy.model.config.sliding_window = None
        assert (policy(pack, 1.0)[0] - before).abs().max() > 0.01


@pytest.mark.parametrize(("kind", "changes"), SERVED.values(), ids=SERVED)
def test_weights_are_published_under_the_names_of_the_checkpoint(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    from safetensors import safe_open

    folder = write(tmp_path, kind, changes)
    model = load_policy(folder, torch.float32, trust_remote_code=False, logit_chunk_tokens=64).model
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert {name for name, _ in base_parameters(model)} == set(file.keys())
        for name, parameter in base_parameters(model):
            assert torch.equal(parameter, file.get_tensor(name))


@pytest.mark.parametrize(("kind", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_served_is_refused_by_name(
    tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    from transformers import AutoConfig

    # Without weights: it is told before these are read.
    AutoConfig.for_model(kind, **(TINY | changes)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_policy(str(tmp_path), torch.float32, trust_remote_code=False, logit_chunk_tokens=64)
    assert str(caught.value).startswith(f"model.path = {str(tmp_path)!r}: ")
    assert "\n" not in str(caught.value)


def test_a_model_that_also_sees_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model("gemma3").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="gemma3 is more than a language model"):
        load_policy(str(tmp_path), torch.float32, trust_remote_code=False, logit_chunk_tokens=64)


def test_a_reward_model_is_held_to_the_same(tmp_path: Path) -> None:
    kind, changes, message = REFUSED["gemma2"]
    from transformers import AutoConfig

    AutoConfig.for_model(kind, **(TINY | changes)).save_pretrained(tmp_path / "capped")
    with pytest.raises(InputError, match=message):
        load_reward_model(str(tmp_path / "capped"), torch.float32, trust_remote_code=False)
    folder = write(tmp_path / "served", *SERVED["mistral"])
    assert load_reward_model(folder, torch.float32, trust_remote_code=False).model.config.sliding_window == WINDOW
