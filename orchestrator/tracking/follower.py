"""The process that sends a run to one tracker: reads what the run records and sends it, until the run ends.

python -m orchestrator.tracking.follower RUN TRACKER

Reads one word on standard input when the run ends (`finished`, `stopped` or `failed`; none: the run was killed), and writes a
line on standard output for every warning. Nothing that a library does here can hold up the run: what it is behind stays in
metrics.jsonl, and at the end it has `tracking.wait_s` seconds.
"""

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast

from orchestrator.config.recipe import Recipe
from orchestrator.config.sections.tracking import TrackerName
from orchestrator.results.table import as_json, results_of
from orchestrator.run.folder import stored_recipe
from orchestrator.run.record import read_run
from orchestrator.tracking.entries import MetricsTail, Selection, results_entry
from orchestrator.tracking.libraries import tracker_of
from orchestrator.tracking.mark import Mark, MarkFile
from orchestrator.tracking.public_recipe import public_recipe, without_passwords
from orchestrator.tracking.tracker import Ending, TrackedRun, Tracker
from rollout.errors import visible

LOOK_S = 5.0
"""Seconds between two looks at what the run has recorded."""
AGAIN_S = 30.0
"""Seconds until a tracker that failed is tried again."""
TRIES_AT_END = 2
"""Times that what is left is tried after the end of the run."""
LATE = 3
"""Exit status of a follower that ran out of time, or whose tracker failed to the end: the next start sends the rest."""
LONGEST = 240
"""Characters of a warning."""


class Ended:
    """Whether the run has ended, and how: set by whoever reads it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.how: Ending = "failed"

    def tell(self, how: str) -> None:
        self.how = cast(Ending, how) if how in ("finished", "stopped") else "failed"
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Whether the run has ended, at the latest after so many seconds."""
        return self._event.wait(seconds)


class Follower:
    """One tracker of one run. It is opened at the first look, and anew after each failure."""

    def __init__(
        self, run: TrackedRun, marks: MarkFile, make: Callable[[], Tracker], tell: Callable[[str], None]
    ) -> None:
        self._run, self._marks, self._make, self._tell = run, marks, make, tell
        self._tracker: Tracker | None = None
        self._is_open = self._warned = False

    def follow(self, ended: Ended, *, look_s: float = LOOK_S, again_s: float = AGAIN_S) -> bool:
        """Send what is recorded until the run has ended. Returns whether the tracker has all of it."""
        tries_left = TRIES_AT_END
        while True:
            # Asked before the look, which then sees all that was recorded before the end.
            over = ended.wait(0)
            if self._try_once(ended.how if over else None):
                if over:
                    return True
                ended.wait(look_s)
            elif not over:
                ended.wait(again_s)
            elif tries_left := tries_left - 1:
                time.sleep(min(again_s, 1.0))
            else:
                return False

    def _try_once(self, ending: Ending | None) -> bool:
        """One look; whether nothing failed."""
        try:
            if not self._is_open:
                self._open()
            self._send()
            if ending:
                self._send_results()
                assert self._tracker is not None
                self._tracker.close(ending)
        # A library may raise anything, and leave by sys.exit.
        except (Exception, SystemExit) as problem:  # noqa: BLE001 - a tracker never ends a run: it is told, and tried again
            self._is_open = False
            self._warn(problem)
            return False
        return True

    def _open(self) -> None:
        if self._tracker is None:
            self._tracker = self._make()
        self._mark = self._marks.read()
        held = self._tracker.open(self._run)
        lines = self._mark.lines if held is None else held
        settings = self._run.settings
        self._tail = MetricsTail(self._run.folder)
        self._selection = Selection(self._run.folder, samples=settings.samples, samples_every=settings.samples_every)
        while self._tail.line < lines and (passed := self._tail.read(lines - self._tail.line)):
            self._selection.pass_over(passed)
        self._is_open = True

    def _send(self) -> None:
        assert self._tracker is not None
        while lines := self._tail.read():
            entries = self._selection.entries(lines)
            if entries:
                self._tracker.send(entries)
            self._mark = self._marks.move(self._mark, lines=self._tail.line)

    def _send_results(self) -> None:
        assert self._tracker is not None
        record = read_run(self._run.folder)
        results = as_json(results_of(record))
        digest = hashlib.blake2b(json.dumps(results, sort_keys=True).encode(), digest_size=16).hexdigest()
        entry = results_entry(results, max(self._tail.line - 1, 0), record.last_time)
        if entry and digest != self._mark.results:
            self._tracker.send([entry])
            self._mark = self._marks.move(self._mark, results=digest)

    def _warn(self, problem: BaseException) -> None:
        if self._warned:
            return
        self._warned = True
        lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
        words = without_passwords(lines[0] if lines else type(problem).__name__)
        self._tell(visible(words[:LONGEST]))


def tracked_run(folder: Path, recipe: Recipe, mark: Mark) -> TrackedRun:
    """What a tracker is told of the run in a folder."""
    return TrackedRun(
        id=mark.id,
        folder=folder,
        project=recipe.tracking.project or recipe.name,
        name=recipe.tracking.run or folder.name,
        config=public_recipe(recipe),
        settings=recipe.tracking,
        stages=[stage.name for stage in recipe.stages],
    )


def main() -> None:
    """Follow the run until it ends; the exit status is 0 when the tracker has all of it."""
    folder, name = Path(sys.argv[1]), cast(TrackerName, sys.argv[2])
    # Libraries print: theirs goes to the log.
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    recipe = stored_recipe(folder)
    assert recipe is not None
    ended = Ended()
    marks = MarkFile(folder, name)
    try:
        run = tracked_run(folder, recipe, marks.read())
    except (OSError, ValueError, TypeError) as problem:
        _say(out, f"its state in the run's folder cannot be kept: {problem}")
        sys.exit(LATE)
    threading.Thread(target=_await_end, args=(ended, recipe.tracking.wait_s), daemon=True).start()
    lock = marks.lock()
    whole = Follower(run, marks, lambda: tracker_of(name), lambda text: _say(out, text)).follow(ended)
    lock.close()
    sys.stderr.flush()
    # Not by way of what libraries have left to be done at the exit: it may hang.
    os._exit(0 if whole else LATE)


def _await_end(ended: Ended, wait_s: float) -> None:
    """Tell the end of the run, and end this process when it is late."""
    ended.tell(sys.stdin.readline().strip())
    time.sleep(wait_s)
    os._exit(LATE)


def _say(out: TextIO, text: str) -> None:
    """A line for the run, if it still is there."""
    try:
        out.write(f"{' '.join(text.split())}\n")
    except OSError:
        return


if __name__ == "__main__":
    main()
