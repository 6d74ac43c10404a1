"""A run at Weights & Biases. The library's own process keeps what it got on the disk (RUN/wandb) until the server has it."""

from collections.abc import Sequence
from typing import Any

import wandb

from orchestrator.tracking.entries import RESULTS, Entry, by_stage
from orchestrator.tracking.tracker import Ending, TrackedRun

START_S = 30
"""Longest wait for the server at the start."""
EXIT_CODES: dict[Ending, int] = {"finished": 0, "stopped": 130, "failed": 1}


class WandbRun:
    """W&B's own step of an entry is twice the number of its line, and one more for results: what the server has is known by it."""

    def __init__(self) -> None:
        self._run: Any = None

    def open(self, run: TrackedRun) -> int | None:
        """As `Tracker.open`; in offline mode the server's account is not known."""
        if self._run is not None:
            self._run.finish(exit_code=1)
        self._run = wandb.init(
            project=run.project,
            entity=run.settings.entity or None,
            id=run.id,
            name=run.name,
            dir=str(run.folder),
            config=dict(run.config),
            resume="allow",
            settings=wandb.Settings(
                console="off",
                silent=True,
                init_timeout=START_S,
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
            ),
        )
        for stage in run.stages:
            self._run.define_metric(f"{stage}/step")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        return None if self._run.offline else (self._run.step + 1) // 2

    def send(self, entries: Sequence[Entry]) -> None:
        """As `Tracker.send`."""
        for entry in entries:
            values: dict[str, Any] = dict(by_stage(entry))
            if entry.table:
                table = wandb.Table(columns=list(entry.table.columns), data=[list(row) for row in entry.table.rows])
                values[f"{entry.stage}/{entry.table.name}"] = table
            of_results = entry.stage == RESULTS
            if not of_results:
                values[f"{entry.stage}/step"] = entry.step
            self._run.log({**values, "_timestamp": entry.time}, step=2 * entry.line + of_results)

    def close(self, ending: Ending) -> None:
        """As `Tracker.close`."""
        self._run.finish(exit_code=EXIT_CODES[ending])
