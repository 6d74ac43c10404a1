"""The bytes that `orchestrator.plan.memory` states for a learner are those of the tensors that a rank holds, and no others.

On a real DeepSpeed engine in this process, one rank over gloo.
"""

import gc
from typing import Any

import numpy as np
import pytest
import torch

from learner.batch import TrainingBatch, TrainingSequence, make_batch
from learner.model.small import build_model
from learner.rank import LearnerRank
from learner.trained_model import TrainedModel
from orchestrator.plan.memory import TRAINING_BYTES
from tests.learner.specs import build_spec, learner_spec

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(hidden=256, heads=4, kv_heads=4, intermediate=512), iter(()), path)
    return str(path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_rank_holds_the_stated_bytes_a_parameter(
    rank: LearnerRank, folder: str, dtype: str, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = storages()  # held, so that what is allocated from now on cannot take their places
    count = rank.open(learner_spec(folder, dtype=dtype, zero_stage=stage))
    batch = one_step()
    rank.train(batch, "grpo")  # the first step makes the moments
    held = []
    step = rank.model.engine.step

    def counted() -> None:
        """Between the last backward pass and the step, when there is most."""
        held.append(bytes_beside(others))
        step()

    monkeypatch.setattr(rank.model.engine, "step", counted)
    rank.train(batch, "grpo")
    whole, sharded = TRAINING_BYTES[getattr(torch, dtype).itemsize][stage]
    assert held[0] / count == pytest.approx(whole + sharded, abs=0.5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_stage_does_not_hold_the_one_before_it_nor_load_beside_it(
    rank: LearnerRank, folder: str, dtype: str, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = learner_spec(folder, dtype=dtype, zero_stage=stage, reference_path=folder, kl_coef=0.1)
    rank.open(learner_spec(folder))
    rank._drop_models()
    others = storages()
    load, at_load, trained = TrainedModel._read, [], []

    def counted(model: TrainedModel, empty: bool) -> Any:
        at_load.append(bytes_beside(others, collect=False))
        return load(model, empty)

    monkeypatch.setattr(TrainedModel, "_read", counted)
    for _ in range(3):
        count = rank.open(spec)
        rank.train(one_step(), "grpo")
        trained.append(bytes_beside(others) / count)
    assert max(at_load) / count < 0.1, "what was open before is gone when the next is loaded"
    assert trained == pytest.approx([trained[0]] * 3, abs=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_under_zero_3_a_model_is_cut_before_it_is_whole_on_a_device(
    rank: LearnerRank, folder: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is brought to the device of a rank as a whole, policy and reference: nothing but what is not cut."""
    moved, whole = [], torch.nn.Module.to

    def to(module: torch.nn.Module, *where: Any, **options: Any) -> torch.nn.Module:
        moved.append((type(module).__name__, sum(parameter.numel() for parameter in module.parameters())))
        return whole(module, *where, **options)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    rank.open(learner_spec(folder, dtype=dtype, zero_stage=3, reference_path=folder, kl_coef=0.1))
    assert {size for name, size in moved if name == "Policy"} == {0}
    assert [name for name, _ in moved].count("Policy") >= 2
    moved.clear()
    count = rank.open(learner_spec(folder, dtype=dtype, zero_stage=1))
    assert ("Policy", count) in moved


BUCKET = 100_000_000
"""Bytes. DeepSpeed asks for larger ones, however small the model is, and touches what it needs."""


def one_step() -> TrainingBatch:
    rows = [
        TrainingSequence(
            token_ids=np.arange(3, 15), first_target=4, advantage=sign, rollout_logprobs=np.zeros(8, np.float32)
        )
        for sign in (1.0, -1.0)
    ]
    cut = {"mini_batches": 1, "micro_batch_tokens": 64, "length_norm": "sequence", "constant_length": 16}
    return make_batch(rows, ranks=1, seed=0, temperature=1.0, **cut)


def bytes_beside(others: dict[int, torch.UntypedStorage], collect: bool = True) -> int:
    """Bytes of the tensors of this process that are not in `others`."""
    new = {place: storage for place, storage in storages(collect).items() if place not in others}
    return sum(size for size in map(torch.UntypedStorage.nbytes, new.values()) if size < BUCKET)


def storages(collect: bool = True) -> dict[int, torch.UntypedStorage]:
    """Address → memory of every tensor of this process, those included that wait to be collected unless they are now."""
    if collect:
        gc.collect()
    found: dict[int, torch.UntypedStorage] = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            for tensor in (thing, thing.grad if thing.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage
    return found
