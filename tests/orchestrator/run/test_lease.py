"""Who may write a run: the process that started last, and no other."""

import asyncio
import json
import socket
import time
from pathlib import Path

import pytest

from orchestrator.run.files import write_file
from orchestrator.run.lease import LEASE, LeaseLost, leased, read_lease, watch_lease
from orchestrator.run.state import wait_for_silence, write_state
from orchestrator.run.store import RunStore
from orchestrator.run.waiting import WaitingLog
from rollout.errors import InputError, ServiceError
from tests.factories import scored_group
from tests.orchestrator.factories import recipe


def test_every_start_counts_up_and_the_run_keeps_its_id(tmp_path: Path) -> None:
    with leased(tmp_path) as first:
        assert first.epoch == 1
    with leased(tmp_path) as second:
        assert second.epoch == 2
        assert second.run == first.run
        assert read_lease(tmp_path) == second


def test_who_was_frozen_writes_nothing_after_another_took_over(tmp_path: Path) -> None:
    with leased(tmp_path) as lease:
        store = RunStore(tmp_path, recipe())
        log = WaitingLog(tmp_path / "rl" / "waiting")
        store.record("step", "rl", step=1)
        later = {"run": lease.run, "epoch": 2, "pid": 77, "host": "elsewhere"}
        (tmp_path / LEASE).write_text(json.dumps(later))
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(LeaseLost, match="taken over by process 77 on elsewhere"):
            store.record("step", "rl", step=2)
        for write in (
            lambda: write_file(tmp_path / "state.json", b"{}"),
            lambda: store.link_export("rl"),
            lambda: log.add(1, scored_group([1, 0])),
        ):
            with pytest.raises(LeaseLost):
                write()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        with pytest.raises(LeaseLost):
            asyncio.run(watch_lease(tmp_path, lease))
    write_file(tmp_path / "free", b"")  # the fence ends with its block


def test_a_lease_that_cannot_be_read_is_no_free_pass(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_text("{")
    with pytest.raises(ServiceError, match=r"lease\.json cannot be read"), leased(tmp_path):
        pass


def beat(folder: Path, host: str, age: float) -> None:
    write_state(folder, {"state": "running", "host": host, "pid": 5, "time": time.time() - age})


@pytest.mark.parametrize(("host", "age"), [(socket.gethostname(), 0), ("elsewhere", 31)])
def test_a_run_that_is_silent_or_of_this_host_is_not_waited_for(tmp_path: Path, host: str, age: float) -> None:
    """On this host the lock tells."""
    beat(tmp_path, host, age)
    wait_for_silence(tmp_path, pytest.fail)


def test_a_run_that_died_elsewhere_a_moment_ago_is_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    beat(tmp_path, "elsewhere", 29)
    wait_for_silence(tmp_path, said.append)
    assert len(said) == 1
    assert "on elsewhere" in said[0]


def test_a_run_that_goes_on_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat(tmp_path, "elsewhere", 3)
    monkeypatch.setattr("orchestrator.run.state.time.sleep", lambda _: beat(tmp_path, "elsewhere", 0))
    with pytest.raises(InputError, match="is being written by process 5 on elsewhere"):
        wait_for_silence(tmp_path, lambda _: None)
