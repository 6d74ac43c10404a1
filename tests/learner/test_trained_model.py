"""A model that trains, over an engine that is plain torch: its rate, its gradients, its reference, its checkpoint, its settings.

That DeepSpeed's own engines do as this one does: tests/learner/test_rank.py.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner import trained_model
from learner.batch import TrainingSequence
from learner.model.lora import BaseReference
from learner.model.policy import PackTensors, Policy, RewardModel
from learner.model.small import build_model
from learner.trained_model import TrainedModel
from rollout.errors import InputError
from tests.learner.packs import packs_of
from tests.learner.specs import build_spec, learner_spec

Open = Callable[..., TrainedModel]


class Engine:
    """What is asked of a DeepSpeed engine, on one rank and without its partitions."""

    def __init__(self, module: torch.nn.Module, optimizer: Any, config: dict[str, Any]) -> None:
        self.module, self.optimizer, self.config = module, optimizer, config
        self.boundary = True
        self.rates: list[float] = []
        """Learning rate of every step."""
        self.loads_nothing = False
        self.saved: dict[str, Any] = {}

    def __call__(self, *arguments: Any) -> Any:
        return self.module(*arguments)

    def zero_optimization_stage(self) -> int:
        stage: int = self.config["zero_optimization"]["stage"]
        return stage

    def set_gradient_accumulation_boundary(self, boundary: bool) -> None:
        self.boundary = boundary

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        assert self.boundary
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.optimizer.zero_grad()

    def get_global_grad_norm(self) -> float:
        return 77.0

    def save_checkpoint(self, folder: str, **options: Any) -> None:
        self.saved = {"folder": folder, **options}

    def load_checkpoint(self, folder: str, **_: Any) -> tuple[str | None, None]:
        return (None if self.loads_nothing else folder), None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(), iter(()), path)
    return str(path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, folder: str) -> Open:
    import deepspeed

    def initialize(*, model: Any, optimizer: Any, config: dict[str, Any], dist_init_required: bool) -> tuple[Engine]:
        assert not dist_init_required, "the ranks have their group already"
        return (Engine(model, optimizer, config),)

    monkeypatch.setattr(deepspeed, "initialize", initialize)
    # The other ranks of these tests are there in the counting alone; what they receive: tests/learner/model/test_placing.py.
    monkeypatch.setattr(trained_model, "read_once", lambda read, rank, ranks: read(False))
    monkeypatch.setattr(trained_model, "place", lambda module, config, device, ranks: module)

    def open_model(ranks: int = 1, **changes: Any) -> TrainedModel:
        return TrainedModel(learner_spec(folder, **changes), rank=0, ranks=ranks, device=torch.device("cpu"))

    return open_model


@pytest.fixture(scope="module")
def pack() -> PackTensors:
    row = TrainingSequence(token_ids=np.arange(3, 20), first_target=4, rollout_logprobs=np.zeros(13, np.float32))
    return packs_of([row])[0]


def gradients(model: TrainedModel) -> Tensor:
    return torch.cat([each.grad.flatten() for each in model.module.parameters() if each.grad is not None])


def loss(model: TrainedModel, pack: PackTensors) -> Tensor:
    value: Tensor = -model.engine(pack, 1.0)[0].mean()
    return value


def train(model: TrainedModel, pack: PackTensors, steps: int = 1) -> None:
    for _ in range(steps):
        model.backward(loss(model, pack), last=True)
        model.step()


# --- Steps


def test_every_step_is_taken_at_the_rate_of_its_number(opened: Open, pack: PackTensors) -> None:
    model = opened(lr=0.4, warmup_steps=4, schedule="cosine")
    model.plan(total_steps=6, warmup_steps=2)
    train(model, pack, steps=7)
    rates = model.engine.rates
    assert rates[:2] == pytest.approx([0.2, 0.4])
    assert rates[2] == pytest.approx(0.4)
    assert rates[4] == pytest.approx(0.04 + 0.36 / 2)
    assert rates[6] == pytest.approx(0.04)
    assert model.optimizer_steps == 7


def test_gradients_of_micro_batches_add_up_and_are_those_of_the_mean_over_ranks(
    opened: Open, pack: PackTensors
) -> None:
    """DeepSpeed divides by the ranks, and the weights of a loss hold the mean over the whole batch already."""
    model = opened()
    model.backward(loss(model, pack), last=False)
    assert model.engine.boundary is False
    once = gradients(model).clone()
    model.backward(loss(model, pack), last=True)
    assert model.engine.boundary is True
    torch.testing.assert_close(gradients(model), 2 * once)
    four = opened(ranks=4)
    four.backward(loss(four, pack), last=True)
    torch.testing.assert_close(gradients(four), 4 * once)


def test_a_step_answers_the_norm_of_the_gradients_it_was_taken_with(opened: Open, pack: PackTensors) -> None:
    model = opened()
    model.backward(loss(model, pack), last=True)
    expected = gradients(model).norm().item()
    assert model.step() == pytest.approx(expected, rel=1e-5)
    # Wherever DeepSpeed wraps the optimizer, it knows the norm over all ranks.
    for settings in ({"zero_stage": 2}, {"dtype": "bfloat16"}):
        other = opened(**settings)
        other.backward(loss(other, pack), last=True)
        assert other.step() == 77.0


def test_the_optimizer_is_adamw_of_what_trains(opened: Open, pack: PackTensors) -> None:
    model = opened(beta1=0.8, beta2=0.9, weight_decay=0.3, lr=0.01)
    (group,) = model.engine.optimizer.param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.8, 0.9), 0.3)
    before = [each.detach().clone() for each in model.module.parameters()]
    model.backward(loss(model, pack), last=True)
    given = [each.grad.clone() for each in model.module.parameters()]
    model.step()
    for old, gradient, new in zip(before, given, model.module.parameters(), strict=True):
        # The first step: both moments are, with their bias corrected, the gradient and its square.
        expected = old * (1 - 0.01 * 0.3) - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(new.detach(), expected, rtol=1e-4, atol=1e-6)


# --- What is trained


def test_a_head_is_the_one_that_the_spec_names(opened: Open, pack: PackTensors) -> None:
    policy, scorer = opened(), opened(head="score")
    assert isinstance(policy.module, Policy)
    assert isinstance(scorer.module, RewardModel)
    assert policy.num_parameters == sum(each.numel() for each in policy.module.parameters())
    logprobs = policy.logprobs(pack, 1.0)
    assert (logprobs.shape, logprobs.requires_grad) == ((len(pack.targets),), False)
    torch.testing.assert_close(logprobs.mean(), -loss(policy, pack).detach())


def test_with_adapters_nothing_else_trains(opened: Open, pack: PackTensors) -> None:
    model = opened(lora_rank=2, lora_alpha=4.0)
    held = [each for group in model.engine.optimizer.param_groups for each in group["params"]]
    names = {id(each): name for name, each in model.module.named_parameters()}
    assert held
    assert all(".lora_" in names[id(each)] for each in held)
    before = {name: each.detach().clone() for name, each in model.module.named_parameters()}
    train(model, pack)
    moved = {name for name, each in model.module.named_parameters() if not torch.equal(each, before[name])}
    assert moved
    assert all(".lora_" in name for name in moved)
    assert model.num_parameters == opened().num_parameters + sum(each.numel() for each in held)


def test_layers_are_computed_again_only_where_the_spec_says_so_and_then_while_training(opened: Open) -> None:
    plain, again = opened(), opened(activation_checkpointing=True)
    assert not plain.module.model.is_gradient_checkpointing
    assert again.module.model.is_gradient_checkpointing
    assert again.module.model.training


# --- The reference


def test_without_a_reference_nothing_is_compared(opened: Open) -> None:
    with pytest.raises(InputError, match="to be compared with a frozen reference, and none was opened"):
        _ = opened().needed_reference


def test_a_reference_stays_until_a_refresh_is_due_and_then_is_what_the_policy_is(
    opened: Open, folder: str, pack: PackTensors
) -> None:
    model = opened(reference_path=folder, reference_refresh_steps=3)
    start = model.logprobs(pack, 1.0)
    torch.testing.assert_close(model.needed_reference.logprobs(pack, 1.0), start)
    train(model, pack, steps=2)
    model.refresh_reference(0)
    torch.testing.assert_close(model.needed_reference.logprobs(pack, 1.0), start)
    assert (model.logprobs(pack, 1.0) - start).abs().max() > 0.01
    train(model, pack, steps=2)
    model.refresh_reference(2)  # the third step lies between
    torch.testing.assert_close(model.needed_reference.logprobs(pack, 1.0), model.logprobs(pack, 1.0))


def test_the_reference_of_a_model_with_adapters_is_the_model_without_them(
    opened: Open, folder: str, pack: PackTensors
) -> None:
    model = opened(lora_rank=2, lora_alpha=4.0, reference_path=folder, reference_refresh_steps=1)
    start = model.logprobs(pack, 1.0)
    train(model, pack, steps=2)
    model.refresh_reference(0)
    assert isinstance(model.reference, BaseReference)
    torch.testing.assert_close(model.needed_reference.logprobs(pack, 1.0), start)
    assert (model.logprobs(pack, 1.0) - start).abs().max() > 1e-4


# --- Checkpoints


def test_a_checkpoint_holds_what_trains_its_layout_and_its_steps(
    opened: Open, folder: str, pack: PackTensors, tmp_path: Path
) -> None:
    model = opened(reference_path=folder, reference_refresh_steps=2)
    train(model, pack, steps=2)
    model.refresh_reference(0)
    model.save(tmp_path)
    assert model.engine.saved == {
        "folder": str(tmp_path), "tag": "learner", "save_latest": False, "exclude_frozen_parameters": True,
    }  # fmt: skip
    record = json.loads((tmp_path / "learner.json").read_text())
    assert record["optimizer_steps"] == 2
    assert record["layout"] == {"ranks": 1, "zero_stage": 0, "dtype": "float32", "offload_optimizer": False}

    again = opened(reference_path=folder, reference_refresh_steps=2)
    again.load(tmp_path)
    assert again.optimizer_steps == 2
    torch.testing.assert_close(again.needed_reference.logprobs(pack, 1.0), model.needed_reference.logprobs(pack, 1.0))


def test_a_checkpoint_that_the_engine_cannot_find_is_no_fresh_start(opened: Open, tmp_path: Path) -> None:
    model = opened()
    model.save(tmp_path)
    model.engine.loads_nothing = True
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no learner checkpoint"):
        model.load(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"zero_stage": 2}, {"ranks": 2}, {"dtype": "bfloat16"}, {"offload_optimizer": True}]
)
def test_a_checkpoint_of_another_layout_is_not_left_to_the_engine(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(trained_model, "load_other_layout", lambda engine, folder: asked.append((engine, folder)))
    opened().save(tmp_path)
    other = opened(**changes)
    other.engine.loads_nothing = True
    other.load(tmp_path)
    assert asked == [(other.engine, tmp_path)]


# --- Settings of DeepSpeed


@pytest.mark.parametrize(
    ("stage", "dtype", "expected"), [(0, "float32", 0), (0, "bfloat16", 1), (2, "bfloat16", 2), (3, "float32", 3)]
)
def test_gradients_are_summed_in_float32_whatever_the_model_computes_in(
    opened: Open, stage: int, dtype: str, expected: int
) -> None:
    """DeepSpeed sums in float32 from stage 1 on only."""
    config = trained_model._deepspeed_config(learner_spec("m", zero_stage=stage, dtype=dtype, max_grad_norm=0.7))
    assert config["zero_optimization"] == {"stage": expected}
    assert config["bf16"]["enabled"] == (dtype == "bfloat16")
    assert (config["data_types"]["grad_accum_dtype"], config["communication_data_type"]) == ("fp32", "fp32")
    assert config["gradient_clipping"] == 0.7
    # Boundaries are set by hand and losses are whole: DeepSpeed is to divide by nothing.
    assert config["gradient_accumulation_steps"] == config["train_micro_batch_size_per_gpu"] == 1
    if stage < 3:
        assert opened(zero_stage=stage, dtype=dtype).layout.zero_stage == expected


def test_an_optimizer_that_is_offloaded_is_torch_s_own_on_the_cpu(opened: Open) -> None:
    model = opened(zero_stage=2, offload_optimizer=True)
    config = model.engine.config
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert config["zero_force_ds_cpu_optimizer"] is False
    fused = [each.engine.optimizer.param_groups[0]["fused"] for each in (model, opened(), opened(zero_stage=2))]
    assert fused == [True, True, False]
