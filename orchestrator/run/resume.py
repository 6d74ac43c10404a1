"""Whether a run may be written to a folder, and whether it would continue the run that is there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.config.keys import flat
from orchestrator.config.load import STORED
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.wiring import parent_of
from orchestrator.run.files import check_writable
from orchestrator.run.folder import is_finished, stored_recipe
from orchestrator.run.lock import LOCK
from orchestrator.run.record import read_metrics
from rollout.errors import InputError

ON_WHAT = (
    "replicas",
    "kv_cache_gb",
    "gpu_memory",
    "share_gpus",
    "eager",
    "cpus",
    "gpus",
    "resources",
    "threads",
    "timeout_s",
)
ON_WHICH_RANKS = ("ranks", "sequence_parallel", "zero_stage", "offload_optimizer", "activation_checkpointing")
FREE = {
    "loop.keep_checkpoints",
    "loop.keep_steps",
    "loop.max_no_signal",
    "reject.shard_prompts",
    *(f"rollout.{key}" for key in ON_WHAT),
    *(f"learner.{key}" for key in ON_WHICH_RANKS),
    *(f"rewards.{key}" for key in ("replicas", "processes", "resources", "timeout_s", "outage_s")),
    *(f"learner.{key}" for key in ("micro_batch_tokens", "logit_chunk_tokens", "zero_hpz_partition_size")),
    *(f"learner.{key}" for key in ("cpus", "gpus", "resources", "threads", "timeout_s")),
}
"""Keys that say on what a run is computed, not what: they change it by no more than rounding, so it may go on with others."""
SELECTION = {f"reject.{key}" for key in ("keep", "keep_at_most", "filters", "near_duplicate")}
"""Keys that select among the samples once all are there: they may change until the stage has left its rows."""


def check_run_dir(recipe: Recipe, run_dir: Path) -> bool:
    """Whether the folder holds a run, which this recipe would then continue.

    Raises:
        InputError: the run has other settings, the folder holds something else, or it cannot be written.
    """
    check_writable("--run", run_dir / STORED)
    before = stored_recipe(run_dir)
    if before is None:
        if run_dir.is_dir() and any(entry.name[0] != "." for entry in run_dir.iterdir()):
            raise InputError(f"--run {run_dir}: holds files, but no run (no {STORED}); choose another folder")
        return False
    begun = begun_stages(run_dir, before)
    if not begun and not (run_dir / "base").exists():
        if not any((run_dir / left).exists() for left in (LOCK, "metrics.jsonl")):
            raise InputError(
                f"--run {run_dir}: its {STORED} is of no run, and a run would write over it; choose another folder"
            )
        return False
    finished = {name for name in begun if is_finished(run_dir, name)}
    changed = changes(before, recipe, begun, finished)
    if changed:
        more = f"\n  and {len(changed) - 5} more" if len(changed) > 5 else ""
        listed = "".join(f"\n  {change}" for change in changed[:5])
        raise InputError(
            f"{run_dir} holds a run with other settings:{listed}{more}\n"
            f"continue it as it is with `rayzero train {run_dir}`, or start another with --run DIR"
        )
    return True


def begun_stages(run_dir: Path, recipe: Recipe) -> set[str]:
    """Stages that got further than their start; those that failed at once may be tried again with other settings."""
    recorded = {record.get("stage") for record in read_metrics(run_dir) if record.get("kind") in ("step", "eval")}
    return {
        stage.name
        for stage in recipe.stages
        if stage.name in recorded
        or any((run_dir / stage.name).glob("checkpoints/step-*"))
        or any((run_dir / stage.name / left).exists() for left in ("export", "samples", "data", "done"))
    }


def changes(before: Recipe, after: Recipe, begun: set[str], finished: set[str]) -> list[str]:
    """What keeps `after` from continuing a run of `before`: `learner.lr: 1e-05 → 2e-05 (stage reasoning)`.

    The cluster, trackers, the description, the keys of FREE and stages that have not begun may differ; of an unfinished stage `loop.steps`
    may grow, and the keys of SELECTION may differ.
    """
    found = [
        f"{key}: {_json(getattr(before, key))} → {_json(getattr(after, key))}"
        for key in ("name", "seed")
        if getattr(before, key) != getattr(after, key)
    ]
    now = {stage.name: stage for stage in after.stages}
    stages_of: dict[str, list[str]] = {}
    for old in before.stages:
        if old.name not in begun:
            continue
        if old.name not in now:
            found.append(f"stage {old.name}: has begun, but is gone from the recipe")
            continue
        for change in _stage_changes(old, now[old.name], old.name in finished):
            stages_of.setdefault(change, []).append(old.name)
        parents = [parent_of(recipe.stages, stage) for recipe, stage in ((before, old), (after, now[old.name]))]
        if _name(parents[0]) != _name(parents[1]):
            found.append(f"stage {old.name}: starts from {_name(parents[0])} → {_name(parents[1])}")
    for change, stages in stages_of.items():
        where = "" if len(stages) == len(before.stages) else f" (stage {', '.join(stages)})"
        found.append(f"{change}{where}")
    return found


def _name(parent: Stage | None) -> str:
    return f"stage {parent.name}" if parent else "its model section"


def _stage_changes(before: Stage, after: Stage, finished: bool) -> Iterator[str]:
    old, new = (flat(stage.model_dump(mode="json")) for stage in (before, after))
    for key in dict.fromkeys((*old, *new)):
        grows = key == "loop.steps" and not finished and new[key] > old[key]
        # Without a filter at first, no sample was looked at for flags.
        selects = key in SELECTION and not finished and old[key] != []
        if is_free(key) or old.get(key) == new.get(key) or grows or selects:
            continue
        yield f"{key}: {_json(old[key]) if key in old else 'none'} → {_json(new[key]) if key in new else 'none'}"


def is_free(key: str) -> bool:
    """Whether a key, or the table that it is an entry of, is in FREE."""
    return key in FREE or key.rpartition(".")[0] in FREE


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
