"""Real Ray, vLLM and DeepSpeed on this machine; one cluster and one engine for all tests of this folder."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from learner.learner import Learner
from learner.model.small import BuildSpec
from learner.service import LearnerGroup
from orchestrator.cluster.session import ray_session
from orchestrator.config.sections.cluster import ClusterSection
from rollout.engine import EngineSpec
from rollout.service import RolloutPool
from rollout.types import Prompt
from tests.learner.specs import learner_spec


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


@dataclass
class Rig:
    """A learner of one rank and a pool of one engine that hold the same small model."""

    loop: asyncio.AbstractEventLoop
    learner: LearnerGroup
    pool: RolloutPool
    folder: str
    tokenizer: Any

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, 240))

    def prompt(self, text: str) -> Prompt:
        return Prompt(
            prompt_id=text,
            source="test",
            rubric="default",
            text=text,
            token_ids=tuple(self.tokenizer(text)["input_ids"]),
            answer="",
        )

    def open(self, **changes: Any) -> None:
        """A fresh policy in the learner."""
        self.run(self.learner.open(learner_spec(self.folder, **changes)))

    def publish(self, version: int, whole: bool = True) -> Any:
        """`whole`: off to send only what the engines lack, as a run does."""
        manifest = self.run(self.learner.stage_weights(version, None if whole else self.pool.holding))
        report = self.run(self.pool.load(manifest, self.learner))
        self.run(self.learner.release_weights(manifest))
        return report


def build_spec(tied: bool = False, seed: int = 1) -> BuildSpec:
    return BuildSpec(
        tokenizer="characters",
        vocab_size=0,
        layers=2,
        hidden=128,
        heads=4,
        kv_heads=2,
        intermediate=128,
        tied=tied,
        max_tokens=128,
        seed=seed,
    )


def engine_spec(tensor_parallel: int = 1, lora_rank: int = 0) -> EngineSpec:
    return EngineSpec(
        dtype="float32",
        trust_remote_code=False,
        max_tokens=128,
        max_sequences=64,
        tensor_parallel=tensor_parallel,
        kv_cache_gb=1,
        gpu_memory=0.5,
        eager=True,
        backend="shm",
        device="cpu",
        lora_rank=lora_rank,
    )


async def start_pool(
    folder: str,
    replicas: int = 1,
    tensor_parallel: int = 1,
    name: str = "rollout",
    lora_rank: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> RolloutPool:
    model: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    model.set_result(folder)
    return await RolloutPool.start(
        engine_spec(tensor_parallel, lora_rank),
        model,
        replicas=replicas,
        cpus=0.5 / (replicas * tensor_parallel),
        gpus=1,
        threads=2 // tensor_parallel,
        timeout_s=120,
        start_timeout_s=240,
        name=name,
        tell=tell,
        say=tell,
    )


def learner_of(group: LearnerGroup) -> Learner:
    """The group as a run has it. Its ranks are not to die: no others take over."""

    async def nobody() -> LearnerGroup:
        raise AssertionError("ranks were lost")

    async def room() -> None: ...

    return Learner(group, nobody, room, print)


async def start_learner(ranks: int, name: str = "learner") -> LearnerGroup:
    return await LearnerGroup.start(
        ranks=ranks, cpus=0.25, gpus=1, device="cpu", threads=1, timeout_s=120, start_timeout_s=240, name=name
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    with ray_session(ClusterSection(env={"RAYZERO_SEEN": "everywhere", "RAYZERO_OWN": 1}), "tests"):
        yield


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def rig(cluster: None, loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = str(tmp_path_factory.mktemp("model") / "base")

    async def start() -> tuple[LearnerGroup, RolloutPool]:
        learner = await start_learner(ranks=1)
        await learner.build(build_spec(), [], folder)
        return learner, await start_pool(folder)

    learner, pool = loop.run_until_complete(start())
    from transformers import AutoTokenizer

    yield Rig(loop, learner, pool, folder, AutoTokenizer.from_pretrained(folder))
    loop.run_until_complete(pool.close())
    loop.run_until_complete(learner.close())
