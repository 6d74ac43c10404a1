"""The metrics of a run that Ray serves to Prometheus and to its dashboard."""

from collections.abc import Mapping
from typing import Any

import rollout.ray_defaults  # noqa: F401

from ray.util.metrics import Gauge

EXPORTED = {
    "rayzero_reward_mean": ("reward/mean", "Mean reward of the last batch"),
    "rayzero_tokens_per_second": ("throughput/tokens_per_s", "Completion tokens per second, end to end"),
    "rayzero_policy_version": ("policy/version", "Policy version that the engines serve"),
    "rayzero_groups_in_flight": ("queue/in_flight", "Groups being sampled or scored"),
    "rayzero_groups_waiting": ("queue/waiting", "Scored groups that wait for the learner"),
    "rayzero_completion_length": ("completion/length_mean", "Mean completion length in tokens"),
    "rayzero_kl_to_reference": ("kl/ref", "Mean KL to the frozen reference per token"),
    "rayzero_step_seconds": ("time/step_s", "Wall time of the last step"),
    "rayzero_step": ("step", "Batches trained in this stage"),
}
"""Prometheus name → (metric of metrics.jsonl, meaning)."""


class MetricsExporter:
    """Gauges that Ray serves to Prometheus and the dashboard, tagged by run and stage."""

    def __init__(self, run: str, stage: str) -> None:
        self._tags = {"run": run, "stage": stage}
        self._gauges = {
            metric: Gauge(name, description=meaning, tag_keys=("run", "stage"))
            for name, (metric, meaning) in EXPORTED.items()
        }

    def export(self, metrics: Mapping[str, Any]) -> None:
        for metric, gauge in self._gauges.items():
            if metric in metrics:
                gauge.set(float(metrics[metric]), tags=self._tags)
