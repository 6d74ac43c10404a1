"""Actors that an earlier start of a run has left on its cluster."""

import asyncio
from typing import Any

import pytest
import ray

from orchestrator.cluster import orphans
from orchestrator.cluster.orphans import end_orphans, namespace_of
from orchestrator.run.lease import Lease
from tests.engine.conftest import Rig
from tests.orchestrator.stage_context import Lines


class Sleeper:
    def pid(self) -> int:
        return 1


def lease(run: str, epoch: int) -> Lease:
    return Lease(run=run, epoch=epoch, pid=1, host="h")


def test_those_of_this_run_are_ended_and_no_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "PATIENCE_S", 0.5)
    starts = [("aa", 1), ("aa", 2), ("aa", 10), ("aab", 1), ("bb", 1)]
    actors: dict[tuple[str, int], Any] = {
        key: ray.remote(Sleeper).options(name="rollout-0", namespace=namespace_of(lease(*key)), num_cpus=0).remote()
        for key in starts
    }
    for actor in actors.values():
        ray.get(actor.pid.remote())
    display = Lines()
    asyncio.run(end_orphans(lease("aa", 10), display))
    left = {actor["namespace"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    assert left >= {"rayzero-aa-10", "rayzero-aab-1", "rayzero-bb-1"}
    assert not left & {"rayzero-aa-1", "rayzero-aa-2"}
    assert "ended 2 of them" in display.lines[-1]
    for key in starts[2:]:
        ray.kill(actors[key])
