"""What objectives declare is what they do: the forward passes they cost, and the reference they read."""

from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.batch import TrainingSequence
from learner.model.policy import PackTensors
from learner.objectives import OBJECTIVES, RANKED_BY
from learner.spec import Head, LearnerSpec, ObjectiveName
from learner.throughput import TRAIN
from tests.learner.packs import packs_of
from tests.learner.specs import learner_spec


@dataclass
class Model:
    """Stands for a TrainedModel, and counts the forward passes over it."""

    spec: LearnerSpec
    reference: "Model | None" = None
    passes: int = 0
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def logprobs(self, pack: PackTensors, temperature: float) -> Tensor:
        self.passes += 1
        return torch.full((len(pack.targets),), -1.0 - self.passes)

    @property
    def needed_reference(self) -> "Model":
        assert self.reference is not None
        return self.reference

    def engine(self, pack: PackTensors, *arguments: Any) -> Any:
        self.calls.append(arguments)
        if self.spec.head == "score":
            return torch.arange(float(len(pack.ends)), requires_grad=True)
        return torch.full((len(pack.targets),), -2.0, requires_grad=True), torch.ones(len(pack.targets))


def pack() -> PackTensors:
    rows = [
        TrainingSequence(
            token_ids=np.arange(3, 3 + length), first_target=4, rollout_logprobs=np.zeros(length - 4, np.float32)
        )
        for length in (9, 12)
    ]
    return packs_of(rows, together=2)[0]


def model(objective: ObjectiveName, reference: bool, **changes: Any) -> Any:
    spec = learner_spec("model", head=OBJECTIVES[objective].head, **changes)
    return Model(spec, Model(spec) if reference else None)


CASES: list[tuple[ObjectiveName, int, bool, dict[str, Any], int]] = [
    ("sft", 1, False, {}, 0),
    ("reward_model", 1, False, {}, 0),
    ("dpo", 1, True, {}, 1),
    ("grpo", 1, False, {}, 0),
    ("grpo", 1, True, {"kl_coef": 0.1}, 1),
    ("grpo", 1, True, {"kl_coef": 0.1, "kl_in": "reward"}, 0),
    ("grpo", 4, False, {}, 1),
    ("grpo", 4, True, {"kl_coef": 0.1}, 2),
    ("grpo", 4, True, {"kl_coef": 0.1, "kl_in": "reward"}, 1),
]


@pytest.mark.parametrize(("name", "mini_batches", "reference", "settings", "passes"), CASES)
def test_an_objective_costs_training_and_the_forward_passes_of_its_anchors(
    name: ObjectiveName, mini_batches: int, reference: bool, settings: dict[str, Any], passes: int
) -> None:
    objective, trained = OBJECTIVES[name], model(name, reference, **settings)
    anchors = objective.anchors(trained, pack(), 1.0, mini_batches)
    made = trained.passes + (trained.reference.passes if trained.reference else 0)
    assert made == passes == sum(anchor is not None for anchor in anchors)
    assert objective.forward_passes(trained, mini_batches) == TRAIN + passes
    assert trained.calls == [], "anchors have no gradient"
    parts = objective.loss(trained, pack(), 1.0, anchors)
    assert len(trained.calls) == 1
    assert parts.loss.requires_grad


def test_which_objectives_read_a_reference() -> None:
    def reading(**settings: Any) -> list[str]:
        spec = learner_spec("model", **settings)
        return [name for name, objective in OBJECTIVES.items() if objective.reads_reference(spec)]

    assert reading() == ["dpo"]
    assert reading(kl_coef=0.1) == reading(kl_coef=0.1, kl_in="reward") == ["grpo", "dpo"]


def test_entropies_carry_a_gradient_only_where_they_count() -> None:
    for coefficient in (0.0, 0.1):
        trained = model("grpo", False, entropy_coef=coefficient)
        objective = OBJECTIVES["grpo"]
        objective.loss(trained, pack(), 0.5, objective.anchors(trained, pack(), 0.5, 1))
        assert trained.calls == [(0.5, coefficient != 0)]


def test_every_name_and_every_head_is_served() -> None:
    assert set(OBJECTIVES) == set(get_args(ObjectiveName))
    assert set(RANKED_BY) == set(get_args(Head))
    assert all(objective.head == head for head, objective in RANKED_BY.items())
