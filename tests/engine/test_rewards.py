"""The reward service on real Ray: nothing is lost, misattributed or silently scored, whatever workers and functions do."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rewards.error_budget import ErrorBudget
from rewards.resources import ResourceSettings
from rewards.service import RewardPool
from rewards.types import FunctionSpec, Sample
from rollout.errors import InputError, ServiceError
from tests.factories import completion, prompt, rollout_group

USER = """
import os, signal, time

def length(prompt, completion, reference):
    if completion == "hang":
        time.sleep(60)
    if completion == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return len(completion)

def kill_worker(prompt, completion, reference):
    if completion == "worker":
        os.kill(worker_of(os.getpid()), signal.SIGKILL)
    return len(completion)

def stop_zygote(prompt, completion, reference):
    if completion == "stop":
        os.kill(os.getppid(), signal.SIGSTOP)
        os._exit(1)
    return len(completion)

def worker_of(pid):  # child → zygote → reward worker
    for _ in range(2):
        with open(f"/proc/{pid}/stat") as stat:
            pid = int(stat.read().rpartition(")")[2].split()[1])
    return pid

def longest(prompt, completions, reference):
    return [float(len(c) == max(map(len, completions))) for c in completions]

def theirs(completions, answer, log_metric=None, **kwargs):
    log_metric("mean", sum(map(len, completions)) / len(completions))
    assert answer == ["2"] * len(completions)
    return [None if c == "skip" else float(len(c) == max(map(len, completions))) for c in completions]
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("user") / "mine.py"
    path.write_text(USER)
    return str(path)


def spec(name: str, label: str, **changes: Any) -> FunctionSpec:
    return FunctionSpec(name=name, label=label, **changes)


@pytest.fixture(scope="module")
def pool(cluster: None, loop: asyncio.AbstractEventLoop, mine: str) -> Iterator[RewardPool]:
    rubrics = {
        "default": [spec("accuracy", "accuracy"), spec("format", "format", weight=0.2)],
        "mine": [spec(f"{mine}:length", "length")],
        "deadly": [spec(f"{mine}:kill_worker", "length")],
        "group": [spec("accuracy", "accuracy"), spec(f"{mine}:longest", "longest", weight=0.5, group=True)],
        "theirs": [spec(f"{mine}:theirs", "theirs")],
    }
    start = RewardPool.start(
        rubrics,
        ResourceSettings(processes=2, function_timeout_s=3.0),
        {name: Sample(prompt="1+1=", completion="x", answer="2") for name in rubrics},
        replicas=2,
        timeout_s=60,
        max_error_rate=0.5,
        start_timeout_s=120,
    )
    pool = loop.run_until_complete(start)
    yield pool
    loop.run_until_complete(pool.close())


def score_group(pool: RewardPool, loop: asyncio.AbstractEventLoop, rubric: str, texts: list[str]) -> Any:
    async def run() -> Any:
        asked = prompt(rubric=rubric)
        scoring = pool.begin(asked)
        completions = [completion(text) for text in texts]
        for each in completions[::-1]:  # they finish in any order
            scoring.add(each)
        scoring.add(completion("of a try that failed"))
        return await scoring.finish(rollout_group(completions, asked=asked))

    return loop.run_until_complete(asyncio.wait_for(run(), 120))


def test_a_group_is_scored_in_order(pool: RewardPool, loop: asyncio.AbstractEventLoop) -> None:
    right, bare, wrong = "<think>1+1</think><answer>2</answer>", "<answer>2</answer>", "<answer>3</answer>"
    scored = score_group(pool, loop, "default", [right, wrong, bare, right])
    assert scored.rewards == pytest.approx((1.2, 0.0, 1.0, 1.2))
    assert scored.num_errors == 0
    figures = pool.metrics()
    assert figures["rewards/error_share"] == 0
    assert {"rewards/queue_s", "rewards/score_s/accuracy", "rewards/score_s/format"} <= set(figures)


def test_what_hangs_or_dies_leaves_the_group_and_its_neighbours_do_not_notice(
    pool: RewardPool, loop: asyncio.AbstractEventLoop
) -> None:
    texts = ["a", "hang", "bbb", "die", "cc", "dddd", "eeeee", "ffffff"]
    scored = score_group(pool, loop, "mine", texts)
    assert [c.text for c in scored.completions] == [text for text in texts if text not in ("hang", "die")]
    assert scored.rewards == (1, 3, 2, 4, 5, 6)
    assert scored.num_errors == 2


