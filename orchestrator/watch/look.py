"""One look at the folder of a run: what it has recorded, what it says of itself, and what is worth a word."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.load import STORED
from orchestrator.results.words import age, as_finite, percent
from orchestrator.run.lock import Holder
from orchestrator.run.reading import RunCopy
from orchestrator.run.record import RunRecord, StageRecord, read_run
from orchestrator.run.state import SILENT_S, Standing, read_state, standing
from rollout.errors import visible

AWAY = ("dead", "down", "suspect", "starting", "stale", "leaving")
"""States of an actor that does nothing."""
RECENT = 20
"""Steps that rates and phases are means of."""
SLOW_S = 300.0
"""Seconds in which nothing is recorded and no group is sampled that are worth a word, at least."""
SLOW_STEPS = 10.0
"""The same in terms of the usual time between two records of the stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known of a run at one moment."""

    directory: Path | str
    """The run as the user names it: its folder, or its URI."""
    run: RunRecord | None
    """None: the folder holds no run yet."""
    state: dict[str, Any]
    """state.json; empty where there is none."""
    stands: Standing
    writer: Holder | None
    now: float
    """Unix seconds."""

    @property
    def stage(self) -> StageRecord | None:
        """The stage that goes on, or else the last one that has begun."""
        stages = self.run.stages if self.run else []
        named = next((stage for stage in stages if stage.name == self.state.get("stage")), None)
        if named is not None and self.stands == "running":
            return named
        return next((stage for stage in reversed(stages) if stage.begun), None)

    @property
    def step_s(self) -> float:
        """Mean seconds between the last records of steps, with evaluations and checkpoints between them; 0: not known."""
        stage = self.stage
        if stage is None:
            return 0.0
        since = stage.starts[-1] if stage.starts else 0.0
        times = [time for one in stage.steps if (time := as_finite(one.get("time"))) is not None and time >= since]
        times = times[-RECENT - 1 :]
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0

    def notices(self) -> Iterator[str]:
        """What somebody who watches should know, the gravest first."""
        if self.stands in ("failed", "crashed", "stopped"):
            reason = str(self.state.get("reason", "")).strip()
            if self.stands == "crashed":
                reason = "its process ended without a word: killed, or out of memory"
            yield f"{self.stands}{f': {reason}' if reason else ''}"
            yield f"continue with: rayzero train {self.directory}"
        if self.stands == "running":
            yield from self._going_on()
        for warning in reversed(self.state.get("warnings", [])):
            told = self.now - (as_finite(warning.get("time")) or self.now)
            yield f"{age(max(0.0, told))} ago: {warning.get('text', '')}"

    def members(self) -> dict[str, list[dict[str, Any]]]:
        """Service → its actors, as the run last told of them."""
        services = self.state.get("services", {})
        return {name: list(service.get("members", ())) for name, service in services.items()}

    def _going_on(self) -> Iterator[str]:
        silent = self.now - (as_finite(self.state.get("time")) or self.now)
        if silent > SILENT_S:
            yield f"the run has said nothing for {age(silent)}: its process is stuck or stopped, or the folder is not written"
        last = max(self.run.last_time if self.run else 0.0, as_finite(self.state.get("moved")) or 0.0)
        if last and self.now - last > max(SLOW_S, SLOW_STEPS * self.step_s):
            yield f"nothing recorded and no group sampled for {age(self.now - last)}"
        for name, members in self.members().items():
            away = [f"{one.get('name')} {one.get('state')}" for one in members if one.get("state") in AWAY]
            if away:
                yield f"{name}: {', '.join(away)}"
        steps = self.stage.steps if self.stage else []
        errors = as_finite(steps[-1].get("rewards/error_share")) if steps else None
        if errors:
            yield f"rewards: {percent(errors)} of the last step's completions could not be scored"


class Watcher:
    """Looks again and again; metrics.jsonl is read anew only when it has changed."""

    def __init__(self, run_dir: Path, copy: RunCopy | None = None) -> None:
        """`copy`: what the folder is a copy of, brought anew before each look."""
        self._run_dir, self._copy = run_dir, copy
        self._stamp: tuple[int, int] | None = None
        self._run: RunRecord | None = None

    def look(self) -> Look:
        """Raises InputError when the folder holds a run that cannot be read, ServiceError when its storage is away."""
        if self._copy:
            self._copy.refresh()
        if not (self._run_dir / STORED).is_file():
            self._run = None
        elif self._run is None or self._stamp != self._stamp_now():
            self._stamp = self._stamp_now()
            self._run = read_run(self._run_dir)
        state = _shown(read_state(self._run_dir))
        run = self._run
        begun = run is not None and bool(run.first_time)
        stands, writer = standing(
            self._run_dir, state, finished=run is not None and begun and run.finished, begun=begun
        )
        return Look(
            directory=self._copy.uri if self._copy else self._run_dir,
            run=run,
            state=state,
            stands=stands,
            writer=writer,
            now=time.time(),
        )

    def _stamp_now(self) -> tuple[int, int]:
        try:
            found = os.stat(self._run_dir / "metrics.jsonl")
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_size


def _shown(value: Any) -> Any:
    """Plain values whose texts, which may quote a model, are nothing that a terminal obeys."""
    if isinstance(value, dict):
        return {visible(str(key)): _shown(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return visible(value) if isinstance(value, str) else value
