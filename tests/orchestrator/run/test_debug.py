"""`rayzero status RUN --debug`: what a run says that it waits for, asked through its folder."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cli import run as rayzero
from orchestrator.loop.debug import debug_report, or_debug
from orchestrator.run import control, debug
from orchestrator.run.control import serve_requests
from orchestrator.run.lock import run_lock
from orchestrator.run.watchdog import STACKS
from rollout.errors import InputError, ServiceError
from rollout.waits import acting, waiting

MEMBERS = [{"name": "rollout-0", "state": "serving", "in_flight": 3}]


class Services:
    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def states(self) -> dict[str, Any]:
        return {"rollout": {"state": "up", "members": MEMBERS}}

    async def rank_notes(self) -> list[str]:
        return self.notes


CONTEXT = SimpleNamespace(
    stage=SimpleNamespace(name="reasoning"),
    queues=lambda: {"in_flight": 8, "waiting": 0},
    clocks=SimpleNamespace(going_on=lambda: {"wait": 61.26}),
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(control, "POLL_S", 0.02)
    (tmp_path / "recipe.toml").write_text("")
    return tmp_path


def test_a_run_says_what_it_waits_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def goes_on() -> None:
        async def scale(_: Any) -> dict[str, Any]:
            raise AssertionError("nothing is to be scaled")

        services: Any = Services(["learner-0: train, mini-batch 1 of 2, for 3 s"])
        answer = or_debug(scale, services, SimpleNamespace(context=CONTEXT))  # type: ignore[arg-type]
        serving = asyncio.create_task(serve_requests(run, answer), name="requests")
        with acting("reasoning, publish"), waiting("replica 0 to load weights", 600.0):
            while not asked.is_set():
                await asyncio.sleep(0.01)
        serving.cancel()

    asked = threading.Event()
    with run_lock(run):
        going = threading.Thread(target=lambda: asyncio.run(goes_on()))
        going.start()
        try:
            lines = [*debug.describe_waits(debug.ask_what_it_waits_for(run))]
        finally:
            asked.set()
            going.join()
    said = "\n".join(lines)
    assert lines[0] == "open waits (1)"
    assert lines[1] == "  reasoning, publish waits 0 s for replica 0 to load weights, at most 600 s without progress"
    for part in (
        "queues: in_flight 8, waiting 0",
        "phases: wait 61.3",
        "  rollout-0, state serving, in_flight 3",
        "  learner-0: train, mini-batch 1 of 2, for 3 s",
        "task requests",
        "serve_requests (orchestrator/run/control.py:",
        "thread MainThread",
    ):
        assert part in said


def test_many_waits_are_cut_and_a_run_between_stages_has_none() -> None:
    async def report() -> dict[str, Any]:
        with waiting("x"), waiting("y"):
            return await debug_report(Services([]), SimpleNamespace(context=None))  # type: ignore[arg-type]

    report_ = asyncio.run(report())
    assert list(debug.describe_waits(report_))[:5] == [
        "open waits (2)",
        "  the run waits 0 s for x",
        "  the run waits 0 s for y",
        "queues: none",
        "phases: none",
    ]
    many = report_ | {"waits": report_["waits"] * 40}
    assert "  … and 30 younger ones" in [*debug.describe_waits(many)]


def test_a_run_that_does_not_go_on_or_does_not_answer(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(debug, "ANSWER_S", 0.1)
    with pytest.raises(InputError, match="nothing is running there; --debug asks a run that goes on"):
        debug.ask_what_it_waits_for(run)
    with run_lock(run):
        with pytest.raises(ServiceError, match="did not answer"):
            debug.ask_what_it_waits_for(run)
        (run / STACKS).write_text("")
        with pytest.raises(ServiceError, match=f"its event loop stood 0 s ago; the stacks of then: {run / STACKS}"):
            debug.ask_what_it_waits_for(run)
    assert rayzero(["status", "--help"]) == 0
    assert "--debug" in capsys.readouterr().out
