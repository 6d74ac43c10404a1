"""Services come up in the background, serve on while the same is asked for, and are told of by whoever needs them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cluster.services import Services
from orchestrator.config.recipe import Stage
from orchestrator.config.stage_kinds import kind_of
from orchestrator.data.prompts import PromptSets, load_prompts
from rewards.error_budget import ErrorBudget
from rewards.service import RewardPool
from rollout.actors import Device, SharedGpus
from rollout.errors import InputError, ServiceError
from tests.factories import prompt
from tests.orchestrator.factories import recipe

QUIET = SimpleNamespace(line=lambda _: None, warn=lambda _: None)
"""In place of a display."""


def stage_of(**sections: Any) -> Stage:
    return recipe(**sections).stages[0]


class Workers:
    """In place of a reward pool, which would start Ray actors."""

    def __init__(self, rubrics: dict[str, Any], samples: dict[str, Any], fault: str) -> None:
        self.rubrics, self.samples, self.fault = set(rubrics), set(samples), fault
        self.budget = ErrorBudget(1.0)
        self.closed = False

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Workers]:
    pools: list[Workers] = []

    async def start(rubrics: dict[str, Any], settings: Any, samples: dict[str, Any], **_: Any) -> Workers:
        pools.append(Workers(rubrics, samples, "no such function" if "broken" in rubrics else ""))
        await asyncio.sleep(0)
        if pools[-1].fault:
            raise InputError(pools[-1].fault)
        return pools[-1]

    monkeypatch.setattr(RewardPool, "start", start)
    return pools


def with_services(work: Callable[[Services], Awaitable[None]]) -> None:
    async def run() -> None:
        services = Services("cpu", 1.0, QUIET)  # type: ignore[arg-type]
        try:
            await work(services)
        finally:
            await services.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def asking(*rubrics: str) -> PromptSets:
    return PromptSets(prompts={name: [prompt(rubric=name)] for name in rubrics}, skipped={})


RUBRICS = {"rubrics": {name: {"accuracy": 1.0} for name in ("a", "b", "broken")}, "max_error_rate": 0.25}


def test_workers_hold_the_rubrics_that_are_asked_for_and_serve_the_next_stage_that_asks_for_the_same(
    started: list[Workers],
) -> None:
    stage = stage_of(rewards=RUBRICS, data={"sources": {"x": {"task": "arithmetic", "rubric": "a"}}})

    async def work(services: Services) -> None:
        await services.begin_rewards(stage, asking("a"))
        first: Any = await services.rewards()
        assert (first.rubrics, first.samples) == ({"a"}, {"a"})
        first.budget.num_errors = 7
        await services.begin_rewards(stage, asking("a"))
        assert await services.rewards() is first
        # The failures of one stage are not those of the next.
        assert (first.budget.num_errors, first.budget.max_error_rate) == (0, 0.25)
        await services.begin_rewards(stage, asking("a"), asking("b"))
        second: Any = await services.rewards()
        assert (first.closed, second.closed, second.rubrics) == (True, False, {"a", "b"})

    with_services(work)
    assert [pool.closed for pool in started] == [True, True]


def test_workers_come_up_in_the_background_and_a_fault_is_told_to_whoever_needs_them(started: list[Workers]) -> None:
    stage = stage_of(rewards=RUBRICS, data={"sources": {"x": {"task": "arithmetic", "rubric": "a"}}})

    async def work(services: Services) -> None:
        await services.begin_rewards(stage, asking("broken"))
        services.check()
        assert started == []
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(InputError, match="no such function"):
            services.check()
        with pytest.raises(InputError, match="no such function"):
            await services.rewards()

    with_services(work)


def test_the_clock_of_waiting_runs_while_a_service_comes_up() -> None:
    order = []

    class Clock:
        @contextmanager
        def running(self) -> Iterator[None]:
            order.append("waiting")
            yield
            order.append("not waiting")

    async def start() -> None:
        await asyncio.sleep(0)
        order.append("up")

    async def wait() -> None:
        services = Services("cpu", 1.0, QUIET, waited=Clock())  # type: ignore[arg-type]
        await services._rewards.begin(None, start)  # type: ignore[arg-type]
        await services.rewards()

    asyncio.run(wait())
    assert order == ["waiting", "up", "not waiting"]


class Letters:
    """In place of a tokenizer."""

    def __call__(self, texts: list[str], **_: Any) -> dict[str, Any]:
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def test_the_reward_of_a_source_that_comes_later_by_schedule_is_tried_at_the_start(started: list[Workers]) -> None:
    """Model rewards of general questions in the last steps: a model that does not load is told before the first."""
    sources = {"x": {"task": "arithmetic", "limit": 3, "rubric": "a"}}
    late = {"task": "arithmetic", "limit": 3, "rubric": "broken", "weight": 0.0}
    change = {"from_step": 5, "data": {"sources": {"general": {"weight": 1.0}}}}
    stage = stage_of(
        rewards=RUBRICS,
        data={"sources": {**sources, "general": late}},
        stages=[{"name": "rl", "kind": "grpo", "schedule": [change]}],
    )

    async def work(services: Services) -> None:
        await services.begin_rewards(stage, load_prompts(stage.data.sources, stage, Letters(), seed=1))
        with pytest.raises(InputError, match="no such function"):
            await services.rewards()

    with_services(work)
    assert [pool.rubrics for pool in started] == [{"a", "broken"}]


@pytest.mark.parametrize(
    ("sections", "ranks_have", "engines_have"),
    [
        ({}, 4, 4),
        ({"loop": {"max_staleness": 1}}, 2, 2),
        ({"loop": {"max_staleness": 1}, "learner": {"ranks": 3}}, 1, 2),
        ({"loop": {"max_staleness": 1}, "learner": {"threads": 3}, "rollout": {"threads": 1}}, 3, 1),
    ],
)
def test_engines_and_ranks_share_the_cores_when_they_compute_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], ranks_have: int, engines_have: int
) -> None:
    threads = []

    async def start(*given: Any, **settings: Any) -> None:
        threads.append(settings["threads"])

    monkeypatch.setattr("orchestrator.cluster.specs.cores_per_node", lambda: 4)
    monkeypatch.setattr("orchestrator.cluster.services.LearnerGroup.start", start)
    monkeypatch.setattr("orchestrator.cluster.services.RolloutPool.start", start)

    async def begin() -> None:
        services, stage = Services("cpu", 1.0, QUIET), stage_of(**sections)  # type: ignore[arg-type]
        await services.begin_learner(stage)
        await services.begin_rollout(stage, asyncio.get_running_loop().create_future())
        await services.learner()
        await services.rollout()

    asyncio.run(begin())
    assert threads == [ranks_have, engines_have]


class Pool:
    """In place of a rollout pool."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.scaled: list[int] = []

    async def scale(self, replicas: int) -> None:
        self.replicas = replicas
        self.scaled.append(replicas)

    async def close(self) -> None: ...


