"""Rejection sampling with a written engine: who is asked, how many at a time, and what a run that was stopped asks again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.loop.context import StageContext
from orchestrator.run.sampled_rows import read_samples, write_part
from orchestrator.run.sampled_rows import write_rows as write_rows_left
from orchestrator.stages.reject import IN_FLIGHT, asked_columns, run_reject, sample
from rewards.types import ScoredGroup
from rollout.data.rows import Dialogue, Row, Source
from rollout.data.sources import load_rows
from rollout.errors import InputError, ServiceError
from rollout.types import Prompt, RolloutGroup
from tests.factories import prompt
from tests.orchestrator.factories import recipe, write_rows
from tests.orchestrator.samplers import Engine
from tests.orchestrator.stage_context import Services, context_of

NUMBERED = tuple((number, prompt(f"s/{number}")) for number in (3, 1, 8))


def context(folder: Path, services: Services, source: Path | None = None, **changes: Any) -> StageContext:
    stage = {
        "name": "samples",
        "kind": "reject",
        "reject": {"samples": 4, "keep": "best"},
        "rollout": {"max_sequences": 4, "temperature": 0.7, "max_tokens": 30},
    }
    data = {"data": {"sources": {"own": {"path": str(source)}}}} if source else {}
    return context_of(recipe(stages=[stage | changes], **data), folder, services)


def sampled(asked: StageContext, numbered: Sequence[tuple[int, Prompt]] = NUMBERED) -> list[ScoredGroup]:
    return asyncio.run(asyncio.wait_for(sample(asked, numbered), 10))


def test_groups_are_those_of_the_prompts_in_their_order_by_the_settings_of_the_stage(tmp_path: Path) -> None:
    class Uneven(Engine):
        async def generate(self, group_id: str, *rest: Any) -> RolloutGroup:
            await asyncio.sleep(0.02 if group_id == "samples/3" else 0)
            return await super().generate(group_id, *rest)

    services = Services(Uneven())
    groups = sampled(context(tmp_path, services))
    assert [group.group.group_id for group in groups] == ["samples/3", "samples/1", "samples/8"]
    assert [group.prompt.prompt_id for group in groups] == ["s/3", "s/1", "s/8"]
    assert all(list(group.rewards) == [4.0] * 4 for group in groups)
    settings = {(each.n, each.temperature, each.max_tokens) for _, _, each in services.engine.asked}
    assert settings == {(4, 0.7, 30)}
    assert len({each.seed for _, _, each in services.engine.asked}) == 3


def test_a_prompt_has_the_seed_of_its_number_whatever_is_asked_beside_it(tmp_path: Path) -> None:
    """A run that was stopped draws for the prompts that are left what it would have drawn."""
    whole, rest = Services(), Services()
    sampled(context(tmp_path, whole))
    sampled(context(tmp_path, rest), NUMBERED[1:])
    seeds = {group: each.seed for group, _, each in whole.engine.asked}
    assert {group: each.seed for group, _, each in rest.engine.asked} == {
        group: seeds[group] for group in ("samples/1", "samples/8")
    }


@pytest.mark.parametrize(("replicas", "samples", "most"), [(1, 4, 4), (2, 4, 8), (1, 2, 8), (1, 17, 1)])
def test_the_engines_have_a_few_times_what_they_decode_and_no_more(
    tmp_path: Path, replicas: int, samples: int, most: int
) -> None:
    """A group counts until it is scored, so slow scorers slow the engines down and nothing piles up."""
    services = Services()
    services.engine.replicas = replicas  # there are as many now, whatever the recipe said
    rollout = {"max_sequences": 4, "max_tokens": 30}
    asked = context(tmp_path, services, reject={"samples": samples, "keep": "best"}, rollout=rollout)
    sampled(asked, [(number, prompt(f"s/{number}")) for number in range(12)])
    assert most == max(1, IN_FLIGHT * 4 * replicas // samples)
    assert services.scorers.most_open == most
    assert services.engine.most <= most


def test_sampling_counts_in_the_time_of_the_stage(tmp_path: Path) -> None:
    asked = context(tmp_path, Services())
    sampled(asked)
    assert asked.clocks.generate.seconds > 0
    assert asked.clocks.score.seconds >= 0.01


def test_an_engine_that_fails_ends_the_sampling(tmp_path: Path) -> None:
    class Broken(Engine):
        async def generate(self, group_id: str, *rest: Any) -> RolloutGroup:
            if group_id == "samples/1":
                raise ServiceError("no engine is left")
            return await asyncio.Future()

    services = Services(Broken())
    with pytest.raises(ServiceError, match="no engine is left"):
        sampled(context(tmp_path, services))
    assert sorted(services.scorers.cancelled) == ["s/1", "s/3", "s/8"]


def test_a_run_that_was_stopped_asks_only_what_is_left_and_leaves_the_rows_of_all(tmp_path: Path) -> None:
    class Stops(Engine):
        async def generate(self, group_id: str, *rest: Any) -> RolloutGroup:
            if group_id == "samples/4":
                raise ServiceError("stopped here")
            return await super().generate(group_id, *rest)

    rows = [{"prompt": f"question {number}", "answer": "2"} for number in range(6)]
    source = write_rows(tmp_path / "own.jsonl", rows)

    def page(engine: Engine) -> Any:
        reject = {"samples": 2, "keep": "best", "shard_prompts": 2, "near_duplicate": 1.0}
        return context(tmp_path / "run", Services(engine), source, reject=reject)

    with pytest.raises(ServiceError, match="stopped here"):
        asyncio.run(run_reject(page(Stops())))
    folder = tmp_path / "run" / "samples" / "samples"
    first = read_samples(folder)
    assert [(row["prompt"], row["sample"]) for row in first] == [(f"question {i // 2}", i % 2) for i in range(8)]

    second = page(Engine())
    asyncio.run(run_reject(second))
    assert [group for group, _, _ in second.services.engine.asked] == ["samples/4", "samples/5"]
    assert "samples: continues after 4 of 6 prompts" in second.display.lines
    kept = pq.read_table(second.store.data_folder("samples")).to_pylist()
    assert [row["prompt"] for row in kept] == [row["prompt"] for row in rows]


def test_samples_of_other_prompts_are_not_gone_on_with(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(6)])

    def run() -> None:
        asyncio.run(run_reject(context(tmp_path / "run", Services(), source)))

    run()
    run()  # the same rows
    write_rows(source, [{"prompt": f"{i}+2=", "answer": str(i + 2)} for i in range(6)])
    with pytest.raises(InputError, match=r"the prompts of data source 'own' .* changed since the run was started; put"):
        run()


def test_a_prompt_of_messages_is_left_as_messages_that_can_be_read_again(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    long = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    rows = [
        {"row_id": "s/0"},
        {"row_id": "s/1", "dialogue": long},
        {"row_id": "s/2", "dialogue": long[:1], "tools": tools},
    ]
    samples = []
    for row in rows:
        dialogue = Dialogue(row_id=row["row_id"], messages=tuple(row["dialogue"]), tools=tuple(row.get("tools", ()))) if "dialogue" in row else None  # fmt: skip
        made = Row(row_id=row["row_id"], source="s", rubric="r", question="1+1?", dialogue=dialogue, answer="2", completion="", fields={})  # fmt: skip
        samples.append({**asked_columns(made), "answer": "2", "completion": "two"})
    write_part(tmp_path / "parts", samples)
    write_rows_left(tmp_path / "data", read_samples(tmp_path / "parts"))
    read = load_rows(Source(name="s", path=str(tmp_path / "data"), completion_column="completion"), 0)
    assert [row.question for row in read] == ["1+1?"] * 3
    assert [row.dialogue and (list(row.dialogue.messages), list(row.dialogue.tools)) for row in read] == [
        None, (long, []), (long[:1], tools)
    ]  # fmt: skip
