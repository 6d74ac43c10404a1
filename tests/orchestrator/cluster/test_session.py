"""A cluster that does not come up is a line about it."""

import signal
from typing import Any

import pytest
import ray

from orchestrator.cluster.session import cores_per_node, planned_gpus, ray_session
from orchestrator.config.sections.cluster import ClusterSection
from orchestrator.plan.placement import MANY
from orchestrator.run.interrupts import terminated_as_interrupted
from rollout.errors import InputError, ServiceError


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        ("", ServiceError, "Ray did not start here; is the machine too busy? timed out"),
        ("h:1", InputError, "cluster.address = 'h:1': no Ray cluster answers: timed out"),
    ],
)
def test_a_cluster_that_does_not_come_up(
    address: str, kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise Exception("timed out\nwith more lines")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(kind) as caught, ray_session(ClusterSection(address=address), "r"):
        pass
    assert str(caught.value) == said


def test_an_interrupt_waits_until_ray_is_up_and_then_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def start(**_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        seen.append("up")

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append("down"))
    # Tests that a script starts in the background have inherited that it is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), ray_session(ClusterSection(), "r"):
            seen.append("in use")
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["up", "down"]


def test_a_stop_while_ray_starts_is_an_interrupt_once_it_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets a handler of its own at its start, which would exit in the middle of it."""
    seen = []

    def start(**_: Any) -> None:
        ray._private.utils.set_sigterm_handler(lambda *_: seen.append("Ray's"))
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        seen.append("up")

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: (signal.raise_signal(signal.SIGTERM), seen.append("down")))
    interrupt, terminate = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with terminated_as_interrupted(), pytest.raises(KeyboardInterrupt), ray_session(ClusterSection(), "r"):
            seen.append("in use")
        assert signal.getsignal(signal.SIGTERM) == terminate
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert seen == ["up", "down"]


@pytest.mark.parametrize(
    ("gpus", "asked", "device", "planned"),
    [
        (0, "auto", "cpu", 0),
        (4, "auto", "cuda", 4),
        (4, "cpu", "cpu", 4),
        (4, "cuda", "cuda", 4),
        (0, "cuda", "cuda", MANY),  # an autoscaler is yet to bring them, as many as are asked for
    ],
)
def test_what_a_run_computes_on(
    gpus: int, asked: Any, device: str, planned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"GPU": gpus}
    started: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", started.update)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    with ray_session(ClusterSection(device=asked, address="auto"), "r") as found:
        assert found == device
        assert planned_gpus() == planned
        there["GPU"] = 8  # nodes that come later change no plan
        assert planned_gpus() == planned
    assert "num_gpus" not in started
    with ray_session(ClusterSection(device=asked), "r"):
        assert started["num_gpus"] == (0 if asked == "cpu" else None)


def test_a_node_that_is_kept_free_of_work_does_not_count_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": each} for each in ({"memory": 1.0}, {"CPU": 8.0}, {"CPU": 4.0})]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert cores_per_node() == 4
    monkeypatch.setattr(ray, "nodes", lambda: nodes[:1])
    assert cores_per_node() == 1
