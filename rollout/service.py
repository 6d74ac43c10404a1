"""The rollout service: Ray actors, each one vLLM engine, and the pool that the loop talks to."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import rollout.ray_defaults  # noqa: F401

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from rollout.actors import ANY_ROOM, Room, SharedGpus, actor_name, compute_environment, reserve_all, within
from rollout.engine import EngineSpec, Finished, VllmEngine, prepare
from rollout.errors import ServiceError
from rollout.router import Health, Router
from rollout.types import Completion, Prompt, RolloutGroup, Sampling
from rollout.weights.link import Source
from rollout.weights.manifest import PACKED_BUFFERS, Holding, LoadReport, WeightManifest
from rollout.weights.relay import WeightRelay

TRIES = 3
"""Times that a group is asked for of replicas that serve: what they cannot do three times, they cannot do."""


class RolloutReplica:
    """The actor round one engine. It serves nothing before `start`."""

    def __init__(self, index: int, spec: EngineSpec) -> None:
        self._index = index
        self._spec = spec

    def __repr__(self) -> str:
        return actor_name() or super().__repr__()

    async def prepare(self) -> None:
        """Import what the engine needs; a model is not needed yet."""
        prepare(self._spec)

    async def start(self, model_path: str) -> str:
        """Start the engine; returns the id of the node that it lives on."""
        self._engine = await VllmEngine.start(self._index, self._spec, model_path)
        return str(ray.get_runtime_context().get_node_id())

    async def generate(self, group_id: str, prompt: Prompt, sampling: Sampling) -> AsyncIterator[list[Finished]]:
        async for finished in self._engine.generate(group_id, prompt, sampling):
            yield finished

    async def load(self, manifest: WeightManifest) -> LoadReport:
        return await self._engine.load(manifest)

    async def sleep(self) -> bool:
        return await self._engine.sleep()

    async def init_transfer(self, init_info: dict[str, Any]) -> None:
        await self._engine.init_transfer(init_info)

    async def version(self) -> int:
        return await self._engine.version()

    async def close(self) -> None:
        await self._engine.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishReport:
    """One publish as the engines saw it."""

    version: int
    num_bytes: int
    seconds: float
    """Wall time until the last engine serves the new version."""
    pause_seconds: float
    """Longest standstill of generation on any replica."""


class Sender(Protocol):
    """Who has staged weights."""

    node: str
    """Id of the node whose shared memory they are in."""

    async def serve(self, manifest: WeightManifest) -> Source:
        """Where other hosts fetch the files of a manifest from, until it is released."""


class RolloutPool:
    """The replicas as one service: routed generation, loads on all of them, bounded waits."""

    def __init__(
        self,
        actors: list[Any],
        groups: list[PlacementGroup],
        nodes: Sequence[str],
        tensor_parallel: int,
        timeout_s: float,
        name: str = "rollout",
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tell`: hears of every group that is asked for again, and of every replica that serves no more."""
        self._actors = actors
        self._tensor_parallel = tensor_parallel
        self._groups = groups
        self._nodes = nodes
        self._router = Router(len(actors))
        self._timeout_s = timeout_s
        self._relays = Relays(name, timeout_s)
        self._tell = tell
        self._name = name
        self._asleep = False
        self.version = 0
        """Policy version that every serving replica holds."""
        self.holding: Holding | None = None
        """Weights that every serving replica holds, as far as known: a publish sends the others."""
        self.num_tokens = 0
        """Completion tokens sampled so far."""

    @classmethod
    async def start(
        cls,
        spec: EngineSpec,
        model: "asyncio.Future[str]",
        *,
        replicas: int,
        cpus: float,
        gpus: float,
        resources: Mapping[str, float] | None = None,
        threads: int,
        timeout_s: float,
        start_timeout_s: float,
        room: Room = ANY_ROOM,
        name: str = "rollout",
        shared: SharedGpus | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> "RolloutPool":
        """Place and start every replica. The actors are called `<name>-<index>`.

        Args:
            model: the folder or hub id, once it is there.
            resources: custom ones of the cluster's nodes that each replica takes.
            room: how their places are waited for.
            shared: GPUs that learner ranks use too, in place of some of their own.

        Raises:
            InputError: the cluster cannot place them.
            ServiceError: an engine failed to start in time.
        """
        bundle = {"CPU": cpus * spec.tensor_parallel, **(resources or {})}
        if spec.device == "cuda":
            bundle["GPU"] = shared.share if shared else gpus * spec.tensor_parallel
        what = f"rollout.replicas = {replicas}, replica"
        groups = [] if shared else await reserve_all([(bundle, f"{what} {i}") for i in range(replicas)], room)
        places = [(shared.group, i) for i in range(replicas)] if shared else [(group, 0) for group in groups]
        remote = ray.remote(RolloutReplica)
        actors = [
            remote.options(
                name=f"{name}-{i}",
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                max_concurrency=10_000,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=place
                ),
                runtime_env={"env_vars": compute_environment(spec.device, threads)},
            ).remote(i, spec)
            for i, (group, place) in enumerate(places)
        ]
        preparing = asyncio.gather(*(actor.prepare.remote() for actor in actors))
        await within(preparing, start_timeout_s, "rollout replicas to import vLLM")
        model_path = await model
        starts = [actor.start.remote(model_path) for actor in actors]
        nodes = await within(asyncio.gather(*starts), start_timeout_s, "rollout replicas to start")
        pool = cls(actors, groups, nodes, spec.tensor_parallel, timeout_s, name, tell)
        pool.holding = Holding(base=model_path)
        return pool

    @property
    def replicas(self) -> int:
        return len(self._actors)

    async def generate(
        self, group_id: str, prompt: Prompt, sampling: Sampling, finished: "Callable[[Completion], None] | None" = None
    ) -> RolloutGroup:
        """A group from the least busy replica; from another one when it fails or does not come in time, at most `TRIES` times
        beside those in which a replica died.

        Args:
            finished: called with every completion as it comes back. After a failure it sees those of the next try too;
                only the completions of the returned group count.

        Raises:
            ServiceError: no replica completed it.
        """
        tokens = sampling.n * sampling.max_tokens
        failures: list[str] = []
        tried: set[int] = set()
        tries = 0
        while tries < TRIES and (self.serving or not failures):
            index = self._router.acquire(tokens, tried)
            try:
                return await self.generate_on(index, group_id, prompt, sampling, finished)
            except ServiceError as problem:
                failures.append(str(problem))
            finally:
                self._router.release(index, tokens)
            tried.add(index)
            if await self._fault(index):
                continue
            tries += 1
            if tries < TRIES:
                self._tell(f"{failures[-1]}; asked for again, try {tries + 1} of {TRIES}")
        raise ServiceError(f"group {group_id} could not be generated: {'; '.join(failures)}")

    async def generate_on(
        self,
        index: int,
        group_id: str,
        prompt: Prompt,
        sampling: Sampling,
        finished: "Callable[[Completion], None] | None" = None,
    ) -> RolloutGroup:
        """A group from one given replica (audits)."""
        began = time.perf_counter()
        completions: dict[int, Completion] = {}
        stream = self._actors[index].generate.options(num_returns="streaming").remote(group_id, prompt, sampling)

        async def receive() -> None:
            async for chunk in stream:
                for i, completion in await chunk:
                    completions[i] = completion
                    if finished:
                        finished(completion)

        what = f"replica {index} to generate {group_id} (rollout.timeout_s)"
        try:
            await within(receive(), self._timeout_s, what)
        except BaseException:
            # Nobody waits for it any more: the engine drops the request, and computes what somebody waits for.
            ray.cancel(stream)
            raise
        group = RolloutGroup(
            group_id=group_id,
            prompt=prompt,
            completions=tuple(completions[i] for i in range(sampling.n)),
            replica=index,
            seconds=time.perf_counter() - began,
        )
        self.num_tokens += group.num_tokens
        return group

    async def load(self, manifest: WeightManifest, sender: Sender) -> PublishReport:
        """Load a manifest on every serving replica and compare versions and checksums.

        Raises:
            ServiceError: an engine did not load in time, or holds other weights than were sent.
        """
        if not self._router.serving:
            raise ServiceError(
                f"none of the {self.replicas} rollout replicas is left to load version {manifest.version}"
            )
        began = time.perf_counter()
        self.holding = None  # until all of them have answered
        try:
            here = await self._relays.spread(manifest, sender, [self._nodes[i] for i in self._router.serving])
            calls = [self._actors[i].load.remote(here[self._nodes[i]]) for i in self._router.serving]
            reports: list[LoadReport] = await within(
                asyncio.gather(*calls), self._timeout_s, f"engines to load policy version {manifest.version}"
            )
        finally:
            await self._relays.release()
        _agree(reports, manifest)
        self.version, self.holding = manifest.version, manifest.holding
        self._asleep = False
        return PublishReport(
            version=manifest.version,
            num_bytes=manifest.num_bytes,
            seconds=time.perf_counter() - began,
            pause_seconds=max(report.pause_seconds for report in reports),
        )

    async def roll_call(self) -> None:
        """Notice the replicas that have died since they were last asked for anything: a load would wait for them, or fail.

        Raises:
            ServiceError: all of them have.
        """

        failures = await asyncio.gather(*(self._fault(replica) for replica in self.serving))
        if not self.serving:
            raise ServiceError(
                f"none of the {self.replicas} rollout replicas is left: {'; '.join(filter(None, failures))}"
            )

    async def _fault(self, replica: int) -> str:
        """Why a replica serves no more, having asked it: its process or its engine is gone, or says nothing. Empty: it serves."""
        try:
            await within(self._actors[replica].version.remote(), self._timeout_s, f"replica {replica} to answer")
        except ServiceError as problem:
            if replica in self.serving:
                self._router.mark(replica, Health.DEAD)
                self._tell(f"rollout replica {replica} serves no more, {len(self.serving)} do: {problem}")
            return str(problem)
        return ""

    async def sleep(self) -> None:
        """Let every serving engine leave its GPU's memory to others until the next `load`."""
        self._asleep = True
        calls = [self._actors[i].sleep.remote() for i in self._router.serving]
        if not all(await within(asyncio.gather(*calls), self._timeout_s, "engines to fall asleep")):
            self.holding = None

    @property
    def serving(self) -> tuple[int, ...]:
        """Replicas that are not dead."""
        return tuple(self._router.serving)

    def members(self) -> list[dict[str, Any]]:
        """Every replica by the name of its actor: its state (`serving`, `dead`, `asleep`), and tokens that it owes at most."""
        serving = "asleep" if self._asleep else "serving"
        states = [serving if i in self.serving else "dead" for i in range(self.replicas)]
        return [
            {"name": f"{self._name}-{i}", "state": state, "node": self._nodes[i], "owed_tokens": owed}
            for i, (state, owed) in enumerate(zip(states, self._router.outstanding, strict=True))
        ]

    @property
    def workers(self) -> int:
        """Engine workers of all serving replicas."""
        return len(self.serving) * self._tensor_parallel

    async def meet(self, address: str, port: int, world_size: int, bucket_bytes: int) -> None:
        """Every serving engine worker joins the learner's NCCL group; the learner must be joining it at the same time."""
        calls = [
            self._actors[replica].init_transfer.remote(
                {
                    "master_address": address,
                    "master_port": port,
                    "rank_offset": 1 + place * self._tensor_parallel,
                    "world_size": world_size,
                    "packed": True,
                    "packed_buffer_size_bytes": bucket_bytes,
                    "packed_num_buffers": PACKED_BUFFERS,
                }
            )
            for place, replica in enumerate(self.serving)
        ]
        await within(asyncio.gather(*calls), self._timeout_s, f"engines to meet the learner at {address}:{port}")

    async def versions(self) -> list[int]:
        """The policy version of each serving replica, as its vLLM itself says it."""
        calls = [self._actors[i].version.remote() for i in self.serving]
        return list(await within(asyncio.gather(*calls), self._timeout_s, "engines to tell their version"))

    async def close(self) -> None:
        """End the engines, then their actors and reservations."""
        closing = asyncio.gather(*(actor.close.remote() for actor in self._actors), return_exceptions=True)
        await asyncio.wait({asyncio.ensure_future(closing)}, timeout=15)
        self._relays.close()
        for actor in self._actors:
            ray.kill(actor)
        for group in self._groups:
            remove_placement_group(group)


