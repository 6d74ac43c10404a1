"""What a run says of itself while it goes on and at its end; that nothing of it ends a run."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.loop import pulse as pulse_module
from orchestrator.loop.pulse import Pulse
from orchestrator.run.state import STATE, read_state
from orchestrator.run.store import RunStore
from rollout.errors import ServiceError
from tests.orchestrator.factories import recipe
from tests.orchestrator.stage_context import Lines, context_of

MEMBERS = [{"name": "rollout-0", "state": "serving"}, {"name": "rollout-1", "state": "dead"}]
SERVICES: Any = SimpleNamespace(num_tokens=0, states=lambda: {"rollout": {"state": "up", "members": MEMBERS}})


class Exporter:
    """In place of that of Ray's metrics."""

    said: dict[str, float]

    def __init__(self, run: str) -> None:
        pass

    def export(self, **values: float) -> None:
        Exporter.said = values


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "RunExporter", Exporter)
    monkeypatch.setattr(pulse_module, "BEAT_S", 0.01)
    monkeypatch.setattr(pulse_module, "REPORT_EVERY_S", 0.0)


def pulse_of(folder: Path) -> Pulse:
    return Pulse(RunStore(folder, recipe()), Lines())


async def beat(pulse: Pulse, services: Any = SERVICES, seconds: float = 0.2) -> None:
    task = asyncio.create_task(pulse.beat(services))
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_goes_on_is_said(tmp_path: Path) -> None:
    context = context_of(recipe(), tmp_path)
    pulse = pulse_of(tmp_path)
    with pulse:
        assert read_state(tmp_path)["state"] == "running"
        pulse.context = context
        context.queues = lambda: {"in_flight": 3, "waiting": 1, "to_score": 2}
        pulse.display.warnings.append((1.0, "replica 1 serves no more"))
        with context.clocks.train.running(), pulse.display.bar(context.stage.name, 10, 4):
            asyncio.run(beat(pulse))
        said = read_state(tmp_path)
    assert said["stage"] == context.stage.name
    assert list(said["phases"]) == ["train"]
    assert said["phases"]["train"] > 0
    assert said["queues"] == {"in_flight": 3, "waiting": 1, "to_score": 2}
    assert said["progress"] == {"title": context.stage.name, "done": 4, "total": 10, "status": ""}
    assert said["services"]["rollout"]["members"] == MEMBERS
    assert said["warnings"] == [{"time": 1.0, "text": "replica 1 serves no more"}]
    assert Exporter.said["replicas"] == 2
    assert Exporter.said["replicas_away"] == 1
    assert Exporter.said["completions_to_score"] == 2
    assert (tmp_path / "report.html").is_file()


def test_a_run_beats_while_nothing_can_be_observed_yet(tmp_path: Path) -> None:
    """While Ray starts, the main thread does nothing else."""
    with pulse_of(tmp_path):
        first = read_state(tmp_path)["time"]
        time.sleep(0.1)
        assert read_state(tmp_path)["time"] > first
    last = read_state(tmp_path)
    assert last["state"] == "ended"
    time.sleep(0.05)
    assert read_state(tmp_path) == last


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (None, {"state": "ended"}),
        (KeyboardInterrupt(), {"state": "stopped", "reason": ""}),
        (ServiceError("rank 1 died"), {"state": "failed", "reason": "rank 1 died"}),
        (ZeroDivisionError(), {"state": "failed", "reason": "ZeroDivisionError"}),
    ],
)
def test_how_it_ended_is_said(tmp_path: Path, problem: BaseException | None, expected: dict[str, str]) -> None:
    with pytest.raises(type(problem)) if problem else pulse_of(tmp_path), pulse_of(tmp_path):
        if problem:
            raise problem
    said = read_state(tmp_path)
    assert {key: said[key] for key in expected} == expected


def test_what_cannot_be_written_or_known_is_told_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no space left")

    def gone() -> Any:
        raise RuntimeError("Ray is gone")

    monkeypatch.setattr(pulse_module, "write_report", refuse)
    pulse = pulse_of(tmp_path)
    with pulse:
        (tmp_path / STATE).unlink()
        asyncio.run(beat(pulse, SimpleNamespace(states=gone)))
        assert read_state(tmp_path)["state"] == "running"
    told = [text for _, text in pulse.display.warnings]
    assert sorted(told) == [
        "the report could not be written: OSError: no space left",
        "what the run is doing is not known: RuntimeError: Ray is gone",
    ]


def test_getting_on_is_a_record_or_a_sampled_group(tmp_path: Path) -> None:
    pulse = pulse_of(tmp_path)
    services = SimpleNamespace(num_tokens=0, states=dict)

    def moved() -> float:
        asyncio.run(beat(pulse, services, 0.03))
        return float(read_state(tmp_path)["moved"])

    first = moved()
    assert moved() == first == Exporter.said["progress_timestamp_seconds"].__round__(3)
    services.num_tokens = 64
    assert (second := moved()) > first
    pulse._store.record("time", "reasoning")
    assert moved() > second
