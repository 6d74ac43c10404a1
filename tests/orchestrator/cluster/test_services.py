"""What the services are told of a stage: every setting arrives where it is used."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.cluster.services import Services, build_spec, learner_spec, optimizer_steps
from orchestrator.config.load import Stage
from orchestrator.config.sections.learner import LearnerSection
from orchestrator.data.prompts import PromptSets, load_prompts
from rewards.error_budget import ErrorBudget
from rewards.service import RewardPool
from rollout.errors import InputError
from tests.factories import prompt
from tests.orchestrator.factories import recipe

USED_BESIDE_THE_SPEC = {
    "ranks", "cpus", "gpus", "threads", "timeout_s",  # LearnerGroup.start
    "mini_batches", "micro_batch_tokens", "length_norm",  # the batch
    "warmup_share",  # steps of it
    "advantage_baseline", "advantage_scale", "overlong_filtering",  # the advantages
}  # fmt: skip
"""Keys of `learner` that the ranks need not know to open a model."""
CHANGED: dict[str, Any] = {
    "zero_stage": 2,
    "offload_optimizer": True,
    "lr": 0.5,
    "schedule": "cosine",
    "warmup_steps": 3,
    "beta1": 0.1,
    "beta2": 0.2,
    "weight_decay": 0.3,
    "max_grad_norm": 0.4,
    "logit_chunk_tokens": 5,
    "activation_checkpointing": True,
    "policy_loss": "gspo",
    "clip_low": 0.6,
    "clip_high": 0.7,
    "dual_clip": 4.0,
    "kl_coef": 0.8,
    "kl_in": "reward",
    "kl_estimator": "k2",
    "reference_refresh_steps": 6,
    "entropy_coef": 0.01,
    "importance_cap": 1.9,
    "importance_mode": "mask",
    "importance_floor": 0.3,
    "importance_level": "geometric",
    "lora_alpha": 8.0,
    "lora_targets": ("q_proj",),
}


def stage_of(**sections: Any) -> Stage:
    return recipe(**sections).stages[0]


def test_every_key_of_the_learner_reaches_the_ranks_or_is_used_beside_them() -> None:
    assert set(CHANGED) | {"lora_rank"} | USED_BESIDE_THE_SPEC == set(LearnerSection.model_fields)
    spec = learner_spec(stage_of(learner=CHANGED), "m", "r", 7, "cpu")
    assert {key: getattr(spec, key) for key in CHANGED} == CHANGED
    assert (spec.model_path, spec.reference_path, spec.seed, spec.dtype, spec.backend) == (
        "m",
        "r",
        7,
        "float32",
        "shm",
    )


def test_learner_and_engine_have_the_same_adapters() -> None:
    stage = stage_of(learner={"lora_rank": 4, "lora_targets": ["q_proj"]})
    engine = Services("cpu", 1.0, None)._engine_spec(stage)  # type: ignore[arg-type]
    learner = learner_spec(stage, "m", "r", 7, "cpu")
    assert (learner.lora_rank, learner.lora_targets) == (engine.lora_rank, engine.lora_targets) == (4, ("q_proj",))


def test_the_schedule_ends_with_the_last_optimizer_step() -> None:
    spec = learner_spec(stage_of(learner={"mini_batches": 4}, loop={"steps": 10}), "m", "r", 7, "cpu")
    assert spec.total_steps == 40


def test_a_warm_up_may_be_a_share_of_the_optimizer_steps() -> None:
    assert optimizer_steps(stage_of(learner={"mini_batches": 4, "warmup_share": 0.25}), 10) == (40, 10)
    assert optimizer_steps(stage_of(learner={"warmup_steps": 7}), 10) == (10, 7)
    # Supervised steps are not cut into mini-batches.
    supervised = stage_of(learner={"mini_batches": 4, "warmup_share": 0.25}, stages=[{"name": "s", "kind": "sft"}])
    assert optimizer_steps(supervised, 20) == (20, 5)


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
def test_the_reference_is_where_the_stage_begins(kl_in: str) -> None:
    spec = learner_spec(stage_of(learner={"kl_coef": 0.1, "kl_in": kl_in}), "m", "r", 7, "cpu")
    assert (spec.reference_path, spec.kl_in) == ("r", kl_in)


@pytest.mark.parametrize(("kind", "kl_coef"), [("sft", 0.1), ("grpo", 0.0)])
def test_no_reference_is_loaded_where_none_is_needed(kind: str, kl_coef: float) -> None:
    stage = stage_of(learner={"kl_coef": kl_coef}, stages=[{"name": "s", "kind": kind}])
    spec = learner_spec(stage, "m", "r", 7, "cpu")
    assert (spec.reference_path, spec.kl_coef) == ("", 0.0)


def preference_spec(kind: str, **section: Any) -> Any:
    source = {"path": "pairs.jsonl", "chosen_column": "good", "rejected_column": "bad"}
    stages = [{"name": "s", "kind": kind, kind: section}]
    stage = stage_of(
        stages=stages,
        data={"sources": {"a": source}},
        learner={"mini_batches": 4, "reference_refresh_steps": 5},
        loop={"steps": 10},
    )
    return learner_spec(stage, "m", "r", 7, "cpu")


def test_dpo_is_held_to_where_the_stage_begins() -> None:
    spec = preference_spec("dpo", beta=0.3, label_smoothing=0.2)
    assert (spec.reference_path, spec.reference_refresh_steps, spec.head, spec.total_steps) == ("r", 0, "language", 10)
    assert (spec.dpo_beta, spec.dpo_label_smoothing) == (0.3, 0.2)


def test_a_reward_model_has_another_head_and_no_reference() -> None:
    spec = preference_spec("reward_model")
    assert (spec.reference_path, spec.head, spec.total_steps) == ("", "score", 10)


def test_a_model_is_built_as_the_recipe_says() -> None:
    build = {"tokenizer": "bpe", "vocab_size": 301, "layers": 2, "hidden": 64, "heads": 2, "kv_heads": 1, "tied": True}
    spec = build_spec(stage_of(model={"path": "org/model", "max_tokens": 600, "build": build}), 7)
    assert {key: getattr(spec, key) for key in build} == build
    assert (spec.max_tokens, spec.seed) == (600, 7)


def test_an_engine_holds_prompt_and_completion() -> None:
    stage = stage_of(model={"path": "org/model", "max_tokens": 700}, rollout={"max_tokens": 100})
    spec = Services("cpu", 1.0, None)._engine_spec(stage)  # type: ignore[arg-type]
    assert spec.max_tokens == 700


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
        services._rewards = (None, asyncio.create_task(start()))  # type: ignore[arg-type]
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

    monkeypatch.setattr("orchestrator.cluster.services.cores_per_node", lambda: 4)
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
