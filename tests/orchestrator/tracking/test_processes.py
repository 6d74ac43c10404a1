"""The process of a tracker beside a run: whatever its library does, the run ends as it would without, and in time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import pipeline
from orchestrator.tracking import processes
from orchestrator.tracking.follower import LATE
from orchestrator.tracking.processes import tracked
from tests.orchestrator.stage_context import Lines
from tests.orchestrator.tracking.followed import mark_of, store_in, tracked_recipe, train

LIBRARY = """
import os, time, types
class Settings:
    def __init__(self, **settings): pass
class Run:
    offline, step = True, 0
    def define_metric(self, *names, **more): pass
    def log(self, values, step): open(os.environ["SEEN"], "a").write(f"{step} {sorted(values)}\\n")
    def finish(self, exit_code): open(os.environ["SEEN"], "a").write(f"end {exit_code}\\n")
def init(**more):
    BODY
    return Run()
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the library did, line by line."""
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    return tmp_path / "seen"


def library(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A `wandb` in place of the real one."""
    (folder / "library" / "wandb").mkdir(parents=True)
    (folder / "library" / "wandb" / "__init__.py").write_text(LIBRARY.replace("BODY", body))
    monkeypatch.syspath_prepend(str(folder / "library"))


def run(folder: Path, display: Lines, *, fails: BaseException | None = None, wait_s: float = 60) -> float:
    """A run of one step; seconds that its end took."""
    store = store_in(folder / "r", "wandb", wait_s=wait_s)
    began = time.monotonic()
    with tracked(tracked_recipe("wandb", wait_s=wait_s), store.folder, display):
        train(store, 1, 1)
        began = time.monotonic()
        if fails:
            raise fails
    return time.monotonic() - began


def test_a_run_is_sent_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Path) -> None:
    library(tmp_path, monkeypatch, "print('hello')")
    display = Lines()
    run(tmp_path, display)
    sent, end = seen.read_text().splitlines()
    assert sent.startswith("0 ['_timestamp', 'rl/learner/lr', 'rl/reward/mean', 'rl/step']")
    assert end == "end 0"
    assert not [line for line in display.lines if "warning" in line or "has not got" in line]
    assert "hello" in (tmp_path / "r" / "trackers" / "wandb.log").read_text()


def test_the_next_start_of_a_finished_run_sends_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Path
) -> None:
    library(tmp_path, monkeypatch, "pass")
    store = store_in(tmp_path / "r", "wandb")
    train(store, 1, 2)
    for stage in ("warm", "rl"):
        store.finish(stage)
    pipeline.train(tracked_recipe("wandb"), store.folder)
    assert [line.split()[0] for line in seen.read_text().splitlines()] == ["0", "2", "end"]


def test_a_run_that_failed_fails_as_before_and_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Path
) -> None:
    library(tmp_path, monkeypatch, "pass")
    with pytest.raises(RuntimeError, match="engine"):
        run(tmp_path, Lines(), fails=RuntimeError("engine"))
    assert seen.read_text().splitlines()[-1] == "end 1"


@pytest.mark.parametrize(
    ("body", "told", "wait_s"),
    [
        ("raise ValueError('no\\x1bnetwork')", "warning: wandb: no\\x1bnetwork", 60),
        ("raise SystemExit('bad key')", "warning: wandb: bad key", 60),
        ("os.abort()", "wandb: has not got all of the run", 60),
        ("time.sleep(600)", "wandb: has not got all of the run", 2),
    ],
)
def test_a_library_that_fails_or_hangs_is_told_of_once_and_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Path, body: str, told: str, wait_s: float
) -> None:
    library(tmp_path, monkeypatch, body)
    monkeypatch.setattr(processes, "GRACE_S", 1.0)
    display = Lines()
    assert run(tmp_path, display, wait_s=wait_s) < 30
    assert sum(told in line for line in display.lines) == 1
    assert not seen.exists()
    assert mark_of(store_in(tmp_path / "r")).lines == 0


def test_a_process_that_hears_of_no_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Path) -> None:
    library(tmp_path, monkeypatch, "pass")
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    monkeypatch.setattr(processes, "MODULE", "tests.orchestrator.tracking.deaf")
    display = Lines()
    assert run(tmp_path, display, wait_s=0.5) < 20
    assert "wandb: has not got all of the run" in display.lines[-1]


def test_the_process_of_a_run_that_was_killed_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Path
) -> None:
    library(tmp_path, monkeypatch, "time.sleep(600)")
    store = store_in(tmp_path / "r", "wandb", wait_s=2)
    command = [sys.executable, "-m", processes.MODULE, str(store.folder), "wandb"]
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path}, timeout=90, check=False
    )
    assert done.returncode == LATE


def test_a_tracker_that_is_not_installed_has_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "is_installed", lambda name: False)
    display = Lines()
    run(tmp_path, display)
    assert display.lines == []
    assert not (tmp_path / "r" / "trackers").exists()


def test_a_disk_that_takes_no_log_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Path) -> None:
    library(tmp_path, monkeypatch, "pass")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "trackers").write_text("in the way")
    display = Lines()
    run(tmp_path, display)
    (line,) = display.lines
    assert line.startswith("warning: wandb: cannot be reached: ")
