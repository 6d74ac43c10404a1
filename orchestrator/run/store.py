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
report.html, table.md, table.json
lock, request.json, answer.json      who writes the run, and what is asked of it (orchestrator/run/control.py)
"""

import json
import os
import re
import shutil
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from orchestrator.config.load import parse_recipe, to_toml
from orchestrator.config.recipe import Recipe
from rewards.types import ScoredGroup
from rollout.errors import InputError

TRAJECTORY = pa.schema(
    [
        ("step", pa.int32()),
        ("group_id", pa.string()),
        ("prompt_id", pa.string()),
        ("source", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("completion", pa.string()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("token_ids", pa.list_(pa.int32())),
        ("rollout_logprobs", pa.list_(pa.float32())),
        ("policy_versions", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
        ("replica", pa.int32()),
        ("reward", pa.float64()),
        ("status", pa.string()),
        ("reward_parts", pa.map_(pa.string(), pa.float64())),
        ("advantage", pa.float64()),
        ("staleness", pa.int32()),
    ]
)


DONE = "done"
HALF_CHECKPOINT = re.compile(r"step-\d{6,}\.part")
"""Folder of a checkpoint that is being written or deleted."""


class RunStore:
    """The files of one run. One process writes them; opening them clears away what a stopped one left half written."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "recipe.toml", tomli_w.dumps(to_toml(recipe)).encode())
        self._metrics = folder / "metrics.jsonl"
        _end_torn_line(self._metrics)
        for stage in recipe.stages:
            _sweep_checkpoints(folder / stage.name / "checkpoints")

    def record(self, kind: str, stage: str, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        line = json.dumps({"kind": kind, "stage": stage, "time": round(time.time(), 3), **values})
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write_trajectories(
        self,
        stage: str,
        step: int,
        groups: Sequence[ScoredGroup],
        advantages: Sequence[np.ndarray],
        *,
        version: int,
    ) -> None:
        """One Parquet file a batch. `advantages`: [G'] of each group; `version`: the learner's when it took the batch."""
        rows = [row for group, own in zip(groups, advantages, strict=True) for row in _rows(group, own, step, version)]
        folder = self.folder / "trajectories" / stage
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{step:06d}.parquet"
        aside = path.with_suffix(".part")
        pq.write_table(pa.Table.from_pylist(rows, TRAJECTORY), aside)
        aside.rename(path)

    def export_folder(self, stage: str) -> Path:
        return self.folder / stage / "export"

    def data_folder(self, stage: str) -> Path:
        """Parquet files with the rows that a stage left."""
        return self.folder / stage / "data"

    def is_finished(self, stage: str) -> bool:
        return is_finished(self.folder, stage)

    def finish(self, stage: str) -> None:
        """Mark a stage as done: it is never run again."""
        (self.folder / stage).mkdir(exist_ok=True)
        write_atomically(self.folder / stage / DONE, b"")

    def link_export(self, stage: str) -> None:
        """Point RUN/export at the export of this stage.

        Raises:
            InputError: a folder stands there, as it does in a run that was copied without keeping its links.
        """
        link, aside = self.folder / "export", self.folder / "export.part"
        if link.is_dir() and not link.is_symlink():
            raise InputError(f"{link} is a folder and not the link that it was; remove it: rm -r {link}")
        aside.unlink(missing_ok=True)
        aside.symlink_to(Path(stage) / "export")
        aside.replace(link)

    def checkpoints(self, stage: str) -> list[Path]:
        """Complete ones, oldest first."""
        folder = self.folder / stage / "checkpoints"
        return sorted(path for path in folder.glob("step-*") if path.suffix != ".part" and path.is_dir())

    def checkpoint_aside(self, stage: str, step: int) -> Path:
        """An empty folder to write checkpoint `step` into; `complete_checkpoint` makes it one."""
        aside = self.folder / stage / "checkpoints" / f"step-{step:06d}.part"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        return aside

    def complete_checkpoint(self, stage: str, aside: Path, keep: int) -> Path:
        """Rename it into place, then delete all but the newest `keep`."""
        path = aside.with_suffix("")
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
        for old in self.checkpoints(stage)[:-keep]:
            # Renamed first: a half-deleted checkpoint must not look like one.
            doomed = old.rename(old.with_suffix(".part"))
            shutil.rmtree(doomed)
        return path


def is_finished(run_dir: Path, stage: str) -> bool:
    """Of every kind: some leave a model, some rows, some only figures."""
    return (run_dir / stage / DONE).is_file() or (run_dir / stage / "export").is_dir()


def stored_recipe(folder: Path) -> Recipe | None:
    """The recipe of the run in that folder; None when it holds no run. Raises InputError when it is unreadable."""
    path = folder / "recipe.toml"
    if not path.is_file():
        return None
    try:
        return parse_recipe(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a recipe of this version: {error}") from None


def write_atomically(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(data)
    os.replace(aside, path)


def _rows(group: ScoredGroup, advantages: np.ndarray, step: int, version: int) -> list[Mapping[str, Any]]:
    prompt = group.prompt
    return [
        {
            "step": step,
            "group_id": group.group.group_id,
            "prompt_id": prompt.prompt_id,
            "source": prompt.source,
            "prompt": prompt.text,
            "answer": prompt.answer,
            "completion": completion.text,
            "prompt_token_ids": list(prompt.token_ids),
            "token_ids": completion.token_ids,
            "rollout_logprobs": completion.rollout_logprobs,
            "policy_versions": completion.policy_versions,
            "finish_reason": completion.finish_reason,
            "seed": completion.seed,
            "replica": group.group.replica,
            "reward": score.value,
            "status": score.status,
            "reward_parts": list(score.breakdown.items()),
            "advantage": float(advantage),
            "staleness": version - completion.oldest_version,
        }
        for completion, score, advantage in zip(group.completions, group.scores, advantages, strict=True)
    ]


def _sweep_checkpoints(folder: Path) -> None:
    for path in folder.glob("step-*.part"):
        if HALF_CHECKPOINT.fullmatch(path.name):
            # Takes neither a file nor a link; what a dying process still holds open is left to the next start.
            shutil.rmtree(path, ignore_errors=True)


def _end_torn_line(path: Path) -> None:
    """A crash may have cut the last line: drop it, so that the next one does not become part of it."""
    if not path.is_file():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        write_atomically(path, data[: data.rfind(b"\n") + 1])
