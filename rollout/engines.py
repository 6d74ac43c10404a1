"""Where engines live: the place of each on the cluster, the actor there, its start, its restart and its end."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray
from ray.exceptions import ActorDiedError, RayActorError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rollout.actors import Room, SharedGpus, compute_environment, reserve_all, within
from rollout.engine import EngineSpec
from rollout.errors import ServiceError
from rollout.replica import RolloutReplica
from rollout.weights.manifest import Holding

ANSWER_S = 5.0
"""Longest wait for a process to say that it is there."""
POLL_S = 0.2
"""Seconds between two questions whether it is there again."""
CLOSE_S = 15.0
"""Longest wait for engines to end by themselves."""


@dataclass(eq=False, slots=True, kw_only=True)
class Engine:
    """One replica's place, actor, and what is known of its present process."""

    number: int
    actor: Any
    group: PlacementGroup | None = None
    """Reserved for it alone."""
    node: str = ""
    """Id of the node that it lives on; empty before its first start."""
    process: str = ""
    """Name of its process, as far as known."""
    holding: Holding | None = None
    """Weights that it holds; None: not known."""


class Engines:
    """Makes and ends the engines of one pool, all of one kind."""

    def __init__(
        self,
        spec: EngineSpec,
        model: "asyncio.Future[str]",
        *,
        cpus: float,
        gpus: float,
        resources: Mapping[str, float] | None,
        threads: int,
        start_timeout_s: float,
        room: Room,
        name: str,
        shared: SharedGpus | None,
    ) -> None:
        """`model`: the folder or hub id, once it is there. The rest as `RolloutPool.start` has it."""
        self._spec, self._model = spec, model
        self._bundle = {"CPU": cpus * spec.tensor_parallel, **(resources or {})}
        if spec.device == "cuda":
            self._bundle["GPU"] = shared.share if shared else gpus * spec.tensor_parallel
        self._environment = {
            **compute_environment(spec.device, threads),
            # vLLM's own limit on the start of its core, which is another one than ours.
            "VLLM_ENGINE_READY_TIMEOUT_S": str(int(start_timeout_s)),
        }
        self.start_timeout_s = start_timeout_s
        self._room, self._shared = room, shared
        self.name = name

    @property
    def tensor_parallel(self) -> int:
        return self._spec.tensor_parallel

    @property
    def can_change(self) -> bool:
        """Whether their number can change: those that share GPUs with ranks are as many as these."""
        return self._shared is None

    async def reserve(self, count: int, total: int) -> Sequence[PlacementGroup | None]:
        """Places for `count` more engines, of `total` then. Raises InputError where the cluster has none."""
        if self._shared:
            return [None] * count
        what = f"rollout.replicas = {total}, replica"
        return await reserve_all([(self._bundle, f"{what} {total - count + i}") for i in range(count)], self._room)

    def create(self, number: int, group: PlacementGroup | None) -> Engine:
        """The actor of engine `number`, called `<name>-<number>`, in its place."""
        return Engine(number=number, actor=self._actor(number, group), group=group)

    def _actor(self, number: int, group: PlacementGroup | None) -> Any:
        place = (group, 0) if group or not self._shared else (self._shared.group, number)
        remote = ray.remote(concurrency_groups={"progress": 1})(RolloutReplica)
        return remote.options(
            name=f"{self.name}-{number}",
            num_cpus=self._bundle["CPU"],
            num_gpus=self._bundle.get("GPU", 0),
            max_concurrency=10_000,
            max_restarts=-1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=place[0], placement_group_bundle_index=place[1]
            ),
            runtime_env={"env_vars": self._environment},
        ).remote(number, self._spec)

    async def start(self, engine: Engine) -> None:
        """Start the engine in the process that an actor has, or has again; it holds the model then.

        Raises:
            ServiceError: it did not start in time.
        """
        who = f"rollout replica {engine.number}"
        try:
            # Its node may have to come first.
            async with asyncio.timeout(self.start_timeout_s + self._room.coming_s):
                engine.process = await self._new_process(engine)
        except TimeoutError:
            limit = f"{self.start_timeout_s + self._room.coming_s:.0f} s (cluster.start_timeout_s)"
            raise ServiceError(f"timed out after {limit} waiting for a process of {who}") from None
        await within(engine.actor.prepare.remote(), self.start_timeout_s, f"{who} to import vLLM")
        model = await asyncio.shield(self._model)
        engine.node = await within(engine.actor.start.remote(model), self.start_timeout_s, f"{who} to start")
        engine.holding = Holding(base=model)

    async def _new_process(self, engine: Engine) -> str:
        """The name of a process that has no engine yet: Ray brings one where the one before has ended."""
        old, refused = engine.process, 0
        while True:
            try:
                process, _ = await within(engine.actor.alive.remote(), ANSWER_S, "an engine's process")
            except ServiceError as problem:
                if old and is_gone(problem):
                    # Ray has given this actor up: another one takes its place.
                    engine.actor = self._actor(engine.number, engine.group)
            else:
                if process != old:
                    return str(process)
                refused += 1
                if refused * POLL_S > ANSWER_S:
                    self.put_down(engine)
                    refused = 0
            await asyncio.sleep(POLL_S)

    def put_down(self, engine: Engine) -> None:
        """End a process that hangs, or must not go on; Ray starts another one in its place."""
        ray.kill(engine.actor, no_restart=False)

    async def end(self, engines: Sequence[Engine]) -> None:
        """End engines for good, with their actors and places. Those that have not started have nothing to close."""
        started = [engine for engine in engines if engine.node]
        closing = asyncio.gather(*(engine.actor.close.remote() for engine in started), return_exceptions=True)
        await asyncio.wait({asyncio.ensure_future(closing)}, timeout=CLOSE_S)
        for engine in engines:
            ray.kill(engine.actor)
            if engine.group:
                remove_placement_group(engine.group)


def is_gone(problem: BaseException) -> bool:
    """Whether a failed call says that the process it went to has ended."""
    return isinstance(problem.__cause__, ActorDiedError)


def is_away(problem: BaseException) -> bool:
    """Whether a failed call says that its process could not be reached: it may have ended, and it may be there again soon."""
    return isinstance(problem.__cause__, RayActorError) and not is_gone(problem)


def is_preempted(problem: BaseException) -> bool:
    """Whether the process ended because its node was taken away."""
    return bool(getattr(problem.__cause__, "preempted", False))
