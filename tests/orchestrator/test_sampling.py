"""From a prompt to a scored group: order, bounds, failures."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.clock import PhaseClocks
from orchestrator.sampling import GroupRequest, scored_group, scored_groups
from rewards.error_budget import ErrorBudget
from rewards.types import ScoredGroup
from rollout.errors import GroupError, ServiceError
from rollout.types import RolloutGroup, Sampling
from tests.factories import prompt
from tests.orchestrator.samplers import Engine, Scorers


def requests(count: int, n: int = 2) -> list[GroupRequest]:
    return [
        GroupRequest(group_id=f"test/{i}", prompt=prompt(f"s/{i}"), sampling=Sampling(n=n, seed=i))
        for i in range(count)
    ]


def sampled(engine: Any, scorers: Any, asked: Sequence[GroupRequest], at_once: int) -> list[ScoredGroup]:
    return asyncio.run(scored_groups(engine, scorers, asked, at_once=lambda: at_once))


def test_groups_come_in_the_order_of_their_requests_whichever_is_done_first() -> None:
    class Uneven(Engine):
        async def generate(self, group_id: str, *rest: Any) -> RolloutGroup:
            await asyncio.sleep(0.02 if group_id == "test/0" else 0)
            return await super().generate(group_id, *rest)

    groups = sampled(Uneven(), Scorers(), requests(3), at_once=3)
    assert [group.group.group_id for group in groups] == ["test/0", "test/1", "test/2"]


def test_every_completion_is_told_of_before_its_group_is_whole() -> None:
    (group,) = sampled(Engine(), Scorers(), requests(1), at_once=1)
    assert list(group.rewards) == [2.0, 2.0]


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (3, 3), (0, 1)])
def test_no_more_are_generated_at_once_than_was_said(at_once: int, most: int) -> None:
    engine = Engine()
    sampled(engine, Scorers(), requests(8), at_once)
    assert engine.most == most


def test_the_engines_go_on_while_the_last_scores_of_a_group_come_in() -> None:
    """A place is held while completions are generated, not while they are scored."""
    scorers = Scorers()
    sampled(Engine(), scorers, requests(4), at_once=1)
    assert scorers.most_open > 1


def test_slow_scorers_slow_generation_down_where_groups_count_until_they_are_scored() -> None:
    scorers = Scorers()
    asyncio.run(scored_groups(Engine(), scorers, requests(6), at_once=lambda: 2, scored_at_once=True))
    assert scorers.most_open == 2


def test_the_first_failure_is_told_as_what_it_is_and_ends_the_others() -> None:
    """Not as a group of exceptions, which nobody at the end of a command knows."""

    class Broken(Engine):
        async def generate(self, group_id: str, *_: Any) -> RolloutGroup:
            if group_id == "test/1":
                raise ServiceError("no engine is left")
            return await asyncio.Future()

    scorers = Scorers()
    with pytest.raises(ServiceError, match="no engine is left"):
        sampled(Broken(), scorers, requests(2), at_once=2)
    # What was already being scored for it is not scored for nobody.
    assert sorted(scorers.cancelled) == ["s/0", "s/1"]


def test_a_group_that_engines_fail_on_which_are_well_is_empty_and_no_end_of_the_others() -> None:
    class Choosy(Engine):
        async def generate(self, group_id: str, *given: Any) -> RolloutGroup:
            if group_id == "test/1":
                raise GroupError("group test/1 could not be generated")
            return await super().generate(group_id, *given)

    groups = sampled(Choosy(), Scorers(), requests(3), at_once=2)
    assert [len(group.group.completions) for group in groups] == [2, 0, 2]
    assert groups[1].num_errors == 2
    budget = ErrorBudget(0.2)
    with pytest.raises(ServiceError, match=r"could not be scored .*group test/1 could not be generated"):
        asyncio.run(scored_groups(Choosy(), Scorers(), requests(3, n=9), at_once=lambda: 2, budget=budget))


def test_more_are_generated_at_once_when_engines_have_come() -> None:
    engine = Engine()

    async def work() -> None:
        sizes = iter([1, 1, 1, 1])
        await scored_groups(engine, Scorers(), requests(12), at_once=lambda: next(sizes, 3))

    asyncio.run(work())
    assert engine.most == 3


def test_generating_and_scoring_are_timed() -> None:
    clocks = PhaseClocks()
    asyncio.run(scored_group(Engine(), Scorers(), requests(1)[0], clocks=clocks))
    times = clocks.step()
    assert times["time/score_s"] >= 0.01
    assert times["time/generate_s"] > 0
