"""Where a run stands, by its lock, its records and what it last said of itself."""

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run.lock import run_lock
from orchestrator.run.state import SILENT_S, STATE, Standing, read_state, standing, write_state


def said(state: str, *, ago: float = 0.0, host: str = "elsewhere") -> dict[str, Any]:
    """`time`: how long ago it was said, in seconds, until the test begins."""
    return {"state": state, "time": ago, "pid": 7, "host": host}


@pytest.mark.parametrize(
    ("state", "begun", "expected"),
    [
        ({}, False, "not begun"),
        ({}, True, "stopped"),  # a run of before, which said nothing
        (said("stopped"), True, "stopped"),
        (said("ended"), True, "stopped"),  # with --until
        (said("failed"), True, "failed"),
        (said("failed"), False, "failed"),
        (said("running", host=socket.gethostname()), True, "crashed"),  # the lock is free, so the process is gone
        (said("running", ago=SILENT_S + 1), True, "crashed"),
        (said("running"), True, "running"),  # on another host, where the lock may not be seen
        ({"state": "running", "time": "soon"}, True, "crashed"),
    ],
)
def test_a_run_that_nobody_holds(tmp_path: Path, state: dict[str, Any], begun: bool, expected: Standing) -> None:
    if isinstance(state.get("time"), float):
        state = {**state, "time": time.time() - state["time"]}
    found, writer = standing(tmp_path, state, finished=False, begun=begun)
    assert found == expected
    assert (writer is not None) == (expected == "running")
    assert standing(tmp_path, said("stopped"), finished=True, begun=True) == ("finished", None)


def test_a_run_that_is_held(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        found, writer = standing(tmp_path, said("running"), finished=False, begun=False)
        assert found == "running"
        assert writer is not None
        assert writer.host == socket.gethostname()


def test_what_is_written_is_read_and_anything_else_is_nothing(tmp_path: Path) -> None:
    assert read_state(tmp_path) == {}
    write_state(tmp_path, {"state": "running", "warnings": [{"text": "half a pair \ud800"}]})
    assert read_state(tmp_path)["state"] == "running"
    for text in ("", "{", "[1]"):
        (tmp_path / STATE).write_text(text)
        assert read_state(tmp_path) == {}
