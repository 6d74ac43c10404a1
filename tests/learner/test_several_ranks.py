"""Two ranks and four over gloo: the reference is refreshed part by part, gradients in bfloat16, a second copy a node."""

from typing import Any

import numpy as np
import pytest

from learner.model.small import build_model
from tests.learner.specs import build_spec
from tests.learner.two_ranks import on_ranks

pytestmark = pytest.mark.engine

UPDATES = """
import numpy as np, torch
import learner.trained_model as trained
from learner.batch import TrainingSequence, make_batch
from learner.model.reference import Reference
from learner.publish.buckets import gather

settings = trained._deepspeed_config
def changed(spec):
    config = settings(spec)
    config["zero_optimization"] |= given.get("zero", {})
    return config
trained._deepspeed_config = changed

gathers = []
plain = Reference._gather
def counted(self, parameter, writes=False):
    gathers.append(writes)
    return plain(self, parameter, writes)
Reference._gather = counted

def batch(seed):
    rng = np.random.default_rng(seed)
    rows = [
        TrainingSequence(token_ids=rng.integers(3, 90, size=length), first_target=4, advantage=float(rng.normal()),
                         rollout_logprobs=np.full(length - 4, -4.5, np.float32))
        for length in (9, 14, 20, 12, 11, 10, 17, 8)
    ]
    return make_batch(rows, ranks=ranks, seed=0, temperature=1.0, mini_batches=1, micro_batch_tokens=30,
                      length_norm="sequence", constant_length=16)

def weights(module):
    found = {}
    for name, parameter in module.named_parameters():
        with gather([parameter], rank.model.sharded):
            found[name] = parameter.detach().double().flatten().tolist()
    return found

rank.open(learner_spec(given["folder"], reference_path=given["folder"], kl_coef=0.1, lr=1e-3, **given["spec"]))
norms = [rank.train(batch(seed), "grpo").grad_norm for seed in range(given.get("updates", 2))]
kl = rank.kl_to_reference(batch(7))[1].tolist()
reference = rank.model.reference._policy
answer({"policy": weights(rank.model.module), "reference": weights(reference), "kl": kl, "norms": norms, "gathers": gathers})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(), iter(()), path)
    return str(path)


def updates(folder: str, ranks: int = 2, zero: dict[str, Any] | None = None, **spec: Any) -> list[dict[str, Any]]:
    return on_ranks(UPDATES, {"folder": folder, "spec": spec, "zero": zero or {}}, ranks)


def apart(left: dict[str, list[float]], right: dict[str, list[float]]) -> float:
    """Largest difference of a weight."""
    return max(float(np.abs(np.array(left[name]) - np.array(right[name])).max()) for name in left)


@pytest.mark.parametrize("threshold", [0, 100_000], ids=["all are divided", "small ones stay whole"])
def test_a_reference_takes_the_parts_of_the_policy(folder: str, threshold: int) -> None:
    zero = {"stage3_param_persistence_threshold": threshold}
    for rank in updates(folder, zero=zero, zero_stage=3, reference_refresh_steps=2):
        assert rank["reference"] == rank["policy"]
        assert all(abs(each) < 1e-6 for each in rank["kl"]), "what it computes with is what it took"
        assert not rank["gathers"], "nothing is made whole for it"


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_gradients_may_travel_in_half_the_bytes(folder: str, stage: int) -> None:
    exact, rounded = (updates(folder, zero_stage=stage, reduce_dtype=dtype)[0] for dtype in ("float32", "bfloat16"))
    assert exact["norms"] != rounded["norms"]
    np.testing.assert_allclose(rounded["norms"], exact["norms"], rtol=5e-3)


def test_a_second_copy_in_each_node_changes_no_update(folder: str) -> None:
    zero = {"stage3_param_persistence_threshold": 0}
    plain, copied = (
        updates(folder, 4, zero, zero_stage=3, reference_refresh_steps=2, zero_hpz_partition_size=size)[0]
        for size in (1, 2)
    )
    assert apart(plain["policy"], copied["policy"]) < 1e-6
    assert copied["reference"] == copied["policy"]
    assert all(abs(each) < 1e-6 for each in copied["kl"])
