"""What tests/learner/test_sequence_ranks.py lets several ranks do together, and one rank do alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.batch import TrainingBatch, TrainingSequence, make_batch
from learner.losses.policy import policy_loss
from learner.losses.preferences import pairwise_loss
from learner.losses.types import Tokens
from learner.model.policy import PackTensors, load_policy, load_reward_model, to_device
from learner.model.sequence import SequenceGroup
from learner.model.small import build_model
from learner.rank import LearnerRank
from learner.rendezvous import Rendezvous
from rollout.errors import InputError
from tests.learner.loss_numbers import loss_spec
from tests.learner.specs import build_spec, learner_spec

MODELS: dict[str, dict[str, Any]] = {
    "keys-for-two": {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32},
    "uneven": {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 72},
    "one-key": {"num_attention_heads": 5, "num_key_value_heads": 1, "hidden_size": 40},
    "windowed": {"num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 32, "sliding_window": 5},
}
"""Name → attention of a small Mistral, whose heads divide by the ranks in every way there is."""
TRAINED = "trained"
"""Name of a model that is whole, with a tokenizer."""
LOSSES: dict[str, dict[str, Any]] = {
    "clip": {"kl_coef": 0.1, "importance_cap": 2.0},
    "gspo": {"policy_loss": "gspo", "entropy_coef": 0.2, "importance_cap": 2.0, "importance_level": "sequence"},
}
UPDATES: dict[str, dict[str, Any]] = {
    "grpo": {"kl_coef": 0.1, "mini_batches": 2, "reference": True},
    "grpo-zero-3": {"kl_coef": 0.1, "mini_batches": 2, "reference": True, "zero_stage": 3},
    "sft-again": {"activation_checkpointing": True, "zero_stage": 2},
    "dpo-adapters": {"lora_rank": 2, "reference": True, "together": 2},
    "reward_model": {"head": "score", "together": 2, "zero_stage": 1},
}
"""Objective and what is special → settings of the model and of the batch."""


def make_models(folder: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    for number, (name, attention) in enumerate(MODELS.items()):
        torch.manual_seed(number)
        settings = {"sliding_window": None, "vocab_size": 100, "intermediate_size": 48, "num_hidden_layers": 2}
        MistralForCausalLM(MistralConfig(**(settings | attention))).save_pretrained(folder / name)
    build_model(build_spec(heads=4, kv_heads=2, layers=2), iter(()), folder / TRAINED)


def rows() -> list[TrainingSequence]:
    """Eight sequences, of which the first three share a prompt, and the next two another."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 90, size=size) for size in (11, 11, 11, 9, 9, 2, 4, 1)]
    prompts[1] = prompts[2] = prompts[0]
    prompts[4] = prompts[3]
    return [
        TrainingSequence(
            token_ids=np.concatenate([prompt, rng.integers(3, 90, size=length)]),
            first_target=len(prompt),
            advantage=float(rng.normal()),
            rollout_logprobs=rng.uniform(-6, -3, size=length).astype(np.float32),
        )
        for prompt, length in zip(prompts, (30, 3, 12, 1, 17, 9, 2, 25), strict=True)
    ]


def batch(groups: int, seed: int = 0, **cut: Any) -> TrainingBatch:
    settings = {"mini_batches": 1, "micro_batch_tokens": 70, "length_norm": "sequence", "constant_length": 40}
    return make_batch(rows(), ranks=groups, seed=seed, temperature=0.8, **(settings | cut))


def gradients(folder: Path, name: str, loss: str, packs: list[PackTensors]) -> tuple[float, dict[str, Tensor]]:
    """The loss of packs in float64, and this rank's part of its gradient."""
    spec = loss_spec(**LOSSES[loss])
    policy = load_policy(str(folder / name), torch.float64, trust_remote_code=False, logit_chunk_tokens=7)
    total = 0.0
    for pack in packs:
        logprobs, entropies = policy(pack, 0.8, spec.entropy_coef != 0)
        tokens = Tokens(
            logprobs=logprobs,
            old_logprobs=logprobs.detach() - 0.1,
            rollout_logprobs=pack.rollout_logprobs,
            ref_logprobs=logprobs.detach() + 0.3,
            entropies=entropies,
            advantages=pack.advantages,
            weights=pack.weights,
            segments=pack.segments,
        )
        part = policy_loss(tokens, spec).loss
        part.backward()
        total += float(part.detach())
    return total, {key: parameter.grad for key, parameter in policy.named_parameters() if parameter.grad is not None}


