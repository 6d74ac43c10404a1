"""The publish between GPUs with its real parts on a host that has none: real ranks under ZeRO-3, real engines with several
workers, vLLM's own packing and ranks of its workers. NCCL alone is played (tests/engine/nccl_over_gloo)."""

import asyncio
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray

import learner.service
import rollout.engines
from learner.batch import make_batch
from learner.service import LearnerGroup
from orchestrator.clock import PhaseClocks
from orchestrator.cluster.services import Services
from orchestrator.loop.audit import Auditor
from orchestrator.loop.publishing import Publishing
from rollout.actors import PEER_S, compute_environment
from rollout.errors import ServiceError
from rollout.service import RolloutPool
from rollout.types import Prompt, Sampling
from tests.contracts.wheel import NoWheelError, gpu_source
from tests.engine.conftest import build_spec, engine_spec, learner_of
from tests.engine.test_publish import rows_of
from tests.learner.specs import learner_spec

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).parent / "nccl_over_gloo"
BUCKET = 1 << 20
"""Bytes of a pack: the model makes some twenty."""
SAMPLING = Sampling(n=4, max_tokens=24, seed=12)


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """Actors of this module have the stand-ins, in all of their processes."""
    try:
        source = str(gpu_source())
    except NoWheelError:
        source = ""
    extra = {"PYTHONPATH": f"{STAND_INS}{os.pathsep}{ROOT}", "RAYZERO_TESTS_GPU_VLLM": source}
    with pytest.MonkeyPatch.context() as patch:
        for service in (learner.service, rollout.engines):
            patch.setattr(service, "compute_environment", lambda *of: compute_environment(*of) | extra)
        yield


@dataclass
class World:
    """Ranks and engines that meet over NCCL, and publish as a run does."""

    loop: asyncio.AbstractEventLoop
    learner: LearnerGroup
    pool: RolloutPool
    folder: str
    told: list[str]
    services: Any = field(init=False)
    publishing: Publishing = field(init=False)

    def __post_init__(self) -> None:
        self.services = Services(device="cpu", start_timeout_s=1.0, display=None)  # type: ignore[arg-type]
        for background, service in (
            (self.services._learner, learner_of(self.learner)),
            (self.services._rollout, self.pool),
        ):
            self.run(background.begin("here", lambda service=service: _itself(service)))
        self.publishing = Publishing(self.services, PhaseClocks(), self.auditor)

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, 240))

    def publish(self, version: int) -> Any:
        return self.run(self.publishing.publish(version))

    async def auditor(self, version: int) -> Auditor:
        return Auditor(
            learner=learner_of(self.learner), pool=self.pool, batch_of=self.batch, temperature=1.0, max_tokens=16, tolerance=1e-4,
            version=version,
        )  # fmt: skip

    def step(self) -> None:
        """One optimizer step that really moves the policy."""
        rows = rows_of(self.run(self.pool.generate("step", self.prompt("3+4="), SAMPLING)))
        rows = [replace(row, advantage=1.0 if i % 2 else -1.0) for i, row in enumerate(rows)]

        async def train() -> None:
            async with self.publishing.training():
                await self.learner.train(self.batch(rows), "grpo")

        self.run(train())

    def gaps(self, name: str) -> dict[int, float]:
        """Largest difference to the learner's logprobs of each serving replica."""
        found = {}
        for replica in self.pool.serving:
            group = self.run(self.pool.generate_on(replica, f"{name}{replica}", self.prompt("8+9="), SAMPLING))
            assert all((c.policy_versions == self.pool.version).all() for c in group.completions)
            rows = rows_of(group)
            gaps = self.run(self.learner.logprob_gaps(self.batch(rows), [replica] * len(rows)))
            found[replica] = float(gaps[replica].largest)
        return found

    def prompt(self, text: str) -> Prompt:
        from transformers import AutoTokenizer

        ids = tuple(AutoTokenizer.from_pretrained(self.folder)(text)["input_ids"])
        return Prompt(prompt_id=text, source="test", rubric="default", text=text, token_ids=ids, answer="")

    def batch(self, rows: Any) -> Any:
        return make_batch(
            rows, ranks=2, mini_batches=1, micro_batch_tokens=256, length_norm="sequence", constant_length=100,
            temperature=1.0, seed=0,
        )  # fmt: skip


async def _itself(service: Any) -> Any:
    return service


def inside(actor: Any, work: Any) -> Any:
    """What `work` says of the object in an actor, in its process."""
    return ray.get(actor.__ray_call__.remote(work), timeout=60)