def test_engines_come_and_go_while_the_others_stay_and_the_number_holds_for_later_stages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools: list[Pool] = []

    async def start(*_: Any, replicas: int, **__: Any) -> Pool:
        pools.append(Pool(replicas))
        return pools[-1]

    monkeypatch.setattr("orchestrator.cluster.specs.cores_per_node", lambda: 4)
    monkeypatch.setattr("orchestrator.cluster.services.RolloutPool.start", start)
    monkeypatch.setattr(Services, "_share", no_sharing)

    async def work(services: Services) -> None:
        async def stage(replicas: int) -> None:
            model = asyncio.get_running_loop().create_future()
            await services.begin_rollout(stage_of(rollout={"replicas": replicas}), model)
            await services.rollout()

        with pytest.raises(ServiceError, match="ask again in a stage that samples"):
            await services.scale({"rollout": 2})
        await stage(1)
        await stage(3)
        assert [pool.replicas for pool in pools] == [3], "the engine that was there stays"
        assert await services.scale({"rollout": 2}) == {"rollout": [3, 2]}
        await stage(4)
        assert (len(pools), pools[0].scaled) == (1, [3, 2]), "what was asked for live holds"
        with pytest.raises(InputError, match="judges = 2: there is no such service"):
            await services.scale({"rollout": 1, "judges": 2})
        assert pools[0].replicas == 2, "all or nothing"

    with_services(work)


class Group:
    """A placement group that counts."""

    def __init__(self, bundles: list[dict[str, float]]) -> None:
        self.bundle_count = len(bundles)