def preference(folder: Path, packs: list[PackTensors]) -> tuple[float, dict[str, Tensor]]:
    """The same of pairs that a reward model scores."""
    torch.manual_seed(0)  # its head is drawn
    model = load_reward_model(str(folder / "keys-for-two"), torch.float64, trust_remote_code=False)
    total = 0.0
    for pack in packs:
        scores = model(pack)
        part = pairwise_loss(scores, torch.zeros_like(scores).index_add(0, pack.segments, pack.weights)).loss
        part.backward()
        total += float(part.detach())
    return total, {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}


def tensors(cut: TrainingBatch, number: int, group: SequenceGroup | None) -> list[PackTensors]:
    return [to_device(pack, torch.device("cpu"), group) for mini in cut.packs for pack in mini[number]]


def all_gradients(folder: Path, groups: int, group: SequenceGroup | None) -> Iterator[tuple[str, Any]]:
    number = group.number if group else 0
    for name in MODELS:
        for loss in LOSSES:
            yield f"{name} {loss}", gradients(folder, name, loss, tensors(batch(groups), number, group))
    yield "preference", preference(folder, tensors(batch(groups, together=2), number, group))


def update(rank: LearnerRank, folder: str, name: str, size: int) -> dict[str, Any]:
    """Two batches from the same start: figures of the second, weights, and what the other verbs answer."""
    import deepspeed

    settings = dict(UPDATES[name])
    cut = {key: settings.pop(key) for key in ("mini_batches", "together") if key in settings}
    spec = learner_spec(
        folder, lr=1e-3, sequence_parallel=size, **{k: v for k, v in settings.items() if k != "reference"}
    )
    if settings.get("reference"):
        spec = replace(spec, reference_path=folder)
    rank.open(spec)
    groups = rank.ranks // size
    objective: Any = next(kind for kind in ("grpo", "sft", "dpo", "reward_model") if name.startswith(kind))
    for seed in range(2):
        stats = rank.train(batch(groups, seed, **cut), objective)
    whole = batch(groups, 5, **cut)
    answers: dict[str, Any] = {"stats": stats}
    if objective == "grpo":
        answers["kl"] = rank.kl_to_reference(whole)
        answers["logprobs"] = rank.logprobs(whole)
    if "together" in cut:
        answers["scores"] = rank.scores(whole)
    named = dict(rank.model.module.named_parameters())
    with deepspeed.zero.GatheredParameters(list(named.values()), enabled=rank.model.sharded):
        answers["weights"] = {key: parameter.detach().clone() for key, parameter in named.items()}
    return answers


def work(index: int, ranks: int, port: int, folder: str) -> None:
    """One of several ranks; what it found lies in `folder` afterwards."""
    from deepspeed import comm

    rank = LearnerRank(index, ranks, Rendezvous("127.0.0.1", port), threads=1, timeout_s=60)
    for size in (2, ranks):
        group = SequenceGroup(index, ranks, size)
        for key, (loss, slopes) in all_gradients(Path(folder), ranks // size, group):
            for slope in slopes.values():
                comm.all_reduce(slope)
            torch.save((loss, slopes), Path(folder) / f"{key} {size} {index}.pt")
        for name in UPDATES:
            torch.save(update(rank, f"{folder}/{TRAINED}", name, size), Path(folder) / f"{name} {size} {index}.pt")
    try:
        split_too_far(group, index)
    except InputError as refused:
        torch.save(str(refused), Path(folder) / f"refused {index}.pt")


def split_too_far(group: SequenceGroup, index: int) -> None:
    states = torch.zeros(2, 3, 4)
    group.with_all_tokens(states, states, states, lambda query, key, value: query)
