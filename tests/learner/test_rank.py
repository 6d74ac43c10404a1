"""One rank holds one model that trains or several, each with its own optimizer, rate and checkpoint.

On real DeepSpeed engines in this process, one rank over gloo.
"""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.batch import Pack, TrainingBatch, TrainingSequence, make_batch
from learner.model.policy import PackTensors, to_device
from learner.model.sequence import SequenceGroup
from learner.model.small import build_model
from learner.rank import LearnerRank
from learner.spec import LearnerSpec
from learner.stats import RankStats
from learner.trained_model import TrainedModel, _optimizer
from rollout.errors import InputError
from tests.learner.specs import build_spec, learner_spec

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(), iter(()), path)
    return str(path)


LENGTHS = (9, 14, 20, 12)


def batch(seed: int, signal: int = 4, **changes: Any) -> TrainingBatch:
    """`signal`: so many of its rows have an advantage other than 0."""
    rng = np.random.default_rng(seed)
    rows = [
        TrainingSequence(
            token_ids=rng.integers(3, 90, size=length),
            first_target=4,
            advantage=float(rng.normal()) * (number < signal),
            rollout_logprobs=np.full(length - 4, -4.5, np.float32),
        )
        for number, length in enumerate(LENGTHS)
    ]
    cut = {"mini_batches": 1, "micro_batch_tokens": 30, "length_norm": "sequence", "constant_length": 16}
    return make_batch(rows, ranks=1, seed=0, temperature=1.0, **(cut | changes))


def policy_batch(seed: int) -> TrainingBatch:
    return batch(seed, mini_batches=2)


def pair_batch(seed: int) -> TrainingBatch:
    return batch(seed, together=2)


def weights(model: TrainedModel) -> dict[str, torch.Tensor]:
    """Every parameter, whole, as it is now."""
    import deepspeed

    named = dict(model.module.named_parameters())
    with deepspeed.zero.GatheredParameters(list(named.values()), enabled=model.sharded):
        return {name: parameter.detach().clone() for name, parameter in named.items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def specs(folder: str, stage: int) -> tuple[LearnerSpec, LearnerSpec]:
    """A policy with a reference that follows it, and a model of another head with another rate."""
    policy = learner_spec(
        folder, zero_stage=stage, lr=1e-3, kl_coef=0.5, reference_path=folder, reference_refresh_steps=3
    )
    return policy, learner_spec(folder, zero_stage=stage, lr=5e-4, schedule="cosine", head="score", seed=2)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_models_train_side_by_side_as_each_does_alone(rank: LearnerRank, folder: str, stage: int) -> None:
    policy, scorer = specs(folder, stage)
    rank.open(policy)
    alone = [rank.train(policy_batch(seed), "grpo") for seed in range(3)]
    policy_alone = weights(rank.models["language"])
    rank.open(scorer)
    for seed in range(2):
        rank.train(pair_batch(seed), "reward_model")
    scorer_alone = weights(rank.models["score"])

    assert rank.open(policy, scorer) == rank.models["language"].num_parameters
    beside = []
    for seed in range(3):
        beside.append(rank.train(policy_batch(seed), "grpo"))
        if seed < 2:
            stats = rank.train(pair_batch(seed), "reward_model")
    assert same(weights(rank.models["language"]), policy_alone)
    assert same(weights(rank.models["score"]), scorer_alone)
    assert list(map(figures, beside)) == list(map(figures, alone))
    assert (beside[-1].optimizer_steps, beside[-1].lr) == (6, 1e-3)
    assert (stats.optimizer_steps, stats.lr < 5e-4) == (2, True)


def figures(stats: RankStats) -> tuple[Any, ...]:
    return stats.figures, stats.parts, stats.grad_norm, stats.lr, stats.optimizer_steps


@pytest.mark.parametrize("stage", [0, 2])
def test_each_model_continues_from_a_folder_of_its_own(
    rank: LearnerRank, folder: str, tmp_path: Path, stage: int
) -> None:
    policy, scorer = specs(folder, stage)

    def step(seed: int) -> None:
        rank.train(policy_batch(seed), "grpo")
        rank.train(pair_batch(seed), "reward_model")

    rank.open(policy, scorer)
    step(0)
    step(1)
    rank.save(str(tmp_path), {"step": 2})
    step(2)
    expected = {head: weights(model) for head, model in rank.models.items()}

    rank.open(policy, replace(scorer, seed=7))
    rank.load(str(tmp_path))
    assert [model.optimizer_steps for model in rank.models.values()] == [4, 2]
    step(2)
    for head, model in rank.models.items():
        assert same(weights(model), expected[head])
    assert (tmp_path / "learner.json").is_file()
    assert (tmp_path / "score" / "learner.json").is_file()

    rank.open(policy)  # the stage's own model is where it is without another beside it
    rank.load(str(tmp_path))
    rank.train(policy_batch(2), "grpo")
    assert same(weights(rank.model), expected["language"])


def test_a_stage_of_one_model_has_no_checkpoint_of_a_second(rank: LearnerRank, folder: str, tmp_path: Path) -> None:
    policy, scorer = specs(folder, 0)
    rank.open(policy)
    rank.save(str(tmp_path), {})
    assert not (tmp_path / "score").exists()
    rank.open(policy, scorer)
    with pytest.raises(FileNotFoundError, match="score holds no learner checkpoint"):
        rank.load(str(tmp_path))


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        ("dpo", {}, "dpo compares the policy with a frozen reference, and none was opened"),
        ("grpo", {"kl_coef": 0.1}, "grpo compares the policy with a frozen reference, and none was opened"),
        ("reward_model", {}, "reward_model trains a model with a score head, and none was opened"),
        ("sft", {"head": "score"}, "sft trains a model with a language head, and none was opened"),
    ],
)
def test_an_objective_whose_model_or_reference_is_missing_is_an_input_error(
    rank: LearnerRank, folder: str, objective: Any, settings: dict[str, Any], message: str
) -> None:
    rank.open(learner_spec(folder, **settings))
    with pytest.raises(InputError, match=message):
        rank.train(pair_batch(0), objective)