def start(loop: asyncio.AbstractEventLoop, folder: str, replicas: int, tensor_parallel: int, name: str) -> World:
    told: list[str] = []

    async def begin() -> tuple[LearnerGroup, RolloutPool]:
        group = await LearnerGroup.start(
            ranks=2,
            cpus=0.1,
            gpus=1,
            device="cpu",
            threads=1,
            timeout_s=3600,
            start_timeout_s=240,
            name=f"{name}-ranks",
        )
        if not Path(folder).exists():
            await group.build(replace(build_spec(), hidden=512, intermediate=512), [], folder)
        await group.open(learner_spec(folder, zero_stage=3, backend="nccl", bucket_bytes=BUCKET))
        model: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        model.set_result(folder)
        pool = await RolloutPool.start(
            replace(engine_spec(tensor_parallel), backend="nccl"), model, replicas=replicas, name=name,
            cpus=0.1 / tensor_parallel, gpus=1, threads=1, timeout_s=3600, start_timeout_s=240,
            tell=told.append,
        )  # fmt: skip
        return group, pool

    group, pool = loop.run_until_complete(begin())
    return World(loop, group, pool, folder, told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def wide(cluster: None, loop: asyncio.AbstractEventLoop, environment: None, folder: str) -> Iterator[World]:
    """Two engines of two workers each. The tests that have it may find an engine fewer than the one before."""
    made = start(loop, folder, 2, 2, "nccl-wide")
    yield made
    made.run(made.services.close())


@pytest.fixture
def narrow(cluster: None, loop: asyncio.AbstractEventLoop, environment: None, folder: str) -> Iterator[World]:
    """Two engines of one worker each, for a test that breaks them."""
    made = start(loop, folder, 2, 1, "nccl-narrow")
    yield made
    made.run(made.services.close())


def test_ranks_that_share_a_model_send_it_to_engines_that_share_it_too(wide: World) -> None:
    empty = inside(
        wide.learner._actors[1], lambda self: sum(p.numel() == 0 for p in self._rank.model.module.model.parameters())
    )
    assert empty >= 10, "most parameters are nowhere whole"
    wide.step()
    assert min(wide.gaps("stale").values()) > 1e-3, "the step changed too little to see it arrive"
    report = wide.publish(1)
    assert report.num_bytes > 5 * BUCKET
    assert wide.run(wide.pool.versions()) == [1, 1]
    gaps = wide.gaps("first")
    assert set(gaps) == {0, 1}
    assert max(gaps.values()) < 1e-4


def test_after_the_death_of_a_replica_the_others_meet_again_and_the_run_goes_on(wide: World) -> None:
    wide.publish(2)
    wide.step()
    assert wide.pool.serving == (0, 1)
    processes = processes_of(actors_of(wide.pool)[1])
    processes[0].kill()
    began = time.monotonic()
    wide.publish(3)  # nobody has asked it for anything since
    assert time.monotonic() - began < 10
    assert wide.pool.serving == (0,)
    assert wide.gaps("without")[0] < 1e-4
    wide.step()
    wide.publish(4)
    assert wide.gaps("again")[0] < 1e-4

    async def back() -> None:
        while wide.pool.serving != (0, 1):
            await asyncio.sleep(0.1)

    wide.run(back())  # by a group of itself and the ranks, to which all meet again at the next publish
    assert wide.gaps("back")[1] < 1e-4
    wide.step()
    wide.publish(5)
    assert max(wide.gaps("all").values()) < 1e-4
    assert inside(wide.learner._actors[0], lambda _: sys.modules["stand_ins"].Communicator.alive) == 1
    assert_gone(processes)


def test_weights_that_arrive_otherwise_than_they_were_sent_are_refused(wide: World) -> None:
    wide.publish(6)
    wide.step()

    def damage_one(self: Any) -> None:
        group = self._rank.publisher._base._group
        send = group.broadcast

        def broadcast(tensor: Any, src: int) -> None:
            group.broadcast = send
            tensor[1000] ^= 1
            send(tensor, src)

        group.broadcast = broadcast

    inside(wide.learner._actors[0], damage_one)
    wide.told.clear()
    wide.publish(7)
    refused = [line for line in wide.told if re.search(r"weights arrived damaged: digest \w{16}, sent \w{16}", line)]
    assert len(refused) == 2, "all that took them start again"
    assert max(wide.gaps("sound").values()) < 1e-4


def test_an_engine_that_fails_ends_the_ranks_and_the_engines_that_wait_for_it(narrow: World) -> None:
    narrow.publish(1)
    narrow.step()

    def break_it(self: Any) -> None:
        async def fail(manifest: Any) -> None:
            raise RuntimeError("CUDA out of memory")

        self._engine._load_base = fail

    inside(actors_of(narrow.pool)[1], break_it)
    ranks = [process for actor in narrow.learner._actors for process in processes_of(actor)]
    engines = [process for actor in actors_of(narrow.pool) for process in processes_of(actor)]
    began = time.monotonic()
    with pytest.raises(AssertionError, match="ranks were lost"):  # a run would start others
        narrow.publish(2)
    assert 2 * PEER_S <= time.monotonic() - began < 2 * PEER_S + 5
    assert_gone(ranks + engines)
    with pytest.raises(ServiceError, match=r"ended before: the engines failed: .*CUDA out of memory"):
        narrow.run(narrow.learner.send_weights())


def test_an_engine_leaves_its_group_before_it_joins_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

    from rollout.weights.gpu import VerifiedNcclEngine

    order: list[str] = []
    monkeypatch.setattr(NCCLWeightTransferEngine, "init_transfer_engine", lambda *_: order.append("join"))
    engine = object.__new__(VerifiedNcclEngine)
    engine.model_update_group = SimpleNamespace(destroy=lambda: order.append("leave"))
    engine.init_transfer_engine(None)
    assert order == ["leave", "join"]


def actors_of(pool: RolloutPool) -> list[Any]:
    return [engine.actor for engine in pool._keeper.engines.values()]


def processes_of(actor: Any) -> list[psutil.Process]:
    """An actor's process, and those that it has started."""
    own = psutil.Process(inside(actor, lambda _: os.getpid()))
    return [own, *own.children(recursive=True)]


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive
