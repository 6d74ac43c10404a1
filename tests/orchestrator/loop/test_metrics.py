"""The figures of a step, under their names."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learner.audit import LogprobGap
from learner.batch import TrainingBatch, make_batch, sequences_of
from learner.stats import TrainStats
from orchestrator.buffer import Buffer
from orchestrator.loop.metrics import step_metrics
from rewards.types import Score, ScoredGroup
from rollout.service import PublishReport
from tests.factories import completion, scored_group

MEANS = {
    "entropy": 1.5,
    "clipped_low": 0.1,
    "clipped_high": 0.15,
    "ratio": 1.01,
    "mismatch_kl": 1e-6,
    "importance": 0.99,
    "importance_bound": 0.02,
    "effective": 0.5,
}


def stats(**means: float) -> TrainStats:
    return TrainStats(
        means=MEANS | means,
        extremes={"mismatch_max": 1e-3, "ratio_min": 0.6, "ratio_max": 1.7},
        count=14,
        loss=-0.25,
        parts={"policy": -0.3, "kl": 0.05},
        grad_norm=0.5,
        lr=1e-4,
        seconds=2.0,
        optimizer_steps=12,
        mfu=0.4,
        memory_peak=3_000_000_000,
    )


def batch_of(groups: list[ScoredGroup]) -> TrainingBatch:
    return make_batch(
        [row for group in groups for row in sequences_of(group, np.zeros(len(group.completions)))],
        ranks=1,
        mini_batches=1,
        micro_batch_tokens=64,
        length_norm="sequence",
        constant_length=8,
        temperature=1.0,
        seed=0,
    )


def figures(groups: list[ScoredGroup], **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "batch": batch_of(groups),
        "stats": stats(),
        "version": 6,
        "published": None,
        "audit": None,
        "buffer": Buffer(2, 1, False),
        "engine_version": 5,
        "times": {"time/step_s": 2.0, "time/train_s": 1.0},
    }
    return step_metrics(groups, **(values | changes))


def groups() -> list[ScoredGroup]:
    mixed = scored_group(
        [1.0, 0.0],
        completions=[
            completion(token_ids=(7, 8, 1), versions=(4, 5, 6)),
            completion(token_ids=(7,) * 5, versions=6, finish_reason="length"),
        ],
    )
    return [mixed, scored_group([0.5, 0.5], versions=[6, 5])]


def test_rewards_lengths_and_groups() -> None:
    found = figures(groups())
    assert found["reward/mean"] == 0.5
    assert found["reward/accuracy"] == 0.5
    assert found["completion/length_mean"] == (3 + 5 + 3 + 3) / 4
    assert found["completion/truncated_share"] == 0.25
    assert found["groups/no_signal_share"] == 0.5
    assert found["throughput/completion_tokens"] == 14
    assert found["throughput/tokens_per_s"] == 7.0
    assert found["throughput/trained_tokens"] == 14 + 4 * 4  # the prompts, four tokens each, included


def test_staleness_is_counted_in_tokens_against_the_learners_version() -> None:
    found = figures(groups())
    # 6 − (4, 5, 6), five tokens of 6, three of 6, three of 5
    assert found["staleness/max"] == 2
    assert found["staleness/mean"] == pytest.approx((2 + 1 + 0 + 3 * 1) / 14)
    assert found["policy/version"] == 5


def test_the_learners_own_figures() -> None:
    found = figures(groups())
    expected = {
        "policy/entropy": 1.5,
        "policy/clip_fraction": 0.25,
        "policy/clip_fraction_low": 0.1,
        "policy/clip_fraction_high": 0.15,
        "policy/ratio": 1.01,
        "policy/ratio_min": 0.6,
        "policy/ratio_max": 1.7,
        "mismatch/kl": 1e-6,
        "mismatch/max": 1e-3,
        "importance/mean": 0.99,
        "importance/capped_share": 0.02,
        "learner/loss": -0.25,
        "learner/loss_policy": -0.3,
        "learner/loss_kl": 0.05,
        "learner/effective_tokens": 7,
        "learner/grad_norm": 0.5,
        "learner/lr": 1e-4,
        "learner/optimizer_steps": 12,
        "time/train_s": 1.0,
    }
    assert {name: found[name] for name in expected} == expected


def test_the_account_is_part_of_every_step() -> None:
    buffer = Buffer(1, 1, True)

    async def work() -> None:
        for _ in range(2):
            await buffer.admit()
        await buffer.put(0, scored_group([1.0, 1.0]))

    asyncio.run(work())
    found = figures(groups(), buffer=buffer)
    expected = {"taken": 2, "trained": 0, "in_flight": 1, "dropped": 1, "dropped_no_signal": 1}
    assert {name: found[f"count/{name}"] for name in expected} == expected
    assert (found["queue/in_flight"], found["queue/waiting"]) == (1, 0)


def test_what_did_not_happen_has_no_figure() -> None:
    names = set(figures(groups()))
    assert not [name for name in names if name.startswith(("publish/", "audit/", "kl/"))]


def test_a_batch_of_which_nothing_trains_has_no_figures_of_the_loss() -> None:
    nothing = replace(stats(), means={}, extremes={}, count=0, loss=0, parts={}, mfu=0)
    found = figures(groups(), stats=nothing)
    assert not [name for name in found if name.startswith(("mismatch/", "importance/", "learner/loss_"))]
    assert found["learner/loss"] == 0
    assert found["reward/mean"] == 0.5


def test_the_speed_of_the_learner() -> None:
    found = figures(groups())
    assert found["learner/tokens_per_s"] == batch_of(groups()).num_tokens / 2
    assert found["learner/mfu"] == 0.4
    assert found["learner/memory_peak_gb"] == 3
    assert found["learner/padding_share"] == 0


def test_publish_audit_and_kl() -> None:
    report = PublishReport(version=6, num_bytes=3_000_000, seconds=0.5, pause_seconds=0.25)
    gap = LogprobGap(mean=1e-6, high=2e-6, largest=3e-6, tokens=100)
    found = figures(groups(), published=report, audit=gap, stats=stats(kl=0.01))
    assert found["publish/bytes"] == 3_000_000
    assert found["publish/gb_per_s"] == pytest.approx(0.006)
    assert found["publish/seconds"] == 0.5
    assert found["publish/pause_s"] == 0.25
    assert [found[f"audit/{name}_diff"] for name in ("mean", "high", "max")] == [1e-6, 2e-6, 3e-6]
    assert found["kl/ref"] == 0.01


def test_a_reward_part_is_averaged_over_the_completions_that_have_it() -> None:
    def with_parts(*parts: dict[str, float]) -> ScoredGroup:
        group = scored_group([0.0] * len(parts))
        scores = tuple(Score(value=0.0, status="ok", breakdown=part, seconds=0.0) for part in parts)
        return type(group)(group=group.group, completions=group.completions, scores=scores, num_errors=0, seconds=0.0)

    found = figures([with_parts({"accuracy": 1.0}, {"accuracy": 0.0}), with_parts({"style": 0.5}, {"style": 0.5})])
    assert found["reward/accuracy"] == 0.5
    assert found["reward/style"] == 0.5


def test_every_figure_is_a_plain_number_that_json_takes() -> None:
    assert {type(value) for value in figures(groups()).values()} <= {int, float}
