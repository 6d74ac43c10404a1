"""Audits tell rounding from other weights, however many tokens they look at."""

from pathlib import Path

import numpy as np
import pytest
import torch

from learner.audit import LogprobGap, logprob_gaps, worst
from learner.batch import TrainingSequence
from learner.model.policy import load_policy
from learner.model.small import build_model
from tests.learner.packs import packs_of
from tests.learner.specs import build_spec

RNG = np.random.default_rng(5)


def gap_of(differences: np.ndarray) -> LogprobGap:
    learner = -np.abs(RNG.normal(1, 1, len(differences)))
    packs = [(np.zeros(len(differences), np.int64), learner, learner + differences)]
    return logprob_gaps(packs, [0])[0]


@pytest.mark.parametrize("tokens", [500, 100_000])
def test_bfloat16_passes_with_its_single_large_differences(tokens: int) -> None:
    # As others measured on the same weights: standard deviation 0.05, and now and then 0.5.
    differences = RNG.normal(0, 0.05, tokens)
    differences[:: max(tokens // 20, 1)] = 0.6
    gap = gap_of(differences)
    assert gap.largest > 0.5
    assert gap.within(0.04) is (tokens > 500)  # 20 of 500 are four in a hundred: that is not now and then


def test_other_weights_do_not_pass() -> None:
    assert not gap_of(RNG.normal(0, 0.3, 2000)).within(0.04)
    few_but_far = np.zeros(2000)
    few_but_far[:60] = 1.2
    assert gap_of(few_but_far).mean < 0.04
    assert not gap_of(few_but_far).within(0.04)


def test_a_policy_in_bfloat16_agrees_with_itself_in_float32_and_not_with_that_of_a_step_later(tmp_path: Path) -> None:
    build_model(build_spec(hidden=128, heads=4, kv_heads=2, intermediate=256, layers=3, seed=3), iter(()), tmp_path)
    half, whole = (
        load_policy(str(tmp_path), dtype, trust_remote_code=False, logit_chunk_tokens=512)
        for dtype in (torch.bfloat16, torch.float32)
    )
    with torch.no_grad():
        for rounded, exact in zip(half.parameters(), whole.parameters(), strict=True):
            rounded *= 2  # surer of what it says than a model that was just drawn
            exact.copy_(rounded)
    rows = [TrainingSequence(token_ids=RNG.integers(3, 90, size=260), first_target=4) for _ in range(16)]
    packs = packs_of(rows, budget=1100)

    def gap() -> LogprobGap:
        with torch.no_grad():
            both = [tuple(policy(pack, 1.0)[0].float().numpy() for policy in (whole, half)) for pack in packs]
        return logprob_gaps([(np.zeros(len(learner), np.int64), learner, sampler) for learner, sampler in both], [0])[0]

    same = gap()
    assert same.tokens > 4000
    assert 0 < same.mean < 0.04
    assert same.within(0.04)
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-2)
    (-whole(packs[0], 1.0)[0].mean()).backward()
    optimizer.step()
    assert not gap().within(0.04)


def test_each_sampler_is_judged_by_its_own_sequences() -> None:
    # Sequences 0 and 2 are of replica 4, sequence 1 of replica 7; targets lie in two packs.
    packs = [
        (np.array([0, 0, 1]), np.array([-1.0, -1.0, -1.0]), np.array([-1.0, -1.1, -1.5])),
        (np.array([2, 1]), np.array([-2.0, -1.0]), np.array([-2.2, -1.5])),
    ]
    gaps = logprob_gaps(packs, [4, 7, 4])
    assert gaps[4].mean == pytest.approx(0.1)
    assert (gaps[7].mean, gaps[7].largest, gaps[7].tokens) == (0.5, 0.5, 2)
    assert worst(gaps.values()) == LogprobGap(mean=0.5, high=0.5, largest=0.5, tokens=5)
