"""A replica is let in by a publish, whenever the learner's weights stand still, under the number that the others hold."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.clock import PhaseClocks
from orchestrator.loop.publishing import TRIES, Publishing
from rollout.errors import NobodyLoadedError, ServiceError
from rollout.service import Audit, RolloutPool
from rollout.types import Prompt, Sampling
from rollout.weights.manifest import Holding, WeightManifest
from tests.rollout.stand_ins import StandInEngines

ASKED = Prompt(prompt_id="p", source="s", rubric="r", text="1", token_ids=(1,), answer="")


class Learner:
    """A learner, and its ranks."""

    node = "node"

    def __init__(self) -> None:
        self.staged: list[tuple[int, Holding | None]] = []
        self.released = 0
        self.abandoned = ""
        self.fault: Exception | None = None

    async def stage_weights(self, version: int, held: Holding | None) -> WeightManifest:
        if self.fault:
            raise self.fault
        self.staged.append((version, held))
        return WeightManifest(version=version, backend="shm", num_bytes=0, holding=Holding(f"w{version}"))

    async def attempt(self, _: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
        return await work(self)

    async def answer(self) -> None: ...

    async def send_weights(self) -> None: ...

    async def release_weights(self, _: Any) -> None:
        self.released += 1

    async def abandon(self, why: str) -> None:
        self.abandoned = why


class Bench:
    def __init__(self, pool: RolloutPool, engines: StandInEngines) -> None:
        self.pool, self.engines, self.learner = pool, engines, Learner()
        services: Any = SimpleNamespace(learner=self._learner, rollout=self._rollout)
        self.publishing = Publishing(services, PhaseClocks(), self._auditor)
        self.audited: list[int] = []

    async def _learner(self) -> Any:
        return self.learner

    async def _rollout(self) -> Any:
        return self.pool

    async def _auditor(self, version: int) -> Any:
        async def judge(groups: Any) -> dict[int, str]:
            self.audited += [group.replica for group in groups]
            return {}

        return SimpleNamespace(joiners=lambda: Audit(Sampling(max_tokens=4), judge))

    async def group(self) -> Any:
        return await self.pool.generate("g", ASKED, Sampling(max_tokens=4))

    def kill(self, number: int) -> None:
        self.engines.actors[number].fault = ServiceError("EngineDeadError")

    async def serving(self, *members: int) -> None:
        async with asyncio.timeout(5):
            while self.pool.serving != members:
                await asyncio.sleep(0.005)


def bench(monkeypatch: pytest.MonkeyPatch, work: Callable[[Bench], Awaitable[None]], replicas: int = 1) -> None:
    monkeypatch.setattr("ray.cancel", lambda _: None)
    monkeypatch.setattr("rollout.keeper.TICK_S", 0.02)

    async def inside() -> None:
        engines = StandInEngines(0.0, 0.05)
        pool = RolloutPool(engines, timeout_s=1.0, wait_s=1.0)  # type: ignore[arg-type]
        await pool._keeper.begin(replicas)
        made = Bench(pool, engines)
        try:
            await work(made)
        finally:
            made.publishing.close()
            await pool.close()

    asyncio.run(asyncio.wait_for(inside(), 20))


def test_a_synchronous_run_whose_only_engine_dies_in_mid_batch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(made: Bench) -> None:
        await made.publishing.publish(7)
        made.kill(0)
        group = await made.group()  # nobody else publishes: the loop waits for this group
        assert group.completions[0].policy_versions.tolist() == [7]
        assert made.learner.staged == [(7, Holding("model")), (7, Holding("model"))]
        assert made.audited == [0], "the first publish was to an engine that served before"

    bench(monkeypatch, work)


def test_nobody_comes_in_while_the_learner_trains_and_then_with_what_it_has_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(made: Bench) -> None:
        await made.publishing.publish(7)
        async with made.publishing.training():
            made.kill(0)
            waiting = asyncio.ensure_future(made.group())
            await asyncio.sleep(0.3)
            assert made.pool.members()[0]["state"] == "stale"
            assert len(made.learner.staged) == 1
        await waiting
        assert made.pool.version == 8, "the weights are new, and so is their number"
        await made.publishing.publish(8)
        assert made.learner.staged[-1] == (8, Holding("w8")), "nothing is left to be sent"

    bench(monkeypatch, work)


def test_when_the_learner_is_ahead_all_engines_get_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where not every step is published: one number may not stand for two sets of weights."""

    async def work(made: Bench) -> None:
        await made.publishing.publish(7)
        async with made.publishing.training():
            pass
        assert made.pool.version == 7
        made.kill(0)
        await made.group()
        await made.serving(0, 1)
        assert made.pool.version == 8
        assert [actor.loads[-1] for actor in made.engines.actors.values()] == [8, 8]

    bench(monkeypatch, work, 2)


def test_a_publish_that_every_engine_died_of_is_made_again_when_they_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(made: Bench) -> None:
        actor = made.engines.actors[0]
        actor.load_fault = ServiceError("weights arrived damaged")

        async def mend() -> None:
            while made.engines.told.count("start 0") < 2:
                await asyncio.sleep(0.005)
            actor.load_fault = None

        mending = asyncio.ensure_future(mend())
        report = await made.publishing.publish(1)
        await mending
        assert (report.version, made.pool.serving, len(made.learner.staged)) == (1, (0,), 2)
        assert made.learner.released == 2
        assert not made.learner.abandoned

    bench(monkeypatch, work)


def test_weights_that_end_every_engine_again_and_again_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.fleet.FIRST_WAIT_S", 0.01)

    async def work(made: Bench) -> None:
        made.engines.actors[0].load_fault = ServiceError("weights arrived damaged")
        with pytest.raises(NobodyLoadedError, match="weights arrived damaged"):
            await made.publishing.publish(1)
        assert len(made.learner.staged) == TRIES

    bench(monkeypatch, work)


def test_a_learner_that_fails_while_it_lets_somebody_in_is_told_to_whoever_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(made: Bench) -> None:
        await made.publishing.publish(7)
        made.learner.fault = ServiceError("learner rank 0 died")
        made.kill(0)
        with pytest.raises(ServiceError, match="learner rank 0 died"):
            await made.group()

    bench(monkeypatch, work)
