"""A run at Trackio: a database on this machine, or a Space of the Hugging Face hub."""

import warnings
from collections.abc import Sequence
from typing import Any

import trackio
from trackio.sqlite_storage import SQLiteStorage

from orchestrator.tracking.entries import Entry, by_stage
from orchestrator.tracking.tracker import Ending, TrackedRun

LINE = "rayzero/line"
"""Figure beside those of an entry: the number of its line."""


class TrackioRun:
    """Trackio writes in the background and only warns of what fails, so every call opens the run, writes, and ends it: then it is
    all on the disk. Its runs have no states: one that has ended goes on where it is opened again."""

    def __init__(self) -> None:
        self._run: TrackedRun | None = None

    def open(self, run: TrackedRun) -> int | None:
        """As `Tracker.open`; what a Space has is not known."""
        self._run = run
        if run.settings.trackio_space:
            return None
        lines = [entry[LINE] for entry in SQLiteStorage.get_logs(run.project, _name(run)) if LINE in entry]
        return int(max(lines)) + 1 if lines else 0

    def send(self, entries: Sequence[Entry]) -> None:
        """As `Tracker.send`."""
        run = self._run
        assert run is not None
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            here = trackio.init(
                project=run.project,
                name=_name(run),
                space_id=run.settings.trackio_space or None,
                config=dict(run.config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            for entry in entries:
                values: dict[str, Any] = {**dict(by_stage(entry)), LINE: entry.line}
                if entry.table:
                    table = trackio.Table(
                        columns=list(entry.table.columns), data=[list(row) for row in entry.table.rows]
                    )
                    values[f"{entry.stage}/{entry.table.name}"] = table
                here.log(values, step=entry.step)
            trackio.finish()
        if failed := [str(warning.message) for warning in told if _is_trackio_s(warning)]:
            raise RuntimeError(failed[0])

    def close(self, ending: Ending) -> None:
        """As `Tracker.close`: every call has ended the run already."""


def _is_trackio_s(warning: warnings.WarningMessage) -> bool:
    text = str(warning.message).lower()
    return warning.category is UserWarning and ("trackio" in text or "could not" in text)


def _name(run: TrackedRun) -> str:
    """The run's name there, by which Trackio finds it again, so it is nobody else's."""
    return f"{run.name}-{run.id[:6]}"
