"""Experiment trackers: a run's metrics.jsonl sent to W&B, MLflow or Trackio by a process of its own for each."""
