"""What the reward service does when a worker, a model or a task of its own stands still or fails. Without Ray: actors are played."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from orchestrator.sampling import GroupRequest, scored_group
from rewards import outage, service
from rewards.dispatch import Worker
from rewards.resources import ResourceSettings
from rewards.scorer_actors import ScorerActor
from rewards.service import RewardPool
from rewards.types import FunctionSpec, GroupScore, Sample, Score, ScoredGroup, Unavailable
from rollout.errors import ServiceError
from rollout.types import Sampling
from tests.factories import prompt
from tests.orchestrator.samplers import Engine

RUBRICS = {"r": [FunctionSpec(name="accuracy", label="accuracy"), FunctionSpec(name="m.py:f", label="f", group=True)]}
SAMPLE = Sample(prompt="p", completion="c")


class Method:
    """A method of a played actor: `remote` calls it, as a coroutine or a stream of references."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call

    def options(self, **_: Any) -> "Method":
        return self


class Actor:
    """A reward worker. `freeze`: it answers nothing any more, not even with a sign of life; until it is killed."""

    def __init__(self) -> None:
        self.frozen = asyncio.Event()
        self.thinks = False
        """Whether it says that it lives and nothing else."""
        self.down = False
        """Whether what scores cannot be reached from it."""
        self.no_process = False
        """Whether functions that see the group have no process to run in."""
        self.bad = ""
        """A completion that can never be scored."""
        self.kills = 0
        self.ready = Method(lambda: asyncio.ensure_future(self._ready()))  # asked for and not always read
        self.score = Method(self._score)
        self.score_group = Method(self._score_group)
        self.close = Method(self._ready)

    async def _alive(self) -> None:
        while self.frozen.is_set():
            await asyncio.sleep(0.005)

    async def _ready(self) -> None:
        await self._alive()

    async def _score(self, batch: list[Any]) -> AsyncIterator[Awaitable[list[tuple[int, Score]]]]:
        while self.thinks:
            await asyncio.sleep(0.01)
            yield answer([])
        await self._alive()
        yield answer([(i, self._scored(sample)) for i, (_, sample) in enumerate(batch)])

    def _scored(self, sample: Sample) -> Score:
        if self.down or sample.completion == self.bad:
            return Score(value=0.0, status="error", breakdown={}, seconds=0.0, error="f: nobody answers")
        return Score(value=1.0, status="ok", breakdown={"accuracy": 1.0}, seconds=0.0)

    async def _score_group(self, _: str, samples: list[Sample]) -> AsyncIterator[Awaitable[list[GroupScore]]]:
        await self._alive()
        yield answer([])
        if self.down:
            raise ServiceError("f: nobody answers")
        if self.no_process:
            cause = Unavailable("no process can be forked")
            raise RayTaskError("score_group", f"Traceback\nUnavailable: {cause}", cause)
        yield answer([GroupScore({"f": 2.0}) for _ in samples])


async def answer(value: Any) -> Any:
    return value


class Rig:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: int = 2) -> None:
        self.said: list[str] = []
        self.pool = RewardPool(RUBRICS, ResourceSettings(), 0.1, 0.5, tell=self.said.append, outage_s=60.0)
        self.actors = [Actor() for _ in range(workers)]
        self.pool._dispatcher.workers = [Worker(actor, f"reward-{i}") for i, actor in enumerate(self.actors)]
        monkeypatch.setattr(service.ray, "kill", self.kill)
        monkeypatch.setattr(service, "WATCH_S", 0.05)
        monkeypatch.setattr(outage, "FIRST_PAUSE_S", 0.02)
        self.pool._background.spawn(self.pool._hand_out())

    def reach(self, *, down: bool) -> None:
        for actor in self.actors:
            actor.down = down

    async def group(self, number: int, engine: Engine) -> ScoredGroup:
        asked = prompt(f"s/{number}", rubric="r")
        request = GroupRequest(group_id=str(number), prompt=asked, sampling=Sampling(n=4))
        return await scored_group(engine, self.pool, request)

    def kill(self, actor: Actor, no_restart: bool = True) -> None:
        actor.kills += not no_restart
        actor.frozen.clear()
        actor.thinks = False


def run(monkeypatch: pytest.MonkeyPatch, test: Callable[[Rig], Coroutine[Any, Any, None]], workers: int = 2) -> None:
    async def whole() -> None:
        rig = Rig(monkeypatch, workers)
        await asyncio.wait_for(test(rig), 10)
        await rig.pool.close()

    asyncio.run(whole())