def test_a_policy_without_a_reference_has_no_implicit_rewards(rank: LearnerRank, folder: str) -> None:
    rank.open(learner_spec(folder))
    for verb in (rank.scores, rank.kl_to_reference):
        with pytest.raises(InputError, match="to be compared with a frozen reference, and none was opened"):
            verb(pair_batch(0))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_gpu_steps_with_one_fused_kernel_at_every_stage(stage: int) -> None:
    device = torch.device("cuda")
    optimizer = _optimizer(torch.nn.Linear(2, 2), learner_spec("", zero_stage=stage), device)
    assert optimizer.defaults["fused"]


def test_anchors_wait_on_the_host_and_one_pack_is_on_the_device_at_a_time(
    rank: LearnerRank, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = []

    def counted(pack: Pack, device: torch.device, group: SequenceGroup | None) -> PackTensors:
        tensors = to_device(pack, device, group)
        gc.collect()
        held.add(tensors.token_ids)
        most.append(len(held))
        return tensors

    monkeypatch.setattr("learner.trained_model.to_device", counted)
    rank.open(learner_spec(folder, lr=1e-3))
    rank.train(batch(0, mini_batches=4), "grpo")
    assert len(most) == 8, "four packs, for the anchors and for the steps"
    assert max(most) <= 2, "the one before may go only when the next has come"


@pytest.mark.parametrize("stage", [0, 2])
@pytest.mark.parametrize("signal", [2, 0], ids=["half without a signal", "nothing trains"])
def test_steps_without_completions_that_have_no_gradient_are_those_with_them(
    rank: LearnerRank, folder: str, stage: int, signal: int
) -> None:
    """To the last bit, AdamW's moments and weight decay included: packs of one sequence are the same packs."""
    spec = learner_spec(folder, zero_stage=stage, lr=1e-3, weight_decay=0.1)
    found = []
    for only in (False, True):
        rank.open(spec)
        stats = [rank.train(batch(0, mini_batches=2), "grpo")]
        for seed in (1, 2):
            cut = {"mini_batches": 2, "micro_batch_tokens": 1, "only_signal": only}
            stats.append(rank.train(batch(seed, signal=signal, **cut), "grpo"))
        found.append(([(s.grad_norm, s.optimizer_steps, s.parts, s.weights) for s in stats], weights(rank.model)))
        computed = LENGTHS[:signal] if only else LENGTHS
        assert stats[-1].figures["count"] == sum(length - 4 for length in computed)
    (steps, left), (others, right) = found
    assert others == steps
    assert same(left, right)
    assert len({weights for *_, weights in steps}) == 3, "without a gradient momentum and decay move the weights too"