class Sharing:
    """A pipeline of stages on a cluster of so many GPUs, and what of it starts, sleeps, closes and is reserved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
        self.told: list[str] = []
        monkeypatch.setattr("orchestrator.cluster.specs.planned_gpus", lambda: gpus)
        monkeypatch.setattr("orchestrator.cluster.services.gpus", lambda: gpus)
        monkeypatch.setattr("orchestrator.cluster.specs.cores_per_node", lambda: 4)
        monkeypatch.setattr("orchestrator.cluster.services.reserve", self.reserve)
        monkeypatch.setattr("orchestrator.cluster.services.unreserve", lambda _: self.told.append("unreserved"))
        monkeypatch.setattr("orchestrator.cluster.services.LearnerGroup.start", self.starting("ranks"))
        monkeypatch.setattr("orchestrator.cluster.services.RolloutPool.start", self.starting("engines"))

    async def reserve(self, bundles: list[dict[str, float]], *_: Any) -> Group:
        self.told.append(f"reserved {len(bundles)} x {bundles[0]['GPU']:g}")
        return Group(bundles)

    def starting(self, what: str) -> Any:
        told = self.told

        class Started:
            async def close(self) -> None:
                told.append(f"{what} closed")

            async def sleep(self) -> None:
                told.append(f"{what} asleep")

        async def start(*_: Any, shared: SharedGpus | None = None, **__: Any) -> Started:
            told.append(f"{what} at {shared.share:g}" if shared else f"{what} apart")
            return Started()

        return start

    def run(self, *stages: Stage) -> list[str]:
        async def begin() -> None:
            services = Services("cuda", 1.0, QUIET)  # type: ignore[arg-type]
            for stage in stages:
                await services.begin_learner(stage)
                if kind_of(stage).generates:
                    model: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                    await services.begin_rollout(stage, model)
                    await services.rollout()
                await services.learner()
                await services.take_gpus()
                self.told.append("|")
            await services.close()

        asyncio.run(begin())
        return " ".join(self.told).split(" | ")


def gpu_stage(name: str, kind: str = "grpo", **sections: Any) -> Stage:
    return recipe(**sections, stages=[{"name": name, "kind": kind}]).stages[0]


def test_on_one_gpu_engine_and_rank_take_turns_from_stage_to_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = {"data": {"sources": {"a": {"task": "manners", "limit": 50}}}}
    stages = (gpu_stage("one"), gpu_stage("rewards", "reward_model", **pairs), gpu_stage("two"))
    assert Sharing(monkeypatch, gpus=1).run(*stages) == [
        "reserved 1 x 1 ranks at 0.5 engines at 0.5 engines asleep",
        # Its ranks are where the engine sleeps, which comes back for the stage behind it. Ranks begin anew with each stage.
        "ranks closed ranks at 0.5 engines asleep",
        "ranks closed ranks at 0.5 engines asleep",
        "engines closed ranks closed unreserved",
    ]


def test_with_a_gpu_for_each_nobody_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Sharing(monkeypatch, gpus=2).run(gpu_stage("one"))
    assert told == ["ranks apart engines apart", "engines closed ranks closed"]


def test_engines_give_way_to_ranks_that_need_their_gpus_and_do_not_ask_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = {"data": {"sources": {"a": {"task": "manners", "limit": 50}}}}
    wide = gpu_stage("rewards", "reward_model", learner={"ranks": 3}, **pairs)
    narrow = gpu_stage("more", "reward_model", **pairs)
    apart = {"loop": {"max_staleness": 1}}
    told = Sharing(monkeypatch, gpus=3).run(gpu_stage("one", **apart), narrow, wide, gpu_stage("two", **apart))
    assert told == [
        "ranks apart engines apart",
        "ranks closed ranks apart",
        "engines closed ranks closed ranks apart",
        "ranks closed ranks apart engines apart",
        "engines closed ranks closed",
    ]


def test_a_stage_that_cannot_share_ends_what_is_shared_first(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = gpu_stage("two", rollout={"share_gpus": False})
    assert Sharing(monkeypatch, gpus=1).run(gpu_stage("one"), apart)[1] == (
        "engines closed ranks closed unreserved ranks apart engines apart"
    )


def test_another_number_of_ranks_is_reserved_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    more = gpu_stage("two", learner={"ranks": 2}, rollout={"replicas": 2})
    assert Sharing(monkeypatch, gpus=2).run(gpu_stage("one", rollout={"share_gpus": True}), more)[1] == (
        "engines closed ranks closed unreserved reserved 2 x 1 ranks at 0.5 engines at 0.5 engines asleep"
    )


def test_another_part_for_reward_models_is_reserved_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models would find no place beside a whole GPU that the stage before had shared."""
    part = gpu_stage("two", rollout={"gpus": 0.8})
    assert Sharing(monkeypatch, gpus=1).run(gpu_stage("one"), part)[1] == (
        "engines closed ranks closed unreserved reserved 1 x 0.8 ranks at 0.4 engines at 0.4 engines asleep"
    )


@pytest.mark.parametrize(
    ("device", "zero_stage", "started"), [("cpu", 0, 1), ("cpu", 1, 1), ("cpu", 2, 2), ("cpu", 3, 2), ("cuda", 0, 2)]
)
def test_ranks_that_would_hold_on_to_a_model_end_with_its_stage(
    monkeypatch: pytest.MonkeyPatch, device: Device, zero_stage: int, started: int
) -> None:
    starts: list[int] = []

    async def start(**settings: Any) -> Workers:
        starts.append(settings["ranks"])
        return Workers({}, {}, "")

    monkeypatch.setattr("orchestrator.cluster.specs.cores_per_node", lambda: 4)
    monkeypatch.setattr("orchestrator.cluster.services.LearnerGroup.start", start)
    monkeypatch.setattr(Services, "_share", no_sharing)
    stages = recipe(
        learner={"zero_stage": zero_stage},
        stages=[{"name": "a", "kind": "grpo"}, {"name": "b", "kind": "grpo"}],
    ).stages

    async def begin() -> None:
        services = Services(device, 1.0, QUIET)  # type: ignore[arg-type]
        for stage in (stages[0], stages[0], stages[1]):
            await services.begin_learner(stage)
            await services.learner()

    asyncio.run(begin())
    assert len(starts) == started


async def no_sharing(services: Services, stage: Stage) -> None:
    """In place of what asks the cluster for its GPUs."""
