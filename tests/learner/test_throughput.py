"""Model FLOPs against what PyTorch counts on the real model, and the device's figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from learner.batch import TrainingSequence, make_batch
from learner.model.policy import Policy, load_policy, load_reward_model, to_device
from learner.model.small import build_model
from learner.throughput import ModelCost, memory_peak, reset_memory_peak
from tests.learner.specs import build_spec

CPU = torch.device("cpu")
LENGTHS = (9, 17, 17, 30)
HEADS, LAYERS, HIDDEN = 4, 2, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(layers=LAYERS, hidden=HIDDEN, heads=HEADS, kv_heads=2, intermediate=48), iter(()), path)
    return str(path)


@pytest.fixture(scope="module")
def policy(folder: str) -> Policy:
    return load_policy(folder, torch.float32, trust_remote_code=False, logit_chunk_tokens=64)


def batch_of(ranks: int):
    rng = np.random.default_rng(0)
    return make_batch(
        [TrainingSequence(token_ids=rng.integers(3, 90, size=n), first_target=5) for n in LENGTHS[:2] if ranks == 3]
        or [TrainingSequence(token_ids=rng.integers(3, 90, size=n), first_target=5) for n in LENGTHS],
        ranks=ranks,
        mini_batches=1,
        micro_batch_tokens=1000,
        length_norm="token",
        constant_length=1,
        temperature=1.0,
        seed=0,
    )


def test_linear_layers_and_head_are_what_pytorch_counts(policy: Policy) -> None:
    (pack,) = batch_of(ranks=1).packs[0][0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        policy(to_device(pack, CPU), 1.0)
    by_operator = counter.get_flop_counts()["Global"]
    counted = sum(flops for operator, flops in by_operator.items() if "attention" not in str(operator))
    attention = 2 * LAYERS * HIDDEN * sum(length**2 for length in LENGTHS)
    assert ModelCost.of(policy.model).forward_flops([pack]) == counted + attention


def test_a_shared_prompt_is_computed_once(policy: Policy) -> None:
    prompt = np.arange(3, 23)
    rows = [TrainingSequence(token_ids=np.concatenate([prompt, [30 + i] * 4]), first_target=20) for i in range(3)]
    batch = make_batch(
        rows,
        ranks=1,
        mini_batches=1,
        micro_batch_tokens=1000,
        length_norm="token",
        constant_length=1,
        temperature=1.0,
        seed=0,
    )
    (pack,) = batch.packs[0][0]
    cost = ModelCost.of(policy.model)
    pairs = 20 * 20 / 2 + 3 * (4 * 20 + 4 * 4 / 2)
    assert cost.forward_flops([pack]) == 2 * (cost.linear * 32 + cost.head * 12) + 4 * LAYERS * HIDDEN * pairs
    assert batch.num_tokens == 72
    assert batch.padding_share == 0


def test_a_rank_without_work_costs_nothing_and_is_padding(policy: Policy) -> None:
    batch = batch_of(ranks=3)
    cost = ModelCost.of(policy.model)
    assert [cost.forward_flops(packs) > 0 for packs in batch.packs[0]] == [True, True, False]
    assert batch.padding_share == pytest.approx(2 / (9 + 17 + 2))
    assert batch_of(ranks=1).padding_share == 0


def test_a_reward_model_has_a_head_of_one_column(folder: str, policy: Policy) -> None:
    scored = ModelCost.of(load_reward_model(folder, torch.float32, trust_remote_code=False).model)
    assert scored.head == HIDDEN
    assert scored.linear == ModelCost.of(policy.model).linear


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a kernel without the means")
def test_the_memory_peak_is_that_since_the_last_reset() -> None:
    size = 64 << 20
    reset_memory_peak(CPU)
    before = memory_peak(CPU)
    held = torch.ones(size, dtype=torch.uint8)
    assert memory_peak(CPU) >= before + size // 2
    del held
    reset_memory_peak(CPU)
    assert memory_peak(CPU) < before + size // 2
