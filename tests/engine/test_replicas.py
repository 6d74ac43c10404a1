"""Replicas that die, hang, come and leave, on real engines: what they had goes on elsewhere, and they serve again after a publish."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray

from orchestrator.clock import PhaseClocks
from orchestrator.cluster.services import Services
from orchestrator.loop.audit import Auditor
from orchestrator.loop.publishing import Publishing
from rollout.service import RolloutPool
from rollout.types import RolloutGroup, Sampling
from tests.engine.conftest import Rig, learner_of, start_pool
from tests.engine.test_publish import batch_of

SHORT = Sampling(n=2, max_tokens=8, seed=1)
LONG = Sampling(n=8, max_tokens=100, seed=3)
SERVES_S = 60.0


def process_of(pool: RolloutPool, replica: int) -> psutil.Process:
    return psutil.Process(ray.get(pool._keeper.engines[replica].actor.__ray_call__.remote(lambda _: os.getpid())))


class Run:
    """A run's way of publishing to a pool of its own, and what was told of its replicas."""

    def __init__(self, rig: Rig, pool: RolloutPool, told: list[str]) -> None:
        self.rig, self.pool, self.told = rig, pool, told
        services: Any = Services("cpu", 60.0, None)  # type: ignore[arg-type]
        for background, service in ((services._learner, learner_of(rig.learner)), (services._rollout, pool)):
            rig.run(background.begin("here", lambda service=service: itself(service)))
        self.publishing = Publishing(services, PhaseClocks(), self.auditor)

    async def auditor(self, version: int) -> Auditor:
        return Auditor(
            learner=learner_of(self.rig.learner), pool=self.pool, batch_of=batch_of, temperature=1.0, max_tokens=16,
            tolerance=2e-5, version=version,
        )  # fmt: skip

    async def serving(self, count: int) -> None:
        """Wait until so many serve."""
        async with asyncio.timeout(SERVES_S):
            while len(self.pool.serving) != count:
                await asyncio.sleep(0.05)

    def groups(self, name: str, count: int) -> list[Any]:
        rig = self.rig
        return [
            asyncio.ensure_future(self.pool.generate(f"{name}{i}", rig.prompt(f"{i}+1="), LONG)) for i in range(count)
        ]


async def itself(service: Any) -> Any:
    return service


@pytest.fixture(scope="module")
def running(rig: Rig) -> Iterator[Run]:
    told: list[str] = []
    pool = rig.run(start_pool(rig.folder, name="mortal", tell=told.append))
    rig.open()
    run = Run(rig, pool, told)
    yield run
    run.publishing.close()
    rig.run(pool.close())


def test_the_only_replica_is_killed_with_groups_in_flight_and_serves_again_without_a_step(running: Run) -> None:
    async def work() -> tuple[list[RolloutGroup], float]:
        await running.publishing.publish(3)
        groups = running.groups("flight", 12)
        await asyncio.sleep(0.5)
        assert not any(group.done() for group in groups)
        process = process_of(running.pool, 0)
        engine = process.children(recursive=True)
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        while running.pool.serving:
            await asyncio.sleep(0.01)
        await running.serving(1)
        seconds = time.monotonic() - killed
        assert engine
        assert not any(each.is_running() for each in engine), "they would hold the memory that their successors need"
        return list(await asyncio.gather(*groups)), seconds

    groups, seconds = running.rig.run(work())
    print(f"{seconds:.1f} s from kill to serving again")
    versions = {v for group in groups for c in group.completions for v in c.policy_versions.tolist()}
    assert versions == {3}, "no token of the weights that it was started with"
    path = [line.split("→ ")[1].split(",")[0].split(":")[0] for line in running.told if "→" in line]
    assert path[-4:] == ["dead", "starting", "stale", "serving"]


def test_a_replica_that_hangs_is_ended_and_its_groups_go_on(running: Run) -> None:
    """The engine's core alone, so that its actor still answers."""
    keeper = running.pool._keeper

    async def work() -> list[RolloutGroup]:
        groups = running.groups("hang", 4)
        await asyncio.sleep(0.3)
        (core,) = [
            p for p in process_of(running.pool, 0).children(recursive=True) if "EngineCore" in " ".join(p.cmdline())
        ]
        before, keeper._timeout_s = keeper._timeout_s, 6.0
        try:
            core.suspend()
            began = time.monotonic()
            while running.pool.serving:
                await asyncio.sleep(0.05)
            while not any("said nothing" in line or "no token" in line for line in running.told):
                await asyncio.sleep(0.05)
            assert time.monotonic() - began < 6 + 5
        finally:
            keeper._timeout_s = before
        return list(await asyncio.gather(*groups))

    groups = running.rig.run(work())
    assert all(len(group.completions) == 8 for group in groups)


def test_replicas_join_and_leave_while_groups_are_generated(running: Run) -> None:
    rig, pool = running.rig, running.pool

    async def work() -> list[RolloutGroup]:
        first = process_of(pool, 0).pid
        await pool.scale(2)
        groups = running.groups("join", 6)
        await running.serving(2)
        groups += running.groups("both", 12)
        made = list(await asyncio.gather(*groups))
        assert {group.replica for group in made} == {0, 1}
        leaving = running.groups("leave", 12)
        await asyncio.sleep(0.2)
        await pool.scale(1)
        made += await asyncio.gather(*leaving)
        while len(pool.members()) > 1:
            await asyncio.sleep(0.05)
        assert process_of(pool, 0).pid == first
        return made

    made = rig.run(work())
    assert pool.serving == (0,)
    assert len(made) == 30
    assert "mortal-1" not in {one["name"] for one in ray.util.list_named_actors(all_namespaces=True)}


def test_a_replica_that_is_killed_while_it_is_given_weights_costs_no_publish(running: Run) -> None:
    async def work() -> None:
        running.told.clear()
        publish = asyncio.ensure_future(running.publishing.publish(4))
        while not running.pool._keeper._busy:
            await asyncio.sleep(0)
        process_of(running.pool, 0).kill()
        await publish
        await running.serving(1)

    running.rig.run(work())
    assert running.rig.run(running.pool.versions()) == [4]
