"""The figures of one step of reinforcement learning, under the names that metrics.jsonl and the report use."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from learner.audit import LogprobGap
from learner.batch import TrainingBatch
from learner.stats import TrainStats
from orchestrator.buffer import Buffer
from rewards.types import ScoredGroup
from rollout.service import PublishReport

FIGURES = {
    "policy/entropy": "entropy",
    "policy/clip_fraction_low": "clipped_low",
    "policy/clip_fraction_high": "clipped_high",
    "policy/ratio": "ratio",
    "policy/ratio_min": "ratio_min",
    "policy/ratio_max": "ratio_max",
    "kl/ref": "kl",
    "mismatch/kl": "mismatch_kl",
    "mismatch/max": "mismatch_max",
    "importance/mean": "importance",
    "importance/capped_share": "importance_bound",
}
"""Metric → figure of the loss (learner/losses/policy.py)."""


def step_metrics(
    groups: Sequence[ScoredGroup],
    batch: TrainingBatch,
    stats: TrainStats,
    version: int,
    published: PublishReport | None,
    audit: LogprobGap | None,
    buffer: Buffer,
    engine_version: int,
    times: Mapping[str, float],
) -> dict[str, Any]:
    """The metrics of one step. `version`: the learner's when it took the batch. Shares are between 0 and 1, times in seconds, lengths in tokens."""
    completions = [completion for group in groups for completion in group.completions]
    lengths = np.array([len(completion.token_ids) for completion in completions])
    staleness = np.concatenate([version - completion.policy_versions for completion in completions])
    metrics: dict[str, Any] = {
        "reward/mean": float(np.mean([reward for group in groups for reward in group.rewards])),
        **_reward_parts(groups),
        "completion/length_mean": float(lengths.mean()),
        "completion/truncated_share": float(np.mean([c.finish_reason == "length" for c in completions])),
        "groups/no_signal_share": float(np.mean([not group.has_signal for group in groups])),
        **_training(stats),
        "policy/version": engine_version,
        "staleness/mean": float(staleness.mean()),
        "staleness/max": int(staleness.max()),
        "learner/loss": stats.loss,
        "learner/grad_norm": stats.grad_norm,
        "learner/lr": stats.lr,
        "learner/optimizer_steps": stats.optimizer_steps,
        "learner/skipped_share": batch.skipped_share,
        "throughput/completion_tokens": int(lengths.sum()),
        "throughput/tokens_per_s": float(lengths.sum() / times["time/step_s"]),
        "throughput/trained_tokens": batch.num_tokens,
        **learner_speed(batch, stats),
        "queue/in_flight": buffer.num_in_flight,
        "queue/waiting": buffer.num_waiting,
        **buffer.counts(),
        **times,
    }
    if published is not None:
        metrics |= {
            "publish/bytes": published.num_bytes,
            "publish/seconds": published.seconds,
            "publish/gb_per_s": published.num_bytes / 1e9 / published.seconds,
            "publish/pause_s": published.pause_seconds,
        }
    if audit is not None:
        metrics |= {"audit/mean_diff": audit.mean, "audit/high_diff": audit.high, "audit/max_diff": audit.largest}
    return metrics


def learner_speed(batch: TrainingBatch, stats: TrainStats) -> dict[str, float]:
    """What the learner made of its time, of any objective. Prompts count as tokens here: they pass through the model."""
    return {
        "learner/tokens_per_s": batch.num_tokens / stats.seconds,
        "learner/mfu": stats.mfu,
        "learner/padding_share": batch.padding_share,
        "learner/memory_peak_gb": stats.memory_peak / 1e9,
    }


def _training(stats: TrainStats) -> dict[str, float]:
    """What the loss reports. A batch of which nothing trains (all of it truncated and filtered) has no such figures."""
    known = stats.means | stats.extremes
    figures = {name: known[figure] for name, figure in FIGURES.items() if figure in known}
    if stats.means:
        figures["policy/clip_fraction"] = stats.means["clipped_low"] + stats.means["clipped_high"]
        figures["learner/effective_tokens"] = round(stats.means["effective"] * stats.count)
    return figures | {f"learner/loss_{name}": value for name, value in stats.parts.items()}


def _reward_parts(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for group in groups:
        for score in group.scores:
            figures = {**score.breakdown, **score.metrics}
            sums.update(figures)
            counts.update(dict.fromkeys(figures, 1))
    return {f"reward/{name}": sums[name] / counts[name] for name in counts}
