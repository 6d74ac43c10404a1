"""Whether a run may be written to a folder, and whether it would continue the run that is there."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.config import Recipe, Stage
from orchestrator.keys import flat
from orchestrator.run_record import read_metrics
from rollout.errors import InputError

FREE = {
    "loop.keep_checkpoints",
    *(f"rollout.{key}" for key in ("replicas", "kv_cache_gb", "gpu_memory", "cpus", "gpus", "threads", "timeout_s")),
    *(f"learner.{key}" for key in ("ranks", "zero_stage", "offload_optimizer", "activation_checkpointing")),
    *(f"learner.{key}" for key in ("micro_batch_tokens", "logit_chunk_tokens", "cpus", "gpus", "threads", "timeout_s")),
}
"""Keys that say on what a run is computed, not what: they change it by no more than rounding, so it may go on with others."""


def check_run_dir(recipe: Recipe, run_dir: Path) -> bool:
    """Whether the folder holds a run, which this recipe would then continue.

    Raises:
        InputError: the run has other settings, the folder holds something else, or it cannot be written.
    """
    # Only here: brings pyarrow.
    from orchestrator.store import stored_recipe

    check_writable("--run", run_dir / "recipe.toml")
    before = stored_recipe(run_dir)
    if before is None:
        if run_dir.is_dir() and any(entry.name[0] != "." for entry in run_dir.iterdir()):
            raise InputError(f"--run {run_dir}: holds files, but no run (no recipe.toml); choose another folder")
        return False
    if not _has_work(run_dir):
        return False
    changed = changes(before, recipe)
    if changed:
        more = f"\n  and {len(changed) - 5} more" if len(changed) > 5 else ""
        listed = "".join(f"\n  {change}" for change in changed[:5])
        raise InputError(
            f"{run_dir} holds a run with other settings:{listed}{more}\n"
            f"continue it as it is with `rayzero train {run_dir}`, or start another with --run DIR"
        )
    return True


def _has_work(run_dir: Path) -> bool:
    """Whether a run got further than its start; one that failed at once may be tried again with other settings."""
    if (run_dir / "base").exists() or any(run_dir.glob("*/checkpoints/step-*")) or any(run_dir.glob("*/export")):
        return True
    return any(record.get("kind") in ("step", "eval") for record in read_metrics(run_dir))


def check_writable(option: str, file: Path) -> None:
    """Raises InputError when a file cannot be written there, its folders included."""
    if file.is_dir():
        raise InputError(f"{option} {file}: is a folder")
    parent = file.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{option} {file.parent}: {parent} is a file, not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{option} {file.parent}: {parent} is not writable; choose another folder")


def changes(before: Recipe, after: Recipe) -> list[str]:
    """What keeps `after` from continuing a run of `before`: `learner.lr: 1e-05 → 2e-05 (stage reasoning)`.

    The cluster, the description and the keys of FREE may differ, and `loop.steps` may grow.
    """
    found = [
        f"{key}: {_json(getattr(before, key))} → {_json(getattr(after, key))}"
        for key in ("name", "seed")
        if getattr(before, key) != getattr(after, key)
    ]
    names = [[stage.name for stage in recipe.stages] for recipe in (before, after)]
    if names[0] != names[1]:
        return [*found, f"stages: {', '.join(names[0])} → {', '.join(names[1])}"]
    stages_of: dict[str, list[str]] = {}
    for old, new in zip(before.stages, after.stages, strict=True):
        for change in _stage_changes(old, new):
            stages_of.setdefault(change, []).append(old.name)
    for change, stages in stages_of.items():
        where = "" if len(stages) == len(names[0]) else f" (stage {', '.join(stages)})"
        found.append(f"{change}{where}")
    return found


def _stage_changes(before: Stage, after: Stage) -> Iterator[str]:
    old, new = (flat(stage.model_dump(mode="json")) for stage in (before, after))
    for key in dict.fromkeys((*old, *new)):
        if key in FREE or old.get(key) == new.get(key) or (key == "loop.steps" and new[key] > old[key]):
            continue
        yield f"{key}: {_json(old[key]) if key in old else 'none'} → {_json(new[key]) if key in new else 'none'}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
