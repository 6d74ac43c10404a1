"""Services come up in the background, serve on while the same is asked for, and are told of by whoever needs them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.cluster.services import Services
from orchestrator.config.recipe import Stage
from orchestrator.data.prompts import PromptSets, load_prompts
from rewards.error_budget import ErrorBudget
from rewards.service import RewardPool
from rollout.errors import InputError
from tests.factories import prompt
from tests.orchestrator.factories import recipe


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
        services = Services("cpu", 1.0, None)  # type: ignore[arg-type]
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
        services = Services("cpu", 1.0, None, waited=Clock())  # type: ignore[arg-type]
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
        services, stage = Services("cpu", 1.0, None), stage_of(**sections)  # type: ignore[arg-type]
        await services.begin_learner(stage)
        await services.begin_rollout(stage, asyncio.get_running_loop().create_future())
        await services.learner()
        await services.rollout()

    asyncio.run(begin())
    assert threads == [ranks_have, engines_have]
