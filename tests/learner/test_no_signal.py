"""Completions without a signal are not computed, and the gradient is that of all completions.

What "the same" means. The weights of the loss are the same to the last bit (tests/learner/test_batch.py), and so is every gradient
where packs of what has a signal are the packs that they would be: here one sequence a pack. Where they are cut anew, sums are added
in another order, so the gradients are those of the objective up to rounding: here 1e-9 of it in float64.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.batch import LengthNorm, TrainingBatch, TrainingSequence, make_batch
from learner.losses.policy import policy_loss
from learner.losses.types import Tokens
from learner.model.policy import Policy, load_policy, to_device
from learner.model.small import build_model
from tests.learner.loss_numbers import loss_spec
from tests.learner.specs import build_spec

CPU = torch.device("cpu")
LOSSES = [
    *({"policy_loss": name} for name in ("clip", "gspo", "cispo", "reinforce")),
    {"policy_loss": "clip", "dual_clip": 1.1},
    {"policy_loss": "gspo", "dual_clip": 1.1},
    *(
        {"importance_mode": mode, "importance_level": level, "importance_cap": 1.5}
        for mode in ("truncate", "mask")
        for level in ("token", "sequence", "geometric")
    ),
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    build_model(build_spec(), iter(()), path)
    return str(path)


def sequences() -> list[TrainingSequence]:
    """Four groups of three: two without a signal, one with, one with a completion at its baseline."""
    rng = np.random.default_rng(0)
    found = []
    for advantages in ([0.0, 0.0, -0.0], [1.0, -2.0, 1.0], [0.0, 0.0, 0.0], [1.2, 0.0, -1.2]):
        prompt = rng.integers(3, 90, 12)
        for advantage in advantages:
            length = int(rng.integers(2, 20))
            found.append(
                TrainingSequence(
                    token_ids=np.concatenate([prompt, rng.integers(3, 90, length)]),
                    first_target=len(prompt),
                    advantage=advantage,
                    rollout_logprobs=rng.uniform(-6, -3, length).astype(np.float32),
                )
            )
    return found


def both(norm: LengthNorm = "sequence", **cut: int) -> tuple[TrainingBatch, TrainingBatch]:
    """All of it, and what has a signal."""
    values: dict[str, Any] = {"ranks": 1, "mini_batches": 1, "micro_batch_tokens": 60, "seed": 0, "constant_length": 30}
    values |= {"temperature": 1.0, "length_norm": norm} | cut
    whole, kept = (make_batch(sequences(), **values, only_signal=only) for only in (False, True))
    assert kept.num_sequences == 5
    return whole, kept


def gradients(policy: Policy, batch: TrainingBatch, loss: dict[str, Any]) -> list[list[Tensor]]:
    """Of every mini-batch, summed over ranks and packs as the learner does. π / π_old is a constant other than 1."""
    found = []
    for mini in batch.packs:
        policy.zero_grad()
        for pack in (pack for rank in mini for pack in rank):
            tensors = to_device(pack, CPU)
            logprobs, entropies = policy(tensors, 0.8, "entropy_coef" in loss)
            tokens = Tokens(
                logprobs=logprobs,
                old_logprobs=logprobs.detach() - torch.sin(tensors.targets),
                rollout_logprobs=tensors.rollout_logprobs,
                ref_logprobs=None,
                entropies=entropies,
                advantages=tensors.advantages,
                weights=tensors.weights,
                segments=tensors.segments,
            )
            policy_loss(tokens, loss_spec(**loss)).loss.backward()
        found.append([parameter.grad.clone() for parameter in policy.parameters() if parameter.grad is not None])
    return found


def open_policy(folder: str, dtype: torch.dtype) -> Policy:
    return load_policy(folder, dtype, trust_remote_code=False, logit_chunk_tokens=64)


NORMS: list[LengthNorm] = ["sequence", "token", "constant"]
CUTS: list[dict[str, int]] = [{}, {"mini_batches": 3}, {"ranks": 2, "mini_batches": 2, "micro_batch_tokens": 25}]


@pytest.mark.parametrize("number", range(len(LOSSES)), ids=[" ".join(map(str, loss.values())) for loss in LOSSES])
def test_the_gradient_is_that_of_all_completions(folder: str, number: int) -> None:
    policy = open_policy(folder, torch.float64)
    for place, cut in enumerate(CUTS):
        batches = both(NORMS[(number + place) % 3], **cut)
        for whole, kept in zip(*(gradients(policy, batch, LOSSES[number]) for batch in batches), strict=True):
            size = max(float(gradient.abs().max()) for gradient in whole)
            for expected, found in zip(whole, kept, strict=True):
                # Weights, advantages and what the sampler gave are float32, and equal; the rest is float64.
                assert float((expected - found).abs().max()) <= 1e-9 * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_the_packs_are_the_same_so_is_every_bit(folder: str, dtype: torch.dtype) -> None:
    policy, trained = open_policy(folder, dtype), 0
    for number, loss in enumerate(LOSSES):
        batches = both(NORMS[number % 3], micro_batch_tokens=1, mini_batches=2)
        for whole, kept in zip(*(gradients(policy, batch, loss) for batch in batches), strict=True):
            trained += any(gradient.any() for gradient in whole)
            assert all(torch.equal(expected, found) for expected, found in zip(whole, kept, strict=True))
    assert trained > len(LOSSES), "of some mini-batches the importance weights mask all"


def test_a_completion_without_a_signal_has_a_gradient_of_exact_zeros(folder: str) -> None:
    """The reason why it need not be computed, of every loss without a second term."""
    policy = open_policy(folder, torch.float32)
    nothing = [replace(row, advantage=0.0) for row in sequences()]
    cut: dict[str, Any] = {"ranks": 1, "mini_batches": 1, "micro_batch_tokens": 60, "seed": 0, "constant_length": 30}
    batch = make_batch(nothing, temperature=1.0, length_norm="sequence", **cut)
    for loss in LOSSES:
        assert not any(gradient.any() for mini in gradients(policy, batch, loss) for gradient in mini)
    (mini,) = gradients(policy, batch, {"entropy_coef": 0.1})
    assert any(gradient.any() for gradient in mini), "and of one with a second term it has"
