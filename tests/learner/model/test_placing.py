"""Rank 0 reads a model and the others receive it: the same weights, and in the memory of the others no more than their part."""

from pathlib import Path
from typing import Any

import pytest
import torch

from learner.model.placing import place, read_once
from learner.model.policy import load_policy
from learner.model.small import build_model
from learner.trained_model import _deepspeed_config
from rollout.errors import InputError
from tests.learner.specs import build_spec, learner_spec
from tests.learner.two_ranks import on_ranks

SAME = """
import torch
from learner.publish.buckets import gather
from learner.model.policy import load_policy, load_reward_model

def weights(module, sharded):
    found = dict(module.named_buffers())
    for name, parameter in module.named_parameters():
        with gather([parameter], sharded):
            found[name] = parameter.detach().clone()
    return found

reads = []
def counted(load):
    def loads(*args, **kwargs):
        reads.append(kwargs["empty"])
        return load(*args, **kwargs)
    return loads
import learner.trained_model as trained
trained.load_policy, trained.load_reward_model = counted(load_policy), counted(load_reward_model)

answers = []
for case in given["cases"]:
    spec = learner_spec(given["folder"], **case)
    loads = load_reward_model if spec.head == "score" else load_policy
    options = {} if spec.head == "score" else {"logit_chunk_tokens": 64}
    rank.open(spec)
    held = [weights(rank.model.module, rank.model.sharded)]
    if spec.reference_path and not spec.lora_rank:
        held.append(weights(rank.model.reference._policy, rank.model.sharded))
    torch.manual_seed(spec.seed)
    exact = loads(given["folder"], torch.float32, trust_remote_code=False, **options)
    plain = dict(exact.named_parameters()) | dict(exact.named_buffers())
    same = all(
        torch.equal(value, plain[name.replace(".base_layer.", ".")])
        for each in held for name, value in each.items() if ".default." not in name and "score" not in name
    )
    sums = {name: float(value.double().abs().sum()) for name, value in held[0].items()}
    answers.append([same, reads[:], sums, len(held)])
    reads.clear()
answer(answers)
"""

CASES: list[dict[str, Any]] = [
    {"zero_stage": 0, "reference_path": "FOLDER"},
    {"zero_stage": 3, "reference_path": "FOLDER"},
    {"zero_stage": 1, "lora_rank": 4, "reference_path": "FOLDER"},
    {"zero_stage": 3, "lora_rank": 4},
    {"zero_stage": 3, "head": "score"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(layers=2, tied=True), iter(()), path)
    return str(path)


@pytest.mark.engine
def test_every_rank_has_the_weights_that_one_rank_read(folder: str) -> None:
    cases = [{key: folder if value == "FOLDER" else value for key, value in case.items()} for case in CASES]
    first, second = on_ranks(SAME, {"folder": folder, "cases": cases})
    for case, mine, theirs in zip(CASES, first, second, strict=True):
        assert (mine[0], theirs[0]) == (True, True), case
        assert mine[2] == theirs[2], f"{case}: what is drawn anew (adapters, a value head) is rank 0's too"
        assert not any(mine[1]), "rank 0 reads"
        assert all(theirs[1]), "and nobody else does"
    assert [each[3] for each in first] == [2, 2, 1, 1, 1]


PEAK = """
import gc, torch
from learner.model.placing import place, read_once
from learner.throughput import memory_peak, reset_memory_peak
from learner.trained_model import TrainedModel, _deepspeed_config
cpu = torch.device("cpu")
def opened(folder):
    model = TrainedModel.__new__(TrainedModel)
    model.spec, model.dtype = learner_spec(folder, zero_stage=3), torch.float32
    return place(read_once(model._read, number, 2), _deepspeed_config(model.spec), cpu, 2)

opened(given["small"])  # whose imports take memory too
torch.distributed.barrier()
gc.collect()
reset_memory_peak(cpu)
before = memory_peak(cpu)
module = opened(given["large"])
size = sum(parameter.ds_numel * 4 for parameter in module.parameters())
answer([(memory_peak(cpu) - before) / size, size])
"""


@pytest.mark.engine
def test_a_rank_that_receives_never_holds_the_whole_model(tmp_path: Path, folder: str) -> None:
    shape = {"hidden": 768, "heads": 8, "kv_heads": 8, "intermediate": 2048, "layers": 10}
    large = tmp_path / "large"
    build_model(build_spec(**shape), iter(()), large)
    reads, receives = on_ranks(PEAK, {"small": folder, "large": str(large)})
    assert receives[1] > 250e6
    assert reads[0] < 2.6, "the whole and its file, as the kernel counts what is mapped"
    assert receives[0] < 0.95, (
        f"{receives[0]:.2f} of the model: its half, one parameter at a time, and what allocation wastes"
    )


WRONG = """
import time
from rollout.errors import InputError
began = time.perf_counter()
try:
    rank.open(learner_spec(given))
except InputError as mistake:
    answer([str(mistake), time.perf_counter() - began])
"""


@pytest.mark.engine
def test_what_rank_0_cannot_read_is_a_mistake_on_every_rank(tmp_path: Path) -> None:
    (first, _), (second, seconds) = on_ranks(WRONG, str(tmp_path / "nothing"))
    assert first == second
    assert "cannot be loaded" in first
    assert seconds < 30


def test_shapes_become_tensors_that_are_shared_where_they_were(folder: str) -> None:
    policy = load_policy(folder, torch.float32, trust_remote_code=False, logit_chunk_tokens=64, empty=True)
    before = [id(parameter) for parameter in policy.parameters()]
    assert all(parameter.is_meta for parameter in policy.parameters())
    from learner.model.placing import _arrived

    for tensor in [*policy.parameters(), *policy.buffers()]:
        _arrived(tensor, torch.device("cpu"))
    assert [id(parameter) for parameter in policy.parameters()] == before
    assert not any(tensor.is_meta for tensor in [*policy.parameters(), *policy.buffers()])
    assert policy.model.lm_head.weight is policy.model.model.embed_tokens.weight
    assert all(
        isinstance(parameter, torch.nn.Parameter) and parameter.requires_grad for parameter in policy.parameters()
    )


def test_a_single_rank_reads_for_itself() -> None:
    asked: list[bool] = []

    def read(empty: bool) -> torch.nn.Module:
        asked.append(empty)
        raise InputError("no such model")

    with pytest.raises(InputError, match="no such model"):
        read_once(read, 0, 1)
    assert asked == [False]
    module = torch.nn.Linear(2, 2)
    assert place(module, _deepspeed_config(learner_spec("m")), torch.device("cpu")) is module