@pytest.mark.parametrize("where", ["send", "stream", "answer"])
def test_an_exception_on_the_way_to_a_worker_is_raised_to_whoever_waits(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async def test(rig: Rig) -> None:
        async def broken(_: Any) -> AsyncIterator[Awaitable[Any]]:
            if where == "stream":
                raise KeyError("odd")
            yield answer([(0, None)])  # no score

        def send(_: Any) -> Any:
            raise KeyError("odd")

        for actor in rig.actors:
            actor.score = Method(send if where == "send" else broken)
        asked = [asyncio.ensure_future(rig.pool.score("r", SAMPLE)) for _ in range(200)]
        for each in asked:
            with pytest.raises(ServiceError, match=r"KeyError|NoneType"):
                await each
        with pytest.raises(ServiceError, match=r"reward service.*(KeyError|NoneType)"):
            rig.pool.raise_failure()
        with pytest.raises(ServiceError, match=r"KeyError|NoneType"):
            await rig.pool.score("r", SAMPLE)

    run(monkeypatch, test)


def test_an_exception_in_the_handing_out_is_raised_to_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        def choose(_: Any) -> Any:
            raise ZeroDivisionError("a defect")

        monkeypatch.setattr(rig.pool._dispatcher, "_free_worker", choose)
        for _ in range(2):
            with pytest.raises(ServiceError, match="ZeroDivisionError: a defect"):
                await rig.pool.score("r", SAMPLE)

    run(monkeypatch, test)


def test_a_silent_worker_that_has_group_functions_alone_is_killed_and_another_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(rig: Rig) -> None:
        rig.actors[0].frozen.set()
        assert (await rig.pool.score_whole("r", [SAMPLE, SAMPLE]))[1].values == {"f": 2.0}
        assert [actor.kills for actor in rig.actors] == [1, 0]
        while rig.pool.metrics()["rewards/down"]:
            await asyncio.sleep(0.01)
        assert rig.said == ["reward-0 does not answer; it is killed and started again"]

    run(monkeypatch, test)


def test_a_silent_worker_that_has_nothing_to_do_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        rig.pool._background.spawn(rig.pool._watch())
        rig.actors[1].frozen.set()
        while not rig.actors[1].kills:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert [actor.kills for actor in rig.actors] == [0, 1]

    run(monkeypatch, test)


def test_a_worker_that_lives_and_never_answers_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        rig.pool._stall_s = 0.3
        rig.actors[0].thinks = True
        assert (await rig.pool.score("r", SAMPLE)).status == "ok"
        assert rig.actors[0].kills == 1

    run(monkeypatch, test, workers=1)


def test_no_group_is_lost_to_an_outage_and_none_is_begun_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        engine = Engine()
        first = await rig.group(0, engine)
        assert first.rewards == (3.0,) * 4  # accuracy and the function that sees the group
        rig.reach(down=True)
        begun = [asyncio.create_task(rig.group(number, engine)) for number in range(1, 40)]
        while not rig.said:
            await asyncio.sleep(0.01)
        later = [asyncio.create_task(rig.group(number, engine)) for number in range(40, 60)]
        await asyncio.sleep(0.2)
        assert (len(engine.asked), any(task.done() for task in (*begun, *later))) == (40, False)
        rig.reach(down=False)
        groups = await asyncio.gather(*begun, *later)
        assert [group.prompt.prompt_id for group in groups] == [f"s/{number}" for number in range(1, 60)]
        assert {(group.rewards, group.num_errors) for group in groups} == {((3.0,) * 4, 0)}
        assert rig.pool.budget.num_errors == 0
        assert "is down (f: nobody answers)" in rig.said[0]

    run(monkeypatch, test)


def test_where_no_process_can_be_had_for_a_groups_function_its_group_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        for actor in rig.actors:
            actor.no_process = True
        waiting = asyncio.create_task(rig.group(0, Engine()))  # nothing has been scored before
        while not rig.said:
            await asyncio.sleep(0.01)
        assert "no process can be forked" in rig.said[0]
        for actor in rig.actors:
            actor.no_process = False
        assert (await waiting).rewards == (3.0,) * 4

    run(monkeypatch, test)


def test_who_waits_when_the_pool_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        rig.pool._timeout_s = 30.0
        rig.actors[0].thinks = True
        asked = [asyncio.ensure_future(rig.pool.score("r", SAMPLE)) for _ in range(100)]
        await asyncio.sleep(0.05)
        await rig.pool.close()
        told = await asyncio.gather(*asked, return_exceptions=True)
        # A score that came in that very moment is one.
        assert {str(each) for each in told if not isinstance(each, Score)} == {"the reward service was closed"}

    run(monkeypatch, test, workers=1)


def test_a_prompt_that_can_never_be_scored_is_unscored_and_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        await rig.group(0, Engine())
        for actor in rig.actors:
            actor.bad = "3"
        group = await rig.group(1, Engine())
        assert (group.rewards, group.num_errors) == ((3.0,) * 3, 1)
        assert rig.said == []

    run(monkeypatch, test)


class Model:
    def __init__(self) -> None:
        self.stood = 0.0
        self.silent = False
        self.kills = 0
        self.stands_s = Method(self._stands)

    async def _stands(self) -> float:
        while self.silent:
            await asyncio.sleep(0.005)
        return self.stood


def test_a_model_that_hangs_is_killed_and_one_that_loads_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(service.ray, "kill", lambda actor, no_restart: killed.append((actor, no_restart)))

    async def test() -> None:
        model = Model()
        scorer = ScorerActor("reward-model-0", "helpful", model, start_timeout_s=30.0)
        model.silent = True
        assert await scorer.look(0.05) == ""  # it loads
        model.silent = False
        assert await scorer.look(0.05) == ""
        model.stood = 599.0
        assert await scorer.look(0.05) == ""
        model.stood = 601.0
        assert "reward-model-0 (helpful) has stood for 601 s; it is killed" in await scorer.look(0.05)
        model.stood, model.silent = 0.0, True
        assert await scorer.look(0.05) == ""  # its restart
        model.silent = False
        await scorer.look(0.05)
        model.silent = True
        assert "does not answer" in await scorer.look(0.05)
        scorer.start_timeout_s = 0.0
        assert "does not answer" in await scorer.look(0.05)
        assert killed == [(model, False)] * 3

    asyncio.run(asyncio.wait_for(test(), 10))