class Relays:
    """One relay on every host that engines live on and the learner's rank 0 does not."""

    def __init__(self, name: str, timeout_s: float) -> None:
        """`name`: of the pool. `timeout_s`: longest wait for one publish."""
        self._name, self._timeout_s = name, timeout_s
        self._actors: dict[str, Any] = {}
        """Id of a node → the relay there."""

    async def spread(
        self, manifest: WeightManifest, sender: Sender, nodes: Iterable[str]
    ) -> Mapping[str, WeightManifest]:
        """Node → the manifest with files that are there: each host fetches them once, from the host before it in a row.

        Raises:
            ServiceError: they did not reach a host, neither along the row nor from the sender itself.
        """
        nodes = dict.fromkeys(nodes)
        beyond = [node for node in nodes if node != sender.node and manifest.files]
        here = {node: manifest for node in nodes if node not in beyond}
        if not beyond:
            return here
        origin = await sender.serve(manifest)
        relays = [self._relay(node) for node in beyond]
        sources = await asyncio.gather(
            *(
                within(relay.source.remote(), self._timeout_s, _on(node))
                for relay, node in zip(relays, beyond, strict=True)
            )
        )
        arrived = await asyncio.gather(
            *map(self._receive, beyond, [manifest] * len(beyond), [origin, *sources[:-1]]), return_exceptions=True
        )
        for node, found in zip(beyond, arrived, strict=True):
            if isinstance(found, ServiceError):
                # Whoever stands behind a host that failed failed with it, and is served without it.
                found = await self._receive(node, manifest, origin)
            elif isinstance(found, BaseException):
                raise found
            here[node] = found
        return here

    async def release(self) -> None:
        """Free what was received."""
        freeing = asyncio.gather(*(relay.release.remote() for relay in self._actors.values()), return_exceptions=True)
        await asyncio.wait({asyncio.ensure_future(freeing)}, timeout=self._timeout_s)

    def close(self) -> None:
        for relay in self._actors.values():
            ray.kill(relay)
        self._actors.clear()

    async def _receive(self, node: str, manifest: WeightManifest, source: Source) -> WeightManifest:
        receiving = self._actors[node].receive.remote(manifest, source)
        arrived: WeightManifest = await within(receiving, self._timeout_s, _on(node))
        return arrived

    def _relay(self, node: str) -> Any:
        if node not in self._actors:
            address = next(each["NodeManagerAddress"] for each in ray.nodes() if each["NodeID"] == node)
            self._actors[node] = (
                ray.remote(WeightRelay)
                .options(
                    name=f"{self._name}-relay-{len(self._actors)}",
                    num_cpus=0,
                    max_restarts=-1,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                )
                .remote(address)
            )
        return self._actors[node]


def _on(node: str) -> str:
    return f"the weights' relay on node {node[:12]}"


def _agree(reports: list[LoadReport], manifest: WeightManifest) -> None:
    for report in reports:
        if report.version != manifest.version or report.checksums != reports[0].checksums:
            raise ServiceError(
                f"replica {report.replica} holds other weights than replica {reports[0].replica} after publish "
                f"{manifest.version}: version {report.version}, checksums {report.checksums} ≠ {reports[0].checksums}"
            )
