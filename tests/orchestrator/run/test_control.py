"""Holding a run, and asking something of one that goes on."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run import control
from orchestrator.run.control import ANSWER, REQUEST, STOP, Sizes, ask_for, heeding_stops, serve_requests, stop_run
from orchestrator.run.lock import LOCK, holder, run_lock
from orchestrator.run.state import write_state
from rollout.errors import InputError, ServiceError

HOLD = """
import signal, sys, time
from pathlib import Path
from orchestrator.run import control
from orchestrator.run.interrupts import terminated_as_interrupted
from orchestrator.run.lock import run_lock
control.POLL_S = 0.02
if "elsewhere" in sys.argv:
    from orchestrator.run import lock
    lock.process_table = lambda: "another machine"
try:
    with terminated_as_interrupted(), run_lock(Path(sys.argv[1])), control.heeding_stops(Path(sys.argv[1])):
        if "deaf" in sys.argv:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            print("held", flush=True)
            time.sleep(60)
        finally:
            time.sleep(0.5)
            while "slow" in sys.argv and not Path(sys.argv[1], "go").exists():
                time.sleep(0.02)
            print("in order", flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(control, "POLL_S", 0.02)
    (tmp_path / "recipe.toml").write_text("")
    return tmp_path


@contextmanager
def another_process(run: Path, *how: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run), *how], stdout=subprocess.PIPE, text=True)
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
    (run / STOP).touch()
    with heeding_stops(run):
        assert not (run / REQUEST).exists()
        assert not (run / STOP).exists()


@pytest.mark.parametrize("how", [(), ("elsewhere",)])
def test_a_run_ends_as_by_ctrl_c_and_is_waited_for(run: Path, how: tuple[str, ...]) -> None:
    """On this host by a signal, on another one by what is asked in the folder."""
    with pytest.raises(InputError, match="nothing is running"):
        stop_run(run)
    with another_process(run, *how) as other:
        found = stop_run(run)
        assert (found.pid, found.is_here) == (other.pid, not how)
        assert holder(run) is None
        assert other.wait(10) == 130
    assert not (run / STOP).exists()


@pytest.mark.parametrize("how", [(), ("elsewhere",)])
def test_asking_twice_is_asking_once(run: Path, how: tuple[str, ...]) -> None:
    with another_process(run, "slow", *how) as other:
        asked = [threading.Thread(target=stop_run, args=(run,)) for _ in range(2)]
        for one in asked:
            one.start()
            time.sleep(0.5)
        (run / "go").touch()
        for one in asked:
            one.join()
        assert other.wait(10) == 130
        assert other.stdout is not None
        assert other.stdout.read() == "in order\n", "a second Ctrl-C cuts its last seconds short"


def test_a_run_that_does_not_end_or_answer_is_named_with_what_ends_it(run: Path) -> None:
    with another_process(run, "deaf") as other, pytest.raises(ServiceError) as caught:
        stop_run(run, end_s=0.3)
    assert re.search(f"not ended within 0 s; .* kill -KILL {other.pid} on ", str(caught.value))
    with another_process(run, "elsewhere") as other:
        os.kill(other.pid, signal.SIGSTOP)
        write_state(run, {"state": "running", "time": time.time() - 300})
        said = rf"process {other.pid} on .* within 0 s and has said nothing for 300 s; .* kill -KILL {other.pid} on"
        with pytest.raises(ServiceError, match=said):
            stop_run(run, answer_s=0.3)
        assert not (run / STOP).exists(), "it would end the next one"


def elsewhere(**state: Any) -> dict[str, Any]:
    return {"state": "running", "time": time.time(), "pid": 7, "host": "elsewhere", **state}


def test_where_the_lock_does_not_reach_the_beat_tells(run: Path) -> None:
    """NFS without locks: the folder's lock is free here while another host writes the run."""
    write_state(run, elsewhere())
    asked = threading.Event()

    def end() -> None:
        while not (run / STOP).exists():
            time.sleep(0.01)
        (run / STOP).unlink()
        asked.set()
        write_state(run, elsewhere(state="stopped"))

    thread = threading.Thread(target=end)
    thread.start()
    assert str(stop_run(run, answer_s=10)) == "process 7 on elsewhere"
    thread.join()
    assert asked.is_set()
    for stale in (elsewhere(time=time.time() - 60), elsewhere(state="failed")):
        write_state(run, stale)
        (run / LOCK).write_text(json.dumps({"pid": 7, "host": "elsewhere", "space": "x"}))  # of a host that is gone
        with pytest.raises(InputError, match="nothing is running"):
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
    with run_lock(run), heeding_stops(run):
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
    with run_lock(run), pytest.raises(ServiceError, match=rf"process {os.getpid()} on .* did not answer"):
        ask_for(run, {"rewards": 3}, timeout_s=0.2)
    assert not (run / REQUEST).exists()
