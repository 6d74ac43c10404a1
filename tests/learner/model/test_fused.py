"""What is compiled on a GPU computes what the plain path does; here it runs uncompiled, in float64."""

import numpy as np
import pytest
import torch

from learner.batch import TrainingSequence
from learner.model import fused as module
from learner.model.attention import NAME, packed_attention
from learner.model.fused import absorb, compile_layers, tile_slopes
from learner.model.head import _slopes
from learner.model.policy import Policy
from tests.learner.packs import packs_of


def row(length: int) -> TrainingSequence:
    tokens = np.random.default_rng(length).integers(0, 31, length)
    return TrainingSequence(token_ids=tokens, first_target=2, rollout_logprobs=np.zeros(length - 2, np.float32))


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(7, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_tiles_one_after_the_other_make_the_sums_of_all(logits: torch.Tensor) -> None:
    largest = torch.full((7,), -1e30, dtype=torch.float64)
    total, weighted = torch.zeros(2, 7, dtype=torch.float64)
    for tile in logits.split(5, dim=1):
        largest, total, weighted = absorb(tile, largest, total, weighted)
    logsumexp = logits.logsumexp(1)
    entropies = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(largest + total.log(), logsumexp)
    torch.testing.assert_close(total.log() - weighted / total, entropies)


@pytest.mark.parametrize("with_entropy", [False, True])
def test_a_tile_of_gradients_is_that_of_the_plain_path(logits: torch.Tensor, with_entropy: bool) -> None:
    logsumexp = logits.logsumexp(1)
    entropies = -(logits.softmax(1) * logits.log_softmax(1)).sum(1) if with_entropy else None
    column = torch.tensor([0, 3, -1, 12, 5, -1, 2])  # two targets lie in other tiles
    slope, entropy_slope = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    inside = (column >= 0, column.clamp(min=0))
    expected = _slopes(logits.clone(), logsumexp, entropies, inside, slope, entropy_slope, 0.7, torch.float64)
    found = tile_slopes(logits, logsumexp, entropies, column, slope, entropy_slope, 0.7, torch.float64)
    torch.testing.assert_close(found, expected)


def test_compiled_layers_compute_the_same_and_share_their_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2Config(vocab_size=31, num_hidden_layers=3, attn_implementation=NAME, **sizes)
    policy = Policy(Qwen2ForCausalLM(config), 16)
    packs = [packs_of([row(length), row(length + 2)])[0] for length in (6, 9, 20)]
    expected = [policy(pack, 1.0)[0].detach() for pack in packs]
    # Traced as for a card, and run by PyTorch's own operators: no compiler is needed.
    monkeypatch.setattr(module, "COMPILER", "eager")
    torch._dynamo.reset()
    counters.clear()
    assert compile_layers(policy.model) == 3
    for pack, logprobs in zip(packs, expected, strict=True):
        np.testing.assert_allclose(policy(pack, 1.0)[0].detach(), logprobs, atol=1e-6)
    # Four pieces: a layer before and behind attention, and attention's own module before and behind the kernel.
    assert counters["stats"]["unique_graphs"] == 4