def test_a_worker_that_dies_costs_only_what_kills_it(pool: RewardPool, loop: asyncio.AbstractEventLoop) -> None:
    texts = ["a", "bb", "worker", "dddd", "eeeee", "ffffff"]
    scored = score_group(pool, loop, "deadly", texts)
    assert [c.text for c in scored.completions] == [text for text in texts if text != "worker"]
    assert scored.rewards == (1, 2, 4, 5, 6)
    again = score_group(pool, loop, "mine", ["a", "bb", "ccc"])
    assert again.rewards == (1, 2, 3)


def test_a_function_may_see_the_whole_group(pool: RewardPool, loop: asyncio.AbstractEventLoop) -> None:
    scored = score_group(pool, loop, "group", ["<answer>2</answer>", "<answer>2</answer> ", "no"])
    assert scored.rewards == (1.0, 1.5, 0.0)
    assert scored.scores[1].breakdown == {"accuracy": 1.0, "longest": 1.0}


def test_a_function_of_another_trainer_sees_the_group_and_may_say_nothing(
    pool: RewardPool, loop: asyncio.AbstractEventLoop
) -> None:
    scored = score_group(pool, loop, "theirs", ["a", "skip", "bbbbb", "cc"])
    assert [c.text for c in scored.completions] == ["a", "bbbbb", "cc"]
    assert (scored.rewards, scored.num_errors) == ((0.0, 1.0, 0.0), 1)
    assert [dict(score.metrics) for score in scored.scores] == [{"theirs.mean": 3.0}] * 3


