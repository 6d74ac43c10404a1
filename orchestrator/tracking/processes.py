"""The processes that send a run to its trackers, from the run's side: started, listened to, ended in bounded time."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.checks.trackers import is_installed
from orchestrator.config.recipe import Recipe
from orchestrator.config.sections.tracking import TrackerName
from orchestrator.display import Display
from orchestrator.tracking.mark import tracker_folder
from orchestrator.tracking.tracker import Ending

MODULE = "orchestrator.tracking.follower"
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Variables that libraries read, where the user has not set them: failures are seen soon, and nothing goes to others."""
GRACE_S = 5.0
"""Seconds that a process may take beyond `tracking.wait_s` before it is killed."""
SOON_S = 2.0
"""Seconds after which a wait at the end is told of."""


class Process:
    """The process of one tracker."""

    def __init__(self, name: TrackerName, folder: Path, display: Display) -> None:
        self.name, self._folder, self._display = name, folder, display
        self._warned = False
        self._process: subprocess.Popen[str] | None = None
        logs = tracker_folder(folder)
        try:
            logs.mkdir(exist_ok=True)
            with (logs / f"{name}.log").open("a") as log:
                self._process = subprocess.Popen(
                    # Modules come from where they come from here, and not from the working directory: W&B has a folder `wandb` there.
                    [sys.executable, "-P", "-m", MODULE, str(folder), name],
                    env={**DEFAULTS, **os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,  # Ctrl-C is the run's
                )
        except OSError as problem:
            self._warn(f"cannot be reached: {problem}")
            return
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def tell_end(self, ending: Ending) -> None:
        """Tell it that the run has ended."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{ending}\n")
            self._process.stdin.close()
        except OSError:
            pass  # It is dead already, which `wait` tells of.

    def wait(self, until: float) -> None:
        """Wait for its end, and kill it when the clock (`time.monotonic`) says so; a rest that is not sent is told of."""
        if self._process is None:
            return
        try:
            code = self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        self._listener.join(1.0)
        if self._process.stdout is not None and not self._listener.is_alive():
            self._process.stdout.close()
        if code:
            self._display.line(
                f"{self.name}: has not got all of the run; the next `rayzero train {self._folder}` sends the rest "
                f"(log: {tracker_folder(self._folder) / f'{self.name}.log'})"
            )

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._warn(line.strip())

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._display.line(f"warning: {self.name}: {text} (the run goes on without it; tried again meanwhile)")


@contextmanager
def tracked(recipe: Recipe, folder: Path, display: Display) -> Iterator[None]:
    """Send the run in a folder to the trackers that its recipe asks for, as long as the block goes on and at most
    `tracking.wait_s` seconds longer. No failure of a tracker gets out of here; of one that is not installed `preflight` has told."""
    processes = [Process(name, folder, display) for name in recipe.track if is_installed(name)]
    ending: Ending = "failed"
    try:
        yield
        ending = "finished"
    except KeyboardInterrupt:
        ending = "stopped"
        raise
    finally:
        _end(processes, ending, recipe, display)


def _end(processes: list[Process], ending: Ending, recipe: Recipe, display: Display) -> None:
    for process in processes:
        process.tell_end(ending)
    until = time.monotonic() + recipe.tracking.wait_s + GRACE_S
    waiting = threading.Timer(
        SOON_S,
        display.line,
        [f"waits up to {recipe.tracking.wait_s:g} s for {', '.join(recipe.track)} to get the rest"],
    )
    waiting.daemon = True
    if processes:
        waiting.start()
    try:
        for process in processes:
            process.wait(until)
    except KeyboardInterrupt:
        for process in processes:
            process.wait(0.0)
        raise
    finally:
        waiting.cancel()
