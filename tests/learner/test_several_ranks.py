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

settings, zero = trained._deepspeed_config, {}
def changed(spec):
    config = settings(spec)
    config["zero_optimization"] |= zero
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

answers = []
for case in given["cases"]:
    zero = {"stage3_param_persistence_threshold": case.pop("persistent", 100_000)}
    spec = learner_spec(given["folder"], reference_path=given["folder"], kl_coef=0.1, lr=1e-3, **case)
    gathers.clear()
    rank.open(spec)
    norms = [rank.train(batch(seed), "grpo").grad_norm for seed in range(2)]
    gathered = len(gathers)
    answers.append({
        "kl": rank.kl_to_reference(batch(7))[1].tolist(),
        "policy": weights(rank.model.module),
        "reference": weights(rank.model.reference._policy),
        "norms": norms,
        "gathered": gathered,
    })
answer(answers)
"""


Answers = list[list[dict[str, Any]]]
"""What each rank says of each case."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(), iter(()), path)
    return str(path)


REFRESHED: list[dict[str, Any]] = [
    {"zero_stage": 3, "reference_refresh_steps": 2, "persistent": persistent} for persistent in (0, 100_000)
]
STAGES = (0, 2, 3)
SENT: list[dict[str, Any]] = [
    {"zero_stage": stage, "reduce_dtype": dtype} for stage in STAGES for dtype in ("float32", "bfloat16")
]


@pytest.fixture(scope="module")
def pair(folder: str) -> Answers:
    return on_ranks(UPDATES, {"folder": folder, "cases": [*REFRESHED, *SENT]})


@pytest.mark.parametrize("case", [0, 1], ids=["all are divided", "small ones stay whole"])
def test_a_reference_takes_the_parts_of_the_policy(pair: Answers, case: int) -> None:
    for rank in pair:
        assert rank[case]["reference"] == rank[case]["policy"]
        assert max(map(abs, rank[case]["kl"])) < 1e-6, "what it computes with is what it took"
        assert rank[case]["gathered"] == 0, "nothing is made whole for it"
        assert max(map(abs, rank[-1]["kl"])) > 1e-6, "one that is not refreshed stays behind"


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_may_travel_in_half_the_bytes(pair: Answers, stage: int) -> None:
    place = len(REFRESHED) + 2 * STAGES.index(stage)
    exact, rounded = pair[0][place : place + 2]
    assert exact["norms"] != rounded["norms"]
    np.testing.assert_allclose(rounded["norms"], exact["norms"], rtol=5e-3)


def test_a_second_copy_in_each_node_changes_no_update(folder: str) -> None:
    case = {"zero_stage": 3, "reference_refresh_steps": 2, "persistent": 0}
    cases = [case, case | {"zero_hpz_partition_size": 2}]
    for plain, copied in on_ranks(UPDATES, {"folder": folder, "cases": cases}, ranks=4):
        for name, values in plain["policy"].items():
            np.testing.assert_allclose(copied["policy"][name], values, atol=1e-6)
        assert copied["reference"] == copied["policy"]
        assert max(map(abs, copied["kl"])) < 1e-6


SKIPPED = """
import numpy as np
from learner.batch import TrainingSequence, make_batch
from tests.learner.specs import learner_spec

def batch(seed, only, signal):
    rng = np.random.default_rng(seed)
    rows = [
        TrainingSequence(token_ids=rng.integers(3, 90, size=length), first_target=4,
                         advantage=float(rng.normal()) * (number in signal),
                         rollout_logprobs=np.full(length - 4, -4.5, np.float32))
        for number, length in enumerate((9, 14, 20, 12, 11, 10, 17, 8))
    ]
    return make_batch(rows, ranks=ranks, seed=0, temperature=1.0, mini_batches=2, micro_batch_tokens=30,
                      length_norm="sequence", constant_length=16, only_signal=only)

answers = []
for stage in given["stages"]:
    for only in (False, True):
        rank.open(learner_spec(given["folder"], zero_stage=stage, lr=1e-3, weight_decay=0.1))
        stats = [rank.train(batch(seed, only, signal), "grpo") for seed, signal in enumerate(given["signal"])]
        answers.append({"norms": [s.grad_norm for s in stats], "counts": [s.figures["count"] for s in stats],
                        "steps": stats[-1].optimizer_steps})
answer(answers)
"""


def test_ranks_skip_what_has_no_gradient_and_take_the_same_steps(folder: str) -> None:
    """Also where one rank, or none, has anything to do."""
    signal = [[0, 1, 2, 3, 4, 5, 6, 7], [1, 2, 5], [3], [], [0, 7]]
    first, second = on_ranks(SKIPPED, {"folder": folder, "signal": signal, "stages": [0, 3]})
    for case in (0, 2):
        whole, kept = first[case], first[case + 1]
        np.testing.assert_allclose(kept["norms"], whole["norms"], rtol=2e-5)
        assert kept["norms"][3] == 0
        assert kept["steps"] == whole["steps"] == 10
        targets = [5, 10, 16, 8, 7, 6, 13, 4]
        computed = [own + other for own, other in zip(kept["counts"], second[case + 1]["counts"], strict=True)]
        assert computed == [sum(targets[number] for number in numbers) for numbers in signal]
