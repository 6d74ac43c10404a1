"""The run directory: plain files that other tools open.

recipe.toml                          the resolved recipe
metrics.jsonl                        one JSON object a line, `kind` = step | eval | stage | reject | time
trajectories/STAGE/step-000012.parquet   one row a completion
STAGE/checkpoints/step-000020/       resumable, also on other ranks: DeepSpeed's files, learner.json (layout, versions),
                                     random states, state.json, a refreshed reference; complete or absent
STAGE/export/                        Hugging Face folder of the model that the stage left
STAGE/data/                          Parquet files of the rows that the stage left
STAGE/done                           the stage is finished
export                               link to the newest export
tensorboard/STAGE/                   event files
trackers/, wandb/                    ids and logs of the trackers that the run is sent to; what W&B has not sent yet
report.html, table.md, table.json
storage.json                         which run it is, where it has a storage (orchestrator/run/remote.py)
state.json                           what the run is doing at this moment (orchestrator/run/state.py)
stacks.txt                           where everything was the last time that the event loop stood (orchestrator/run/watchdog.py)
lock, request.json, answer.json      who writes the run, and what is asked of it (orchestrator/run/control.py)
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import tomli_w

from orchestrator.config.load import STORED, to_toml
from orchestrator.config.recipe import Recipe
from orchestrator.run.files import check_fence, end_torn_line, move_link, remove_folder, sweep, sweep_files, write_file
from orchestrator.run.folder import CHECKPOINT, DONE, checkpoints, is_finished, trajectory_files
from orchestrator.run.remote import RunStorage
from rollout.errors import FULL, InputError

MOST_RECORDS = 10_000
"""Lines that are kept in memory at most while they find no room; whoever trains waits for it long before."""


class RunStore:
    """The files of one run. One process writes them; opening them clears away what a stopped one left half written."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / STORED, tomli_w.dumps(to_toml(recipe)).encode())
        self._metrics = folder / "metrics.jsonl"
        self._records: list[str] = []
        self.remote: RunStorage | None = None
        """Where the files of the run go too, and those of its ranks alone; None: all are in the folder, which all hosts see."""
        self.recorded = 0.0
        """Unix seconds of the last record of this process; 0: none yet."""
        end_torn_line(self._metrics)
        sweep_files(folder)
        for stage in recipe.stages:
            sweep(folder / stage.name / "checkpoints", CHECKPOINT)

    def record(self, kind: str, stage: str, **values: Any) -> None:
        """Append one line to metrics.jsonl. Where there is no room, it is kept for `write_records`."""
        check_fence()
        self.recorded = round(time.time(), 3)
        self._records.append(json.dumps({"kind": kind, "stage": stage, "time": self.recorded, **values}))
        try:
            self.write_records()
        except OSError as problem:
            if problem.errno not in FULL or len(self._records) > MOST_RECORDS:
                raise

    def write_records(self) -> None:
        """Write the lines that found no room before. Raises OSError while there is none; no line is then there in part."""
        if not self._records:
            return
        size = self._metrics.stat().st_size if self._metrics.is_file() else 0
        try:
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in self._records))
        except OSError as problem:
            if self._metrics.is_file():
                os.truncate(self._metrics, size)
            problem.filename = problem.filename or str(self._metrics)
            raise
        self._records.clear()

    def trajectory_file(self, stage: str, step: int) -> Path:
        """File of the completions that batch `step` trained on."""
        return self.folder / "trajectories" / stage / f"step-{step:06d}.parquet"

    def trajectory_files(self, stage: str) -> dict[int, Path]:
        """Step → file of the completions that it trained on, in the order of the steps."""
        return trajectory_files(self.folder, stage)

    def waiting_folder(self, stage: str) -> Path:
        """Logs of the groups that came back and are not trained yet."""
        return self.folder / stage / "waiting"

    def export_folder(self, stage: str) -> Path:
        """Hugging Face folder of the model that a stage left."""
        return self.folder / stage / "export"

    def data_folder(self, stage: str) -> Path:
        """Parquet files with the rows that a stage left."""
        return self.folder / stage / "data"

    def shared(self, folder: Path) -> str:
        """A folder of the run as actors on any host read it: its path, or its URI in the storage."""
        return self.remote.shared(folder) if self.remote else str(folder)

    def is_finished(self, stage: str) -> bool:
        return is_finished(self.folder, stage)

    def finish(self, stage: str) -> None:
        """Mark a stage as done: it is never run again."""
        (self.folder / stage).mkdir(exist_ok=True)
        write_file(self.folder / stage / DONE, b"")

    def link_export(self, stage: str) -> None:
        """Point RUN/export at the export of this stage.

        Raises:
            InputError: a folder stands there, as it does in a run that was copied without keeping its links.
        """
        link = self.folder / "export"
        if link.is_dir() and not link.is_symlink():
            raise InputError(f"{link} is a folder and not the link that it was; remove it: rm -r {link}")
        move_link(link, Path(stage) / "export")

    def checkpoints(self, stage: str) -> list[Path]:
        """Complete checkpoints of a stage, the oldest first."""
        return list(checkpoints(self.folder, stage).values())

    def checkpoint_folder(self, stage: str, step: int) -> Path:
        """Folder of checkpoint `step`."""
        return self.folder / stage / "checkpoints" / f"step-{step:06d}"

    def keep_checkpoints(self, stage: str, newest: int, best: int | None = None) -> None:
        """Delete all checkpoints of a stage but the `newest` and that of step `best`."""
        for step, old in list(checkpoints(self.folder, stage).items())[:-newest]:
            if step != best:
                (self.remote.remove if self.remote else remove_folder)(old)
