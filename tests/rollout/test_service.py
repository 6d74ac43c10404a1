"""What becomes of groups, of publishes and of the replicas themselves when some of them fail. Engines are written in the tests."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from rollout.errors import GroupError, InputError, NobodyLoadedError, ServiceError
from rollout.fleet import FIRST_WAIT_S
from rollout.service import FAILED_IN_ROW, INTERRUPTIONS, Audit, RolloutPool
from rollout.types import Prompt, RolloutGroup, Sampling
from rollout.weights.manifest import Holding, WeightManifest
from tests.rollout.stand_ins import Actor, Sender, StandInEngines

ASKED = Prompt(prompt_id="p", source="s", rubric="r", text="1", token_ids=(1,), answer="")
ONE = Sampling(n=1, max_tokens=4)


class Bench:
    """A pool of stand-ins that is up, and what it told."""

    def __init__(self, pool: RolloutPool, engines: StandInEngines, told: list[str]) -> None:
        self.pool, self.engines, self.told = pool, engines, told

    def __getitem__(self, number: int) -> Actor:
        return self.engines.actors[number]

    async def group(self, name: str = "g") -> RolloutGroup:
        return await self.pool.generate(name, ASKED, ONE)

    async def publish(self, version: int, **how: Any) -> Any:
        sent = WeightManifest(version=version, backend="shm", num_bytes=0, holding=Holding(f"w{version}"))
        return await self.pool.load(sent, Sender(), **how)

    async def until(self, ready: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not ready():
                await asyncio.sleep(0.005)

    def state(self, number: int) -> str:
        return next((m["state"] for m in self.pool.members() if m["name"] == f"rollout-{number}"), "")


Work = Callable[[Bench], Awaitable[Any]]
With = Callable[..., Any]


@pytest.fixture
def with_pool(monkeypatch: pytest.MonkeyPatch) -> With:
    monkeypatch.setattr("ray.cancel", lambda _: None)
    monkeypatch.setattr("rollout.keeper.TICK_S", 0.02)

    def run(work: Work, replicas: int = 2, *starts: Any, timeout_s: float = 0.4, wait_s: float = 0.5) -> Any:
        async def inside() -> Any:
            engines, told = StandInEngines(*starts), []  # type: ignore[var-annotated]
            pool = RolloutPool(engines, timeout_s=timeout_s, wait_s=wait_s, tell=told.append, say=told.append)  # type: ignore[arg-type]
            await pool._keeper.begin(replicas)
            try:
                return await work(Bench(pool, engines, told))
            finally:
                await pool.close()

        return asyncio.run(asyncio.wait_for(inside(), 20))

    return run


def away() -> ServiceError:
    problem = ServiceError("the actor is unavailable")
    problem.__cause__ = ActorUnavailableError("restarting", None)
    return problem


def gone() -> ServiceError:
    problem = ServiceError("the actor died")
    problem.__cause__ = ActorDiedError()
    return problem


# --- Groups


def test_a_poison_prompt_is_dropped_after_two_members_which_both_stay(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        for actor in bench.engines.actors.values():
            actor.refuses = lambda group: group == "poison"
        with pytest.raises(GroupError, match="group poison could not be generated: ValueError: poison"):
            await bench.group("poison")
        assert sum(actor.asked.count("poison") for actor in bench.engines.actors.values()) == 2
        assert bench.pool.serving == (0, 1, 2)
        await bench.group("next")
        assert [member["owed_tokens"] for member in bench.pool.members()] == [0, 0, 0]

    with_pool(work, 3)


def test_the_only_member_is_tried_twice(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[0].refuses = lambda _: True
        with pytest.raises(GroupError):
            await bench.group()
        assert (bench[0].asked, bench.pool.serving) == (["g", "g"], (0,))

    with_pool(work, 1)


def test_a_member_that_fails_what_others_complete_is_started_anew(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[0].refuses = lambda _: bench[0].process == 1
        for number in range(3):
            bench[1].hold.clear()
            busy = asyncio.ensure_future(bench.group(f"busy{number}"))
            group = asyncio.ensure_future(bench.group(f"g{number}"))
            await asyncio.sleep(0.01)
            bench[1].hold.set()
            await asyncio.gather(busy, group)
        await bench.until(lambda: bench.state(0) == "serving" and bench[0].process == 2)
        assert "put down 0" in bench.engines.told
        assert any("fails groups that others complete" in line for line in bench.told)

    with_pool(work)


def test_when_no_group_at_all_is_completed_it_is_no_prompt_that_is_at_fault(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        for actor in bench.engines.actors.values():
            actor.refuses = lambda _: True
        for number in range(FAILED_IN_ROW - 1):
            with pytest.raises(GroupError):
                await bench.group(f"g{number}")
        with pytest.raises(ServiceError, match=f"{FAILED_IN_ROW} groups in a row failed, none came back") as problem:
            await bench.group("last")
        assert not isinstance(problem.value, GroupError)

    with_pool(work)


def test_an_engine_that_dies_hands_its_groups_on_and_comes_back(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[0].hold.clear()
        bench[1].hold.clear()
        groups = [asyncio.ensure_future(bench.group(f"g{i}")) for i in range(6)]
        await bench.until(lambda: len(bench[0].asked) == 3)
        bench[0].fault = ServiceError("EngineDeadError")
        bench[0].hold.set()
        await bench.until(lambda: bench[0].process == 2)
        bench[1].hold.set()
        assert {group.group_id for group in await asyncio.gather(*groups)} == {f"g{i}" for i in range(6)}
        assert any(line.startswith("rollout replica 0: serving → dead, 1 of 2 serve") for line in bench.told)
        assert bench.engines.told.count("put down 0") == 1

    with_pool(work)


def test_one_that_cannot_be_reached_for_a_moment_has_not_died(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[0].fault = away()
        group = await bench.group()
        assert (group.replica, bench.state(0)) == (1, "suspect")
        bench[0].fault = None
        await bench.until(lambda: bench.state(0) == "serving")
        assert (bench[0].process, "put down 0" in bench.engines.told) == (1, False)

    with_pool(work)


def test_another_process_behind_the_same_actor_is_a_death_that_ray_has_mended(with_pool: With) -> None:
    """After a kill -9 calls end as those to an actor that is away, and Ray starts its process again by itself."""

    async def work(bench: Bench) -> None:
        bench[0].fault = away()
        await bench.group()
        bench[0].process += 1
        await bench.until(lambda: bench.state(0) == "serving")
        assert bench.engines.told.count("start 0") == 2
        assert "put down 0" not in bench.engines.told, "nothing is left to be ended"

    with_pool(work)


def test_a_group_whose_members_end_under_it_is_given_up_some_time(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        async def die(actor: Actor) -> None:
            while True:
                actor.fault = gone()
                await asyncio.sleep(0)

        dying = [asyncio.ensure_future(die(actor)) for actor in bench.engines.actors.values()]
        with pytest.raises(GroupError):
            await bench.group()
        assert sum(actor.asked.count("g") for actor in bench.engines.actors.values()) == INTERRUPTIONS
        for each in dying:
            each.cancel()

    with_pool(work, INTERRUPTIONS)


def test_a_group_whose_members_are_ended_again_and_again_is_given_up_too(with_pool: With) -> None:
    """Each time by somebody else: it is not to blame, and cannot go on for ever."""

    async def work(bench: Bench) -> None:
        keeper = bench.pool._keeper

        async def end_them() -> None:
            while True:
                for member in keeper.fleet:
                    if bench[member.id].asked[-1:] == ["g"]:
                        bench[member.id].asked.append("ended")
                        keeper.put_down(member, member.life, "killed", end=True)
                await asyncio.sleep(0.005)

        for actor in bench.engines.actors.values():
            actor.hold.clear()
        ending = asyncio.ensure_future(end_them())
        with pytest.raises(GroupError, match="killed"):
            await bench.group()
        ending.cancel()
        assert sum(actor.asked.count("g") for actor in bench.engines.actors.values()) == INTERRUPTIONS

    with_pool(work, INTERRUPTIONS + 1)


def test_a_prompt_that_engines_hang_on_is_dropped_after_two(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        for actor in bench.engines.actors.values():
            actor.hangs = lambda group: group == "poison"
        with pytest.raises(GroupError, match="has said nothing for"):
            await bench.group("poison")
        await bench.until(lambda: bench.pool.serving == (0, 1, 2))
        assert sorted(told for told in bench.engines.told if "put" in told) == ["put down 0", "put down 1"]

    with_pool(work, 3)


@pytest.mark.parametrize("what", ["frozen", "core_frozen"])
def test_one_that_hangs_is_ended_in_time_and_its_groups_go_on(with_pool: With, what: str) -> None:
    async def work(bench: Bench) -> None:
        setattr(bench[0], what, True)
        group = await bench.group()
        assert group.replica == 1
        assert any("rollout.timeout_s" in line for line in bench.told)
        assert "put down 0" in bench.engines.told
        await bench.until(lambda: bench.state(0) == "serving")

    with_pool(work)


def test_one_that_answers_and_gets_on_is_not_dead_however_long_its_queue(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[0].hold.clear()
        group = asyncio.ensure_future(bench.group())
        for _ in range(40):
            bench[0].tokens += 1
            await asyncio.sleep(0.05)
        assert bench.state(0) == "serving"
        bench[0].hold.set()
        await group

    with_pool(work, 1)


def test_one_that_answers_and_does_not_get_on_is_ended(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[0].hold.clear()
        group = asyncio.ensure_future(bench.group())
        await bench.until(lambda: "put down 0" in bench.engines.told)
        assert any("has finished no token for" in line for line in bench.told)
        bench[0].hold.set()
        await group

    with_pool(work, 1)


def test_with_none_left_a_group_waits_for_one_to_come_back(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[0].fault = ServiceError("EngineDeadError")
        group = await bench.group()
        assert bench[0].process == 2
        assert group.replica == 0

    with_pool(work, 1, 0.0, 0.3)


def test_when_none_comes_back_in_time_the_reason_is_told(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[0].fault = ServiceError("EngineDeadError")
        reason = (
            r"none of the 1 rollout replicas has served for 0 s \(cluster.start_timeout_s\): .*0 is dead: out of memory"
        )
        with pytest.raises(ServiceError, match=reason):
            await bench.group()
        assert any(f"starts again in {FIRST_WAIT_S:.0f} s" in line for line in bench.told)

    with_pool(work, 1, 0.0, ServiceError("out of memory"), wait_s=0.3)


# --- Publishes


def test_one_that_was_started_anew_serves_nothing_before_it_has_the_weights_of_now(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        await bench.publish(3)
        bench[0].fault = ServiceError("EngineDeadError")
        await bench.group()
        await bench.until(lambda: bench.state(0) == "stale")
        assert [(await bench.group(f"g{i}")).replica for i in range(4)] == [1] * 4
        await bench.pool.joiners()
        members = await bench.pool.roll_call(joining=True)
        assert members == (0,)
        assert bench.pool.holding_of(members) == Holding("model")
        assert bench.pool.holding is None, "they hold different weights"
        await bench.publish(3, members=members, joining=True)
        assert bench.pool.serving == (0, 1)
        assert bench[1].loads == [3], "the others were not disturbed"
        assert bench[0].asked[-1] == "joins/0"

    with_pool(work)


def test_who_answers_wrongly_at_the_door_does_not_come_in(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        await bench.publish(3)
        bench[0].fault = ServiceError("EngineDeadError")
        await bench.group()
        await bench.until(lambda: bench.state(0) == "stale")

        async def judge(groups: Any) -> dict[int, str]:
            assert [group.replica for group in groups] == [0]
            return {0: "logprobs differ"}

        await bench.publish(4, audit=Audit(ONE, judge))
        assert bench.pool.serving == (1,)
        assert any("logprobs differ" in line for line in bench.told)

    with_pool(work)


def test_a_death_in_a_publish_costs_that_member_alone(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[1].load_fault = ServiceError("weights arrived damaged")
        report = await bench.publish(1)
        assert (report.version, bench.pool.version, bench.pool.serving) == (1, 1, (0, 2))
        assert "put down 1" in bench.engines.told
        bench[1].load_fault = None
        await bench.until(lambda: bench.state(1) == "stale")
        await bench.publish(2)
        assert bench.pool.serving == (0, 1, 2)
        assert bench.pool.holding == Holding("w2")

    with_pool(work, 3)


def test_a_publish_that_nobody_has_loaded_says_so(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        for actor in bench.engines.actors.values():
            actor.load_fault = ServiceError("weights arrived damaged")
        with pytest.raises(NobodyLoadedError, match="no rollout replica has loaded policy version 1: weights arrived"):
            await bench.publish(1)
        assert bench.pool.version == 0

    with_pool(work)


def test_one_that_is_silent_at_the_roll_call_is_left_out_and_then_has_old_weights(
    with_pool: With, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollout.service.ROLL_CALL_S", 0.1)

    async def work(bench: Bench) -> None:
        bench[1].core_frozen = True
        members = await bench.pool.roll_call()
        assert members == (0,)
        await bench.publish(1, members=members)
        bench[1].core_frozen = False
        await bench.until(lambda: bench.state(1) != "suspect")
        assert bench.state(1) == "stale"

    with_pool(work, timeout_s=2.0)


def test_a_roll_call_waits_for_one_to_come_back(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench[0].fault = gone()
        assert await bench.pool.roll_call() == (0,)
        assert bench[0].process == 2

    with_pool(work, 1, 0.0, 0.2)


# --- How many


def test_more_join_by_a_publish_and_the_newest_leave(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        await bench.publish(1)
        await bench.pool.scale(3)
        await bench.until(lambda: [bench.state(i) for i in (1, 2)] == ["stale", "stale"])
        assert (bench.pool.serving, bench.pool.replicas) == ((0,), 3)
        await bench.publish(1, members=await bench.pool.roll_call(joining=True), joining=True)
        assert bench.pool.serving == (0, 1, 2)
        await bench.pool.scale(1)
        await bench.until(lambda: len(bench.pool.members()) == 1)
        assert [told for told in bench.engines.told if told.startswith("end")] == ["end 1", "end 2"]
        assert bench[0].process == 1, "the one that stays was not touched"

    with_pool(work, 1)


def test_one_that_leaves_finishes_its_groups_or_hands_them_on(with_pool: With, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.keeper.LEAVE_S", 0.1)

    async def work(bench: Bench) -> None:
        bench[0].hold.clear()
        bench[1].hold.clear()
        groups = [asyncio.ensure_future(bench.group(f"g{i}")) for i in range(4)]
        await bench.until(lambda: len(bench[1].asked) == 2)
        await bench.pool.scale(1)
        assert bench.state(1) == "leaving"
        await bench.until(lambda: len(bench[0].asked) == 4)
        bench[0].hold.set()
        assert {group.replica for group in await asyncio.gather(*groups)} == {0}
        await bench.until(lambda: "end 1" in bench.engines.told)
        assert not any("dead" in line for line in bench.told)

    with_pool(work)


def test_a_number_that_has_no_place_is_refused_and_changes_nothing(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        bench.engines.room = 2
        with pytest.raises(InputError, match=r"rollout\.replicas = 3 needs more CPUs"):
            await bench.pool.scale(3)
        assert (bench.pool.replicas, bench.pool.serving) == (2, (0, 1))
        bench.engines.can_change = False  # type: ignore[misc]
        with pytest.raises(InputError, match="share GPUs"):
            await bench.pool.scale(1)

    with_pool(work)


def test_a_first_start_that_fails_leaves_nothing_behind() -> None:
    async def work() -> None:
        engines = StandInEngines(0.0, ServiceError("no model"))
        pool = RolloutPool(engines, timeout_s=1, wait_s=1)  # type: ignore[arg-type]
        with pytest.raises(ServiceError, match="no model"):
            await pool._keeper.begin(2)
        assert engines.told[-2:] == ["end 0", "end 1"]

    asyncio.run(work())


def test_engines_that_sleep_are_neither_probed_to_death_nor_let_in(with_pool: With) -> None:
    async def work(bench: Bench) -> None:
        await bench.publish(1)
        await bench.pool.sleep()
        bench[0].core_frozen = True
        await asyncio.sleep(1.0)
        assert "put down 0" not in bench.engines.told
        bench[0].core_frozen = False
        await bench.publish(2)
        assert bench.pool.serving == (0,)

    with_pool(work, 1)
