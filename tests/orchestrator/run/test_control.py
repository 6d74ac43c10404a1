"""Holding a run, and asking something of one that goes on."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run import control
from orchestrator.run.control import ANSWER, LOCK, REQUEST, Sizes, ask_for, holder, run_lock, serve_requests, stop_run
from rollout.errors import InputError, ServiceError

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.run.control import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(control, "POLL_S", 0.02)
    (tmp_path / "recipe.toml").write_text("")
    return tmp_path


@contextmanager
def another_process(run: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_one_process_at_a_time(run: Path) -> None:
    assert holder(run) is None
    with another_process(run) as other:
        found = holder(run)
        assert found is not None
        assert (found.pid, found.host) == (other.pid, socket.gethostname())
        with pytest.raises(InputError, match=f"process {other.pid} on .*--run DIR"), run_lock(run):
            pass
    # Killed, not ended: the lock is free again.
    assert holder(run) is None
    with run_lock(run):
        assert holder(run) is not None
    assert holder(run) is None


def test_what_an_earlier_process_was_asked_is_forgotten(run: Path) -> None:
    (run / REQUEST).write_text('{"rewards": 3}')
    with run_lock(run):
        assert not (run / REQUEST).exists()


def test_a_run_is_stopped_as_by_ctrl_c(run: Path) -> None:
    with pytest.raises(InputError, match="nothing is running"):
        stop_run(run)
    with another_process(run) as other:
        assert stop_run(run).pid == other.pid
        assert other.wait(10) == -signal.SIGTERM


def test_a_run_on_another_host_is_not_stopped_from_here(run: Path) -> None:
    with run_lock(run):
        (run / LOCK).write_text(json.dumps({"pid": os.getpid(), "host": "elsewhere"}))
        with pytest.raises(InputError, match=r"process \d+ on elsewhere"):
            stop_run(run)


def asked(run: Path, wanted: Sizes, said: dict[str, Any] | Exception) -> dict[str, Any]:
    """What `ask_for` gets from a run that does `said`."""
    seen: list[Sizes] = []

    async def scale(sizes: Sizes) -> dict[str, Any]:
        seen.append(sizes)
        if isinstance(said, Exception):
            raise said
        return said

    def serve() -> None:
        async def work() -> None:
            service = asyncio.create_task(serve_requests(run, scale))
            while not done.is_set():
                await asyncio.sleep(0.01)
            service.cancel()

        asyncio.run(work())

    done = threading.Event()
    thread = threading.Thread(target=serve)
    with run_lock(run):
        thread.start()
        try:
            return ask_for(run, wanted, timeout_s=20)
        finally:
            done.set()
            thread.join()
            assert seen == [wanted]
            assert not (run / REQUEST).exists()
            assert not (run / ANSWER).exists()


def test_a_request_is_answered(run: Path) -> None:
    assert asked(run, {"rewards": 3}, {"rewards": [1, 3]}) == {"rewards": [1, 3]}


def test_a_refusal_and_a_failure_reach_who_asked(run: Path) -> None:
    with pytest.raises(InputError, match="cannot be"):
        asked(run, {"rollout": 3}, InputError("cannot be"))
    with pytest.raises(ServiceError, match="no place"):
        asked(run, {"rewards": 3}, ServiceError("no place"))


def test_nobody_to_ask(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing is running there; start it with .* rewards.replicas=3"):
        ask_for(run, {"rewards": 3})
    with pytest.raises(InputError, match="holds no run"):
        ask_for(tmp_path / "none", {"rewards": 3})
    with run_lock(run), pytest.raises(ServiceError, match="did not answer"):
        ask_for(run, {"rewards": 3}, timeout_s=0.2)
    assert not (run / REQUEST).exists()
