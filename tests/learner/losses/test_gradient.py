"""The gradient does not depend on how a batch is computed: packs, ranks, order, shared prompts, recomputed activations.

In float64, over random shapes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.batch import LengthNorm, Pack, TrainingSequence, make_batch
from learner.losses.policy import policy_loss
from learner.losses.types import Tokens
from learner.model.policy import Policy, load_policy, to_device
from learner.model.small import BuildSpec, build_model
from tests.learner.loss_numbers import loss_spec

CPU = torch.device("cpu")
LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"kl_coef": 0.1, "importance_cap": 2.0},
    "gspo": {"policy_loss": "gspo", "importance_level": "geometric", "entropy_coef": 0.2},
    "cispo": {"policy_loss": "cispo", "importance_level": "sequence", "importance_mode": "mask", "importance_cap": 1e9},
}
few = settings(max_examples=15, deadline=None, derandomize=True)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Policy]:
    """By whether input and output embedding are one."""
    found = {}
    shape = {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "intermediate": 48, "max_tokens": 128}
    for tied in (False, True):
        folder = tmp_path_factory.mktemp("model")
        build_model(BuildSpec(tokenizer="characters", vocab_size=0, tied=tied, seed=1, **shape), iter(()), folder)
        found[tied] = load_policy(str(folder), torch.float64, trust_remote_code=False, logit_chunk_tokens=64)
    return found


@dataclass(frozen=True)
class Cut:
    """One way to compute a batch."""

    ranks: int = 1
    budget: int = 10_000
    seed: int = 0
    recompute: bool = False
    chunk: int = 64


ONE_BY_ONE = Cut(budget=1)
"""Every sequence by itself, its prompt with it."""
cuts = st.builds(
    Cut,
    ranks=st.integers(1, 3),
    budget=st.sampled_from([20, 60, 150, 10_000]),
    seed=st.integers(0, 5),
    recompute=st.booleans(),
    chunk=st.sampled_from([3, 64]),
)


@st.composite
def groups(draw: st.DrawFn) -> list[TrainingSequence]:
    """Completions of 1 to 3 prompts, 1 to 4 of each, of 1 to 40 tokens."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    sequences = []
    for _ in range(draw(st.integers(1, 3))):
        prompt = rng.integers(3, 100, draw(st.integers(1, 40)))
        for length in draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)):
            sequences.append(
                TrainingSequence(
                    token_ids=np.concatenate([prompt, rng.integers(3, 100, length)]),
                    first_target=len(prompt),
                    advantage=float(rng.normal()),
                    rollout_logprobs=rng.uniform(-6, -3, length).astype(np.float32),
                )
            )
    return sequences


def packs_of(sequences: list[TrainingSequence], cut: Cut, norm: LengthNorm) -> list[Pack]:
    batch = make_batch(
        sequences,
        ranks=cut.ranks,
        mini_batches=1,
        micro_batch_tokens=cut.budget,
        length_norm=norm,
        constant_length=40,
        temperature=1.0,
        seed=cut.seed,
    )
    return [pack for mini in batch.packs for rank in mini for pack in rank]


def gradient(policy: Policy, packs: list[Pack], cut: Cut, loss: dict[str, Any]) -> dict[str, Tensor]:
    """Gradients of the whole objective, summed pack by pack as the learner does."""
    policy.zero_grad()
    policy.chunk = cut.chunk
    if cut.recompute:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    policy.train(cut.recompute)
    spec = loss_spec(**loss)
    for pack in packs:
        tensors = to_device(pack, CPU)
        logprobs, entropies = policy(tensors, 0.8, spec.entropy_coef != 0)
        tokens = Tokens(
            logprobs=logprobs,
            old_logprobs=logprobs.detach() - 0.1,
            rollout_logprobs=tensors.rollout_logprobs,
            ref_logprobs=logprobs.detach() + 0.3,
            entropies=entropies,
            advantages=tensors.advantages,
            weights=tensors.weights,
            segments=tensors.segments,
        )
        policy_loss(tokens, spec).loss.backward()
    if cut.recompute:
        policy.model.gradient_checkpointing_disable()
    return {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    # The norms of `transformers` compute in float32 even here, so that is what rounding means.
    slack = 1e-6 * max(float(slopes.abs().max()) for slopes in right.values())
    for name in right:
        torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=slack, msg=name)


@pytest.mark.parametrize(("loss", "tied"), [("grpo", False), ("gspo", True), ("cispo", False)])
@few
@given(sequences=groups(), cut=cuts, norm=st.sampled_from(["sequence", "token", "constant"]))
def test_the_cut_does_not_change_the_gradient(
    policies: dict[bool, Policy], loss: str, tied: bool, sequences: list[TrainingSequence], cut: Cut, norm: LengthNorm
) -> None:
    policy = policies[tied]
    expected = gradient(policy, packs_of(sequences, ONE_BY_ONE, norm), ONE_BY_ONE, LOSSES[loss])
    assert_same(gradient(policy, packs_of(sequences, cut, norm), cut, LOSSES[loss]), expected)


@few
@given(sequences=groups(), cut=cuts, seed=st.integers(0, 99))
def test_masked_tokens_carry_exactly_no_gradient(
    policies: dict[bool, Policy], sequences: list[TrainingSequence], cut: Cut, seed: int
) -> None:
    """Neither the state that a masked target is predicted from, nor anything that only leads there."""
    policy, rng = policies[False], np.random.default_rng(seed)
    for pack in packs_of(sequences, cut, "token"):
        pack.weights[rng.random(len(pack.weights)) < 0.5] = 0
        kept: list[Tensor] = []

        def keep(_: Any, __: Any, output: Any, kept: list[Tensor] = kept) -> None:
            output.last_hidden_state.retain_grad()
            kept.append(output.last_hidden_state)

        handle = policy.model.base_model.register_forward_hook(keep)
        try:
            found = gradient(policy, [pack], cut, {"importance_cap": 2.0})
        finally:
            handle.remove()
        touched = kept[0].grad[0].abs().sum(-1).nonzero().flatten().tolist()
        trained = pack.target_positions[pack.weights > 0]
        assert sorted(set(trained.tolist())) == touched
        if not len(trained):
            assert not any(slope.any() for slope in found.values())
