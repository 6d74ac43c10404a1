"""A run of an MLflow experiment, by MLflow's client: a server, or a database on this machine."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow import get_tracking_uri
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from orchestrator.config.keys import flat
from orchestrator.tracking.entries import Entry, by_stage
from orchestrator.tracking.tracker import Ending, TrackedRun

ID, LINES = "rayzero.id", "rayzero.lines"
"""Tags: our name for the run, and how many lines of metrics.jsonl it has."""
STATES: dict[Ending, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
METRICS_AT_ONCE, PARAMS_AT_ONCE, PARAM_LENGTH = 1000, 100, 6000
"""Limits of MLflow: a call's metrics and parameters, and characters of a parameter."""
_NOT_IN_NAMES = re.compile(r"[^\w. :/-]", re.ASCII)


class MlflowRun:
    """MLflow drops a metric that it has already (same name, step, time and value), so a repeated call changes nothing."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run_id = ""

    def open(self, run: TrackedRun) -> int | None:
        """As `Tracker.open`."""
        self._client = MlflowClient(run.settings.mlflow_uri or get_tracking_uri())
        found = self._client.get_experiment_by_name(run.project)
        experiment = found.experiment_id if found else self._client.create_experiment(run.project)
        runs = self._client.search_runs([experiment], f"tags.`{ID}` = '{run.id}'", max_results=1)
        if runs:
            self._run_id = runs[0].info.run_id
            self._client.update_run(self._run_id, "RUNNING")
            lines = int(runs[0].data.tags.get(LINES, 0))
        else:
            tags = {ID: run.id, LINES: "0"}
            self._run_id = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
            lines = 0
        self._config(run.config, set(runs[0].data.params) if runs else set())
        return lines

    def _config(self, config: Mapping[str, Any], sent: set[str]) -> None:
        """The recipe as a file, and setting by setting as parameters, which MLflow never changes: the first start's stay."""
        self._client.log_text(self._run_id, json.dumps(config, indent=1), "recipe.json")
        values = flat({**config, "stages": {stage["name"]: stage for stage in config["stages"]}})
        texts = {_name_of(key): json.dumps(value, ensure_ascii=False)[:PARAM_LENGTH] for key, value in values.items()}
        params = [Param(key[-250:], text) for key, text in texts.items() if key[-250:] not in sent]
        for first in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[first : first + PARAMS_AT_ONCE])

    def send(self, entries: Sequence[Entry]) -> None:
        """As `Tracker.send`."""
        for entry in entries:
            if entry.table:
                # In the form of MLflow's own tables, as a text that nothing renders.
                body = json.dumps({"columns": entry.table.columns, "data": entry.table.rows}, ensure_ascii=False)
                file = _name_of(f"{entry.stage}/{entry.table.name}").replace(" ", "_")
                self._client.log_text(self._run_id, body, f"tables/{file}-{entry.step:06d}.json")
        for metrics, line in _batches(entries):
            self._client.log_batch(self._run_id, metrics=metrics, tags=[RunTag(LINES, str(line + 1))])

    def close(self, ending: Ending) -> None:
        """As `Tracker.close`."""
        self._client.set_terminated(self._run_id, STATES[ending])


def _batches(entries: Sequence[Entry]) -> Iterator[tuple[list[Metric], int]]:
    """(metrics of one call, number of the last line that is whole with it). An entry is never divided below the limit of a call."""
    waiting: list[Metric] = []
    done = -1
    for entry in entries:
        own = [Metric(_name_of(name), value, int(entry.time * 1000), entry.step) for name, value in by_stage(entry)]
        if waiting and len(waiting) + len(own) > METRICS_AT_ONCE:
            yield waiting, done
            waiting = []
        while len(own) > METRICS_AT_ONCE:
            yield own[:METRICS_AT_ONCE], entry.line - 1
            own = own[METRICS_AT_ONCE:]
        waiting, done = waiting + own, entry.line
    if entries:
        yield waiting, done


def _name_of(name: str) -> str:
    """A name in the letters that MLflow takes: `pass@1` is `pass_at_1`."""
    return _NOT_IN_NAMES.sub("_", name.replace("@", "_at_"))
