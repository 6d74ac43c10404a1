"""The bytes that `orchestrator.plan.memory` states for a learner are those of the tensors that a rank holds.

On a real DeepSpeed engine in this process, one rank over gloo.
"""

import gc

import numpy as np
import pytest
import torch

from learner.batch import TrainingSequence, make_batch
from learner.model.small import build_model
from learner.rank import LearnerRank
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
    rows = [
        TrainingSequence(
            token_ids=np.arange(3, 15), first_target=4, advantage=sign, rollout_logprobs=np.zeros(8, np.float32)
        )
        for sign in (1.0, -1.0)
    ]
    cut = {"mini_batches": 1, "micro_batch_tokens": 64, "length_norm": "sequence", "constant_length": 16}
    batch = make_batch(rows, ranks=1, seed=0, temperature=1.0, **cut)
    rank.train(batch, "grpo")  # the first step makes the moments
    held = []
    step = rank.model.engine.step

    def counted() -> None:
        """Between the last backward pass and the step, when there is most."""
        new = {place: storage for place, storage in storages().items() if place not in others}
        held.append(sum(size for size in map(torch.UntypedStorage.nbytes, new.values()) if size < BUCKET))
        step()

    monkeypatch.setattr(rank.model.engine, "step", counted)
    rank.train(batch, "grpo")
    whole, sharded = TRAINING_BYTES[getattr(torch, dtype).itemsize][stage]
    assert held[0] / count == pytest.approx(whole + sharded, abs=0.5)


BUCKET = 100_000_000
"""Bytes. DeepSpeed asks for larger ones, however small the model is, and touches what it needs."""


def storages() -> dict[int, torch.UntypedStorage]:
    """Address → memory of every tensor of this process."""
    gc.collect()
    found: dict[int, torch.UntypedStorage] = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            for tensor in (thing, thing.grad if thing.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage
    return found
