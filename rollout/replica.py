"""The Ray actor round one engine, and what it says of itself."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray

from rollout.actors import actor_name
from rollout.engine import EngineSpec, Finished, VllmEngine, prepare
from rollout.errors import ServiceError
from rollout.storage.folders import local_folder
from rollout.types import Prompt, Sampling
from rollout.weights.manifest import LoadReport, WeightManifest


class RolloutReplica:
    """The actor round one engine. It serves nothing before `start`; Ray starts its process again when that ends."""

    def __init__(self, index: int, spec: EngineSpec) -> None:
        self._index = index
        self._spec = spec
        self._process = uuid.uuid4().hex
        self._engine: VllmEngine | None = None

    def __repr__(self) -> str:
        return actor_name() or super().__repr__()

    async def prepare(self) -> None:
        """Import what the engine needs; a model is not needed yet."""
        prepare(self._spec)

    async def start(self, model_path: str) -> str:
        """Start the engine; returns the id of the node that it lives on."""
        folder = await asyncio.to_thread(local_folder, model_path)
        self._engine = await VllmEngine.start(self._index, self._spec, folder)
        return str(ray.get_runtime_context().get_node_id())

    @ray.method(concurrency_group="progress")
    async def alive(self) -> tuple[str, int]:
        """(name of this process, which another has after a restart; completion tokens sampled so far). Answered whatever the
        engine is at: it does not ask it."""
        return self._process, self._engine.num_tokens if self._engine else 0

    async def generate(self, group_id: str, prompt: Prompt, sampling: Sampling) -> AsyncIterator[list[Finished]]:
        async for finished in self._up.generate(group_id, prompt, sampling):
            yield finished

    async def load(self, manifest: WeightManifest) -> LoadReport:
        return await self._up.load(manifest)

    async def sleep(self) -> bool:
        return await self._up.sleep()

    async def init_transfer(self, init_info: dict[str, Any]) -> None:
        await self._up.init_transfer(init_info)

    async def version(self) -> int:
        return await self._up.version()

    async def close(self) -> None:
        if self._engine:
            await self._engine.close()

    @property
    def _up(self) -> VllmEngine:
        if self._engine is None:
            raise ServiceError(f"replica {self._index} has no engine: its process was started again")
        return self._engine
