"""The metrics of a run that Ray serves to Prometheus and to its dashboard.

What is of a stage is tagged by run and stage, and keeps its last value when the stage has ended: `rayzero_stage_running` says
which stage it is that goes on. What is of the run is tagged by the run alone.
"""

from collections.abc import Mapping
from typing import Any

import rollout.ray_defaults  # noqa: F401

from ray.util.metrics import Gauge

EXPORTED = {
    "rayzero_reward_mean": ("reward/mean", "Mean reward of the last batch"),
    "rayzero_tokens_per_second": ("throughput/tokens_per_s", "Completion tokens per second, end to end"),
    "rayzero_learner_tokens_per_second": ("learner/tokens_per_s", "Tokens per second of the learner by itself"),
    "rayzero_policy_version": ("policy/version", "Policy version that the engines serve"),
    "rayzero_completion_length": ("completion/length_mean", "Mean completion length in tokens"),
    "rayzero_truncated_share": ("completion/truncated_share", "Share of completions cut at rollout.max_tokens"),
    "rayzero_no_signal_share": ("groups/no_signal_share", "Share of groups whose rewards are all equal"),
    "rayzero_kl_to_reference": ("kl/ref", "Mean KL to the frozen reference per token"),
    "rayzero_entropy": ("policy/entropy", "Mean entropy in nats per token"),
    "rayzero_loss": ("learner/loss", "Objective of the last batch"),
    "rayzero_grad_norm": ("learner/grad_norm", "Gradient norm before clipping"),
    "rayzero_staleness_mean": ("staleness/mean", "Versions that the trained tokens are behind, mean"),
    "rayzero_staleness_max": ("staleness/max", "Versions that the trained tokens are behind, most"),
    "rayzero_reward_error_share": ("rewards/error_share", "Share of completions that could not be scored"),
    "rayzero_reward_timeout_share": ("rewards/timeout_share", "Share of scores cut at their deadline"),
    "rayzero_groups_taken": ("count/taken", "Prompts taken since the stage began"),
    "rayzero_groups_dropped": ("count/dropped", "Groups dropped since the stage began, for any reason"),
    "rayzero_groups_dropped_stale": ("count/dropped_stale", "Groups dropped since the stage began because too old"),
    "rayzero_step_seconds": ("time/step_s", "Wall time of the last step"),
    "rayzero_step": ("step", "Batches trained in this stage"),
}
"""Prometheus name → (metric of metrics.jsonl, meaning). Tagged by run and stage."""
STAGE = {
    "rayzero_stage_running": "1 while the stage goes on, 0 when it has ended",
    "rayzero_stage_steps": "Steps of the stage; 0: not known",
    "rayzero_staleness_limit": "loop.max_staleness",
}
"""Prometheus name → meaning. Tagged by run and stage."""
RUN = {
    "rayzero_heartbeat_timestamp_seconds": "Unix time at which the run last said that it lives",
    "rayzero_progress_timestamp_seconds": "Unix time at which the run last got on: a record, or a group that was sampled",
    "rayzero_replicas": "Rollout replicas of the run",
    "rayzero_replicas_away": "Rollout replicas that do not serve: dead, silent, or not yet (again) given weights",
    "rayzero_ranks": "Ranks of the learner",
    "rayzero_reward_workers": "Reward workers of the run",
    "rayzero_reward_workers_down": "Reward workers that are away",
    "rayzero_groups_in_flight": "Groups being sampled or scored",
    "rayzero_groups_waiting": "Scored groups that wait for the learner",
    "rayzero_completions_to_score": "Completions that no reward worker has taken yet",
}
"""Prometheus name → meaning. Tagged by the run alone."""
PHASE, EVALUATION = "rayzero_phase_seconds", "rayzero_evaluation_share"


class MetricsExporter:
    """Gauges of one stage."""

    def __init__(self, run: str, stage: str) -> None:
        self._tags = {"run": run, "stage": stage}
        self._gauges = {
            metric: Gauge(name, description=meaning, tag_keys=("run", "stage"))
            for name, (metric, meaning) in EXPORTED.items()
        }
        self._of_stage = {
            name: Gauge(name, description=text, tag_keys=("run", "stage")) for name, text in STAGE.items()
        }
        self._phase = Gauge(
            PHASE, description="Seconds of the last step in which it went on", tag_keys=("run", "stage", "phase")
        )
        keys = ("run", "stage", "set", "figure")
        self._evaluation = Gauge(EVALUATION, description="Figure of an evaluation set, 0 to 1", tag_keys=keys)

    def export(self, metrics: Mapping[str, Any]) -> None:
        """The metrics of one step."""
        for metric, gauge in self._gauges.items():
            if metric in metrics:
                gauge.set(float(metrics[metric]), tags=self._tags)
        for name, value in metrics.items():
            if name.startswith("time/"):
                phase = name.removeprefix("time/").removesuffix("_s")
                self._phase.set(float(value), tags={**self._tags, "phase": phase})

    def evaluated(self, name: str, figures: Mapping[str, float]) -> None:
        """Figures of an evaluation set, each between 0 and 1."""
        for figure, value in figures.items():
            self._evaluation.set(value, tags={**self._tags, "set": name, "figure": figure})

    def stage(self, **values: float) -> None:
        """Values of `STAGE`, named without the prefix `rayzero_`."""
        for name, value in values.items():
            self._of_stage[f"rayzero_{name}"].set(value, tags=self._tags)


class RunExporter:
    """Gauges of the run, whatever stage it is in."""

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._gauges = {name: Gauge(name, description=text, tag_keys=("run",)) for name, text in RUN.items()}

    def export(self, **values: float) -> None:
        """Values of `RUN`, named without the prefix `rayzero_`."""
        for name, value in values.items():
            self._gauges[f"rayzero_{name}"].set(value, tags=self._tags)
