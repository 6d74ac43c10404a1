"""Settings that change at a step: what may change, when it holds, and that nothing of before and after is mixed."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.buffer import Buffer
from orchestrator.config.load import load_recipe, parse_recipe, to_toml
from orchestrator.config.recipe import Stage
from orchestrator.config.schedule import Schedule
from orchestrator.evaluation.recipe import evaluation_recipe
from rollout.errors import InputError
from tests.factories import scored_group
from tests.orchestrator.factories import recipe

LONGER = {"from_step": 8, "rollout": {"max_tokens": 200, "temperature": 0.5}}
GENERAL = {"from_step": 9, "data": {"sources": {"general": {"weight": 3}}}}


def stage_of(*schedule: Any, kind: str = "grpo", **sections: Any) -> Stage:
    raw: dict[str, Any] = {
        "data": {"sources": {"math": {"task": "arithmetic"}, "general": {"task": "arithmetic", "weight": 0}}},
        "loop": {"steps": 12},
        "rollout": {"max_tokens": 100},
        "stages": [{"name": "rl", "kind": kind, "schedule": list(schedule)}],
    }
    return recipe(**(raw | sections)).stages[0]


def test_a_change_holds_from_its_step_on_and_over_the_one_before() -> None:
    schedule = Schedule(stage_of(LONGER, GENERAL, {"from_step": 11, "rollout": {"temperature": 0.7}}))
    lengths = [schedule.at(step).rollout.max_tokens for step in range(14)]
    assert lengths == [100] * 8 + [200] * 6
    assert [schedule.at(step).rollout.temperature for step in (7, 8, 10, 11, 99)] == [1, 0.5, 0.5, 0.7, 0.7]
    assert [schedule.segment(step) for step in (0, 7, 8, 9, 11, 99)] == [0, 0, 1, 2, 3, 3]
    assert [weights["general"] for weights in schedule.weights] == [0, 0, 3, 3]
    assert schedule.last.rollout.max_tokens == 200
    # Everything else is as it was.
    assert schedule.last.model_copy(
        update={"rollout": schedule.at(0).rollout, "data": schedule.at(0).data}
    ) == schedule.at(0)


def test_a_stage_without_changes_is_itself() -> None:
    stage = stage_of(data={"sources": {"math": {"task": "arithmetic"}}})
    assert Schedule(stage).at(5) is stage
    assert Schedule(stage).changes == {}


def test_the_changes_are_told() -> None:
    assert Schedule(stage_of(LONGER, GENERAL)).changes == {
        8: "rollout.max_tokens = 200, rollout.temperature = 0.5",
        9: "data.sources.general.weight = 3",
    }


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([{"from_step": 8, "rollout": {"max_token": 9}}], "rollout.max_token cannot change at a step; did you mean"),
        ([{"from_step": 8, "learner": {"lr": 1}}], "learner.lr cannot change at a step; can: rollout.max_tokens, "),
        ([{"from_step": 8, "data": {"sources": {"math": {"path": "x"}}}}], "data.sources.math.path cannot change"),
        ([{"rollout": {"max_tokens": 9}}], "from_step is missing"),
        ([GENERAL, LONGER], "from_step = 8 comes after one of 9: list changes in the order"),
        ([GENERAL, GENERAL], "from_step = 9 comes after one of 9"),
        ([{**GENERAL, "from_step": 12}], "from_step = 12 is past the end: the stage has loop.steps = 12"),
        (
            [GENERAL, {"from_step": 10, "data": {"sources": {"maths": {"weight": 0}}}}],
            "no such source; did you mean 'math'?",
        ),
        (
            [GENERAL, {"from_step": 10, "rollout": {"max_tokens": 400}}],
            r"rollout.max_tokens (400) + data.max_prompt_tokens",
        ),
        ([LONGER], "data.sources.general.weight = 0, and no step of its schedule gives it more"),
        (
            [GENERAL, {"from_step": 10, "data": {"sources": {"math": {"weight": 0}, "general": {"weight": 0}}}}],
            "from step 10 on the weights of all its data sources are 0",
        ),
    ],
)
def test_a_change_that_cannot_be_is_an_error(schedule: list[Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        stage_of(*schedule)
    assert message in str(caught.value)


def test_only_reinforcement_learning_has_a_schedule() -> None:
    with pytest.raises(InputError, match="settings change in stages of kind grpo, not in sft"):
        stage_of(GENERAL, kind="sft")
    with pytest.raises(InputError, match=r"data\.sources\.general\.weight = 0"):
        stage_of(kind="sft")


def test_a_schedule_in_toml_survives_being_written_out() -> None:
    import tomllib

    import tomli_w

    text = """
        name = "x"
        model.path = "org/model"
        data.sources.math.task = "arithmetic"
        data.sources."general talk" = { task = "arithmetic", weight = 0 }

        [[stages]]
        name = "rl"
        kind = "grpo"

        [[stages.schedule]]
        from_step = 5
        rollout.max_tokens = 200
        data.sources."general talk".weight = 1.0
    """
    first = parse_recipe(tomllib.loads(text))
    assert Schedule(first.stages[0]).at(5).rollout.max_tokens == 200
    assert parse_recipe(tomllib.loads(tomli_w.dumps(to_toml(first)))) == first
    over = parse_recipe(tomllib.loads(text), ["stages.rl.schedule=[]", 'data.sources."general talk".weight=1'])
    assert over.stages[0].schedule == ()


def test_an_evaluation_of_the_run_uses_what_the_stage_ended_with() -> None:
    override = "stages.reasoning.schedule=[{from_step=3, rollout.max_tokens=90}]"
    evaluated = evaluation_recipe(
        "org/model", recipe="arithmetic", overrides=[override], sets=(), columns={}, settings={}, template=""
    )
    assert load_recipe("arithmetic").stages[-1].rollout.max_tokens == 64
    assert evaluated.stages[0].rollout.max_tokens == 90


# --- The barrier


async def steps_of_groups(
    steps: int,
    groups_per_step: int,
    staleness: int,
    publish_every: int,
    changes: list[int],
    drops: set[int],
    slow: set[int],
) -> list[list[tuple[int, int]]]:
    """The loop of grpo.py on a real buffer. [batch] (engine version when asked, number)."""
    buffer = Buffer(groups_per_step, staleness, dynamic_sampling=True, barriers=changes)
    asked: dict[int, int] = {}
    taken = []

    async def one(number: int, version: int) -> None:
        for _ in range(20 if number in slow else 0):
            await asyncio.sleep(0)
        rewards = [1.0, 1.0] if number in drops else [0.0, 1.0]
        await buffer.put(number, scored_group(rewards, versions=version, group_id=str(number)))

    async def produce() -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                number = await buffer.admit()
                asked[number] = buffer.engine_version
                tasks.create_task(one(number, asked[number]))

    producer = asyncio.create_task(produce())
    for step in range(steps):
        groups = await asyncio.wait_for(buffer.take(step), 5)
        numbers = [int(group.group.group_id) for group in groups]
        taken.append([(asked[number], number) for number in numbers])
        done = step + 1
        if done % publish_every == 0 or done in changes:
            await buffer.published(done)
    producer.cancel()
    return taken


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    groups_per_step=st.integers(1, 3),
    staleness=st.integers(0, 3),
    publish_every=st.integers(1, 4),
    changes=st.sets(st.integers(1, 9), max_size=3),
    drops=st.sets(st.integers(0, 40), max_size=15),
    slow=st.sets(st.integers(0, 40), max_size=15),
)
def test_every_group_is_asked_in_the_segment_that_trains_it(
    groups_per_step: int, staleness: int, publish_every: int, changes: set[int], drops: set[int], slow: set[int]
) -> None:
    """Whatever the staleness, the publishes, what dynamic sampling drops and what is late; and nothing waits for ever."""
    listed = sorted(changes)
    every = min(publish_every, staleness + 1)
    batches = asyncio.run(steps_of_groups(10, groups_per_step, staleness, every, listed, drops, slow))

    def segment(version: int) -> int:
        return sum(change <= version for change in listed)

    for step, batch in enumerate(batches):
        assert {segment(version) for version, _ in batch} == {segment(step)}


@pytest.mark.parametrize("temperature", [0.001, 2.5])
@pytest.mark.parametrize("key", ["rollout", "eval", "schedule"])
def test_a_temperature_that_the_engine_would_change_is_refused(key: str, temperature: float) -> None:
    if key == "schedule":
        change = {"from_step": 8, "rollout": {"temperature": temperature}}
        with pytest.raises(InputError, match=rf"temperature: {temperature} is not within 0.01 and 2"):
            stage_of(change)
        return
    raw = {"name": "x", "stages": [{"name": "rl", "kind": "grpo", "data": {"sources": {"a": {"task": "arithmetic"}}}}]}
    with pytest.raises(InputError, match=rf"{key}.temperature: {temperature} is not within 0.01 and 2"):
        parse_recipe({**raw, key: {"temperature": temperature}})
