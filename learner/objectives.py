"""The objectives by name: what each computes on a pack, what it needs before the first step of a batch, and what it costs.

The formulas are in learner/losses/. To add an objective: its name in learner/spec.py, a class here, a line in OBJECTIVES.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from learner.losses.policy import policy_loss
from learner.losses.preferences import dpo_loss, implicit_rewards, pairwise_loss
from learner.losses.supervised import sft_loss
from learner.losses.types import LossParts, Tokens
from learner.model.policy import PackTensors
from learner.model.reference import FrozenPolicy
from learner.spec import Head, LearnerSpec, ObjectiveName
from learner.throughput import TRAIN
from learner.trained_model import TrainedModel


class Anchors(NamedTuple):
    """Log-probabilities of a pack's targets before the first step of a batch, each [N] without gradient."""

    old_logprobs: Tensor | None = None
    """The policy's own; None: not needed, or those of the only forward pass that is made anyway."""
    ref_logprobs: Tensor | None = None
    """The frozen reference's; None: not needed."""

    def to(self, device: torch.device) -> "Anchors":
        """The same on another device."""
        return Anchors(*(None if logprobs is None else logprobs.to(device) for logprobs in self))


class Objective(ABC):
    """What a model is trained towards. Forward passes are collective under ZeRO-3, so every rank makes the same ones."""

    head: ClassVar[Head]
    """The output layer of the model that it trains."""

    def reads_reference(self, spec: LearnerSpec) -> bool:
        """Whether a stage that trains towards it must open a frozen reference."""
        return False

    def forward_passes(self, model: TrainedModel, mini_batches: int) -> int:
        """Cost of a batch in forward passes over all of it: training, and the anchors."""
        return TRAIN

    def anchors(self, model: TrainedModel, pack: PackTensors, temperature: float, mini_batches: int) -> Anchors:
        """What `loss` needs of a pack from before the first of so many steps."""
        return Anchors()

    @abstractmethod
    def loss(self, model: TrainedModel, pack: PackTensors, temperature: float, anchors: Anchors) -> LossParts:
        """Forward pass and loss of one pack."""


class PolicyGradient(Objective):
    """Reinforcement learning: GRPO and its relatives, by the choices in the spec."""

    head = "language"

    def reads_reference(self, spec: LearnerSpec) -> bool:
        return spec.kl_coef > 0

    def forward_passes(self, model: TrainedModel, mini_batches: int) -> int:
        return TRAIN + (mini_batches > 1) + (self._reference(model) is not None)

    def anchors(self, model: TrainedModel, pack: PackTensors, temperature: float, mini_batches: int) -> Anchors:
        # With a single mini-batch the old policy is the current one, whose forward pass is made anyway.
        old = model.logprobs(pack, temperature) if mini_batches > 1 else None
        reference = self._reference(model)
        return Anchors(old, reference.logprobs(pack, temperature) if reference else None)

    def loss(self, model: TrainedModel, pack: PackTensors, temperature: float, anchors: Anchors) -> LossParts:
        logprobs, entropies = model.engine(pack, temperature, model.spec.entropy_coef != 0)
        old = anchors.old_logprobs
        tokens = Tokens(
            logprobs=logprobs,
            old_logprobs=logprobs.detach() if old is None else old,
            rollout_logprobs=pack.rollout_logprobs,
            ref_logprobs=anchors.ref_logprobs,
            entropies=entropies,
            advantages=pack.advantages,
            weights=pack.weights,
            segments=pack.segments,
        )
        return policy_loss(tokens, model.spec)

    def _reference(self, model: TrainedModel) -> FrozenPolicy | None:
        """The reference that the loss reads; with the KL in the reward it was read before (`kl_to_reference`)."""
        return model.reference if model.spec.kl_in == "loss" else None


class Supervised(Objective):
    """Supervised fine-tuning: the likelihood of given completions."""

    head = "language"

    def loss(self, model: TrainedModel, pack: PackTensors, temperature: float, anchors: Anchors) -> LossParts:
        logprobs, entropies = model.engine(pack, temperature)
        return sft_loss(logprobs, entropies, pack.weights)


class PairwisePreference(Objective):
    """Reward models: the chosen completion of a pair scores above the rejected one."""

    head = "score"

    def loss(self, model: TrainedModel, pack: PackTensors, temperature: float, anchors: Anchors) -> LossParts:
        scores = model.engine(pack)
        return pairwise_loss(scores, torch.zeros_like(scores).index_add(0, pack.segments, pack.weights))

    @torch.no_grad()
    def scores(self, model: TrainedModel, pack: PackTensors, temperature: float) -> Tensor:
        """[S] score of each sequence."""
        scores: Tensor = model.engine(pack)
        return scores


class DirectPreference(Objective):
    """DPO: the policy itself ranks the completions of a pair, by how far it moved from the reference."""

    head = "language"

    def reads_reference(self, spec: LearnerSpec) -> bool:
        return True

    def forward_passes(self, model: TrainedModel, mini_batches: int) -> int:
        return TRAIN + 1

    def anchors(self, model: TrainedModel, pack: PackTensors, temperature: float, mini_batches: int) -> Anchors:
        return Anchors(ref_logprobs=model.needed_reference.logprobs(pack, temperature))

    def loss(self, model: TrainedModel, pack: PackTensors, temperature: float, anchors: Anchors) -> LossParts:
        assert anchors.ref_logprobs is not None
        logprobs, _ = model.engine(pack, temperature)
        return dpo_loss(
            logprobs,
            anchors.ref_logprobs,
            pack.segments,
            pack.weights,
            beta=model.spec.dpo_beta,
            label_smoothing=model.spec.dpo_label_smoothing,
        )

    @torch.no_grad()
    def scores(self, model: TrainedModel, pack: PackTensors, temperature: float) -> Tensor:
        """[at least S] β log(π / π_ref) of each completion."""
        logprobs = model.logprobs(pack, temperature)
        reference = model.needed_reference.logprobs(pack, temperature)
        return implicit_rewards(logprobs, reference, pack.segments, model.spec.dpo_beta)


OBJECTIVES: Mapping[ObjectiveName, Objective] = {
    "grpo": PolicyGradient(),
    "sft": Supervised(),
    "reward_model": PairwisePreference(),
    "dpo": DirectPreference(),
}

RANKED_BY: Mapping[Head, PairwisePreference | DirectPreference] = {
    "language": DirectPreference(),
    "score": PairwisePreference(),
}
"""Head of a model → the objective whose scores rank the answers to a prompt."""