def test_workers_come_and_go_while_scoring(pool: RewardPool, loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> list[float]:
        calls = [
            asyncio.ensure_future(pool.score("mine", Sample(prompt="", completion="x" * n, answer="")))
            for n in range(1, 201)
        ]
        await pool.scale(3)
        await pool.scale(1)
        return [(await call).value for call in calls]

    assert loop.run_until_complete(asyncio.wait_for(run(), 120)) == list(range(1, 201))
    assert pool.replicas == 1


def test_too_many_errors_stop_the_run_and_name_reward_error_and_sample(
    pool: RewardPool, loop: asyncio.AbstractEventLoop
) -> None:
    pool.budget = ErrorBudget(0.5)
    with pytest.raises(ServiceError) as caught:
        score_group(pool, loop, "mine", ["die"] * 8)
    message = str(caught.value)
    assert all(part in message for part in ("8 of 8", "length:", "SIGKILL", "'s/0'", "'die'"))


def test_workers_share_one_reward_model(cluster: None, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    from rewards.models.reward_model import RewardModel, RewardModelSpec
    from tests.rewards.models.test_reward_model import save

    model = RewardModelSpec(path=str(save(tmp_path / "model")), scope="response", device="cpu")
    helpful = spec("reward_model", "helpful", args={"path": model.path, "scope": "response", "device": "cpu"})
    texts = ["Because.", "a", "It is so.", "x" * 400]  # the last one is longer than the model holds

    async def run() -> Any:
        pool = await RewardPool.start(
            {"default": [helpful]},
            ResourceSettings(),
            {"default": Sample(prompt="Why?", completion="x")},
            replicas=2,
            timeout_s=60,
            max_error_rate=0.5,
            start_timeout_s=120,
            name="shared",
        )
        try:
            samples = [Sample(prompt="Why?", completion=text) for text in texts]
            scores = await asyncio.gather(*(pool.score("default", sample) for sample in samples))
            names = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]
        finally:
            await pool.close()
        return scores, [name for name in names if name.startswith("shared")]

    scores, names = loop.run_until_complete(asyncio.wait_for(run(), 200))
    assert sorted(names) == ["shared-0", "shared-1", "shared-model-0"]
    expected = RewardModel(model).score([("Why?", text) for text in texts[:3]])
    assert [score.value for score in scores[:3]] == pytest.approx(expected, abs=1e-5)
    assert scores[3].status == "error"
    assert "too long" in scores[3].error or "tokens" in scores[3].error


def test_workers_that_never_come_back_cost_nothing_until_the_last_is_gone(
    cluster: None, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewards.service.PATIENCE_S", 1.0)

    async def run() -> tuple[list[str], list[BaseException]]:
        pool = await RewardPool.start(
            {"default": [spec("accuracy", "accuracy")]},
            ResourceSettings(),
            {"default": Sample(prompt="1+1=", completion="x", answer="2")},
            replicas=2,
            timeout_s=1,
            max_error_rate=0.5,
            start_timeout_s=120,
            name="mortal",
        )

        def ask() -> Any:
            return pool.score("default", Sample(prompt="1+1=", completion="<answer>2</answer>", answer="2"))

        try:
            ray.kill(ray.get_actor("mortal-0"), no_restart=True)
            served = [(await ask()).status]
            while not any(worker.gone for worker in pool._dispatcher.workers):
                await asyncio.sleep(0.05)
            served += [(await ask()).status for _ in range(3)]
            assert pool.metrics()["rewards/down"] == 1
            ray.kill(ray.get_actor("mortal-1"), no_restart=True)
            failures = await asyncio.gather(ask(), ask(), return_exceptions=True)
            return served, [*failures, *await asyncio.gather(ask(), return_exceptions=True)]
        finally:
            await pool.close()

    served, failures = loop.run_until_complete(asyncio.wait_for(run(), 60))
    assert served == ["ok"] * 4
    assert [type(each) for each in failures] == [ServiceError] * 3
    assert "no reward worker comes back" in str(failures[0])


def test_a_broken_function_stops_the_start(cluster: None, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("def score(prompt, completion, reference):\n    return prompt.nothing\n")
    start = RewardPool.start(
        {"default": [spec(f"{path}:score", "score")]},
        ResourceSettings(),
        {"default": Sample(prompt="1+1=", completion="x", answer="2")},
        replicas=1,
        timeout_s=60,
        max_error_rate=0.5,
        start_timeout_s=120,
        name="broken",
    )
    with pytest.raises(InputError, match=r"AttributeError.*broken\.py:2"):
        loop.run_until_complete(start)


def test_what_stands_still_is_replaced_and_nothing_is_lost(
    cluster: None, loop: asyncio.AbstractEventLoop, mine: str, tmp_path: Path
) -> None:
    """A stopped zygote under a worker that says that it lives, and a stopped model: each within its limit, and no score is missing."""
    from tests.rewards.models.test_reward_model import save

    args = {"path": str(save(tmp_path / "model")), "scope": "response", "device": "cpu"}
    rubrics = {"zygote": [spec(f"{mine}:stop_zygote", "length")], "model": [spec("reward_model", "helpful", args=args)]}
    said: list[str] = []

    async def run() -> None:
        pool = await RewardPool.start(
            rubrics,
            ResourceSettings(function_timeout_s=3.0),
            {name: Sample(prompt="Why?", completion="x") for name in rubrics},
            replicas=1,
            timeout_s=8,
            max_error_rate=0.5,
            start_timeout_s=120,
            name="still",
            tell=said.append,
            outage_s=120,
        )
        try:

            async def score(rubric: str, text: str) -> Any:
                return await asyncio.wait_for(pool.score(rubric, Sample(prompt="Why?", completion=text)), 100)

            assert (await score("zygote", "abc")).value == 3
            stopping = asyncio.ensure_future(score("zygote", "stop"))
            others = await asyncio.gather(*(score("zygote", "x" * n) for n in range(1, 9)))
            assert [each.value for each in others] == list(range(1, 9))
            assert (await stopping).status == "error"
            before = await score("model", "Because.")
            model = ray.get_actor("still-model-0")
            pid = await model.__ray_call__.remote(lambda _: os.getpid())
            await asyncio.sleep(6)  # it has been looked at since its start
            os.kill(pid, signal.SIGSTOP)
            after = await score("model", "Because.")
            assert after.value == pytest.approx(before.value, abs=1e-6)
            assert any("still-model-0 (helpful) does not answer" in each for each in said)
        finally:
            await pool.close()

    loop.run_until_complete(asyncio.wait_for(run(), 300))
