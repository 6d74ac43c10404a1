"""Engines without Ray or vLLM: what a pool asks of them, with every way to fail written in a test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from rollout.engines import Engine
from rollout.errors import InputError, ServiceError
from rollout.types import Completion, Prompt, Sampling
from rollout.weights.manifest import Holding, LoadReport, WeightManifest


class Actor:
    """Stands for the actor of one replica."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process = 0
        """Number of its process; 0 before the first start."""
        self.alive_again = asyncio.Event()
        self.version_now = 0
        self.tokens = 0
        self.frozen = False
        """Whether neither its process nor its engine answers."""
        self.core_frozen = False
        self.fault: BaseException | None = None
        """What every call to its engine ends with."""
        self.refuses: Callable[[str], bool] = lambda _: False
        """Groups that its engine raises for."""
        self.hangs: Callable[[str], bool] = lambda _: False
        """Groups that its engine stops at."""
        self.load_fault: BaseException | None = None
        self.hold = asyncio.Event()
        """Generation waits for it."""
        self.hold.set()
        self.asked: list[str] = []
        self.loads: list[int] = []
        self.generate = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._stream))
        for verb in ("alive", "version", "load", "sleep"):
            setattr(self, verb, SimpleNamespace(remote=self._asked(getattr(self, f"_{verb}"))))

    def _asked(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        """A call begins when it is made, whether somebody waits for it or not."""
        return lambda *given: asyncio.ensure_future(verb(*given))

    async def _stream(self, group_id: str, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Any]:
        self.asked.append(group_id)
        process = self.process
        await self.hold.wait()
        if self.fault:
            raise self.fault
        self.core_frozen = self.core_frozen or self.hangs(group_id)
        if process != self.process or self.frozen or self.core_frozen:
            await asyncio.sleep(60)
        if self.refuses(group_id):
            raise ServiceError(f"ValueError: {group_id}")
        self.tokens += sampling.n

        async def chunk() -> list[tuple[int, Completion]]:
            return [(i, completion(self.version_now)) for i in range(sampling.n)]

        yield chunk()

    async def _alive(self) -> tuple[str, int]:
        if self.frozen:
            await asyncio.sleep(60)
        return str(self.process), self.tokens

    async def _version(self) -> int:
        if self.frozen or self.core_frozen:
            await asyncio.sleep(60)
        if self.fault:
            raise self.fault
        return self.version_now

    async def _load(self, manifest: WeightManifest) -> LoadReport:
        if self.frozen:
            await asyncio.sleep(60)
        if self.load_fault:
            raise self.load_fault
        self.version_now = manifest.version
        self.loads.append(manifest.version)
        return LoadReport(replica=self.number, version=manifest.version, checksums=("sum",), pause_seconds=0.1)

    async def _sleep(self) -> bool:
        return False


class StandInEngines:
    """In place of what places engines on a cluster. `starts`: seconds, or what a start ends with; of all later ones the last."""

    tensor_parallel = 1
    can_change = True

    def __init__(self, *starts: float | BaseException) -> None:
        self.starts = list(starts) or [0.0]
        self.actors: dict[int, Actor] = {}
        self.told: list[str] = []
        """What was done, in order."""
        self.room = 99

    async def reserve(self, count: int, total: int) -> Sequence[None]:
        await asyncio.sleep(0)
        if total > self.room:
            raise InputError(f"rollout.replicas = {total} needs more CPUs")
        return [None] * count

    def create(self, number: int, group: None) -> Engine:
        self.actors[number] = Actor(number)
        return Engine(number=number, actor=self.actors[number], group=None)

    async def start(self, engine: Engine) -> None:
        actor = self.actors[engine.number]
        self.told.append(f"start {engine.number}")
        how = self.starts.pop(0) if len(self.starts) > 1 else self.starts[0]
        await asyncio.sleep(how if isinstance(how, float) else 0)
        if isinstance(how, BaseException):
            raise how
        actor.frozen = actor.core_frozen = False
        actor.fault = None
        actor.process += 1
        actor.version_now = 0
        engine.process, engine.node, engine.holding = str(actor.process), "node", Holding(base="model")

    def put_down(self, engine: Engine) -> None:
        self.told.append(f"put down {engine.number}")

    async def end(self, engines: Sequence[Engine]) -> None:
        self.told += [f"end {engine.number}" for engine in engines]


class Sender:
    node = "node"

    async def serve(self, manifest: WeightManifest) -> Any:
        raise AssertionError("one host")


def completion(version: int = 0) -> Completion:
    return Completion(
        text="a",
        token_ids=np.array([5], np.int32),
        rollout_logprobs=np.zeros(1, np.float32),
        policy_versions=np.full(1, version, np.int32),
        finish_reason="stop",
        seed=0,
    )
