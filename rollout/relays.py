"""How the files of a publish reach the hosts that engines live on and the learner does not: a row of relays."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import rollout.ray_defaults  # noqa: F401

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rollout.actors import within
from rollout.errors import ServiceError
from rollout.weights.link import Source
from rollout.weights.manifest import WeightManifest
from rollout.weights.relay import WeightRelay


class Sender(Protocol):
    """Who has staged weights."""

    node: str
    """Id of the node whose shared memory they are in."""

    async def serve(self, manifest: WeightManifest) -> Source:
        """Where other hosts fetch the files of a manifest from, until it is released."""


class Relays:
    """One relay on every host that engines live on and the learner's rank 0 does not."""

    def __init__(self, name: str, timeout_s: float) -> None:
        """`name`: of the pool. `timeout_s`: longest wait for one publish."""
        self._name, self._timeout_s = name, timeout_s
        self._actors: dict[str, Any] = {}
        """Id of a node → the relay there."""

    async def spread(
        self, manifest: WeightManifest, sender: Sender, nodes: Iterable[str]
    ) -> Mapping[str, WeightManifest | BaseException]:
        """Node → the manifest with files that are there: each host fetches them once, from the host before it in a row. Or why they
        did not reach it, neither along the row nor from the sender itself.
        """
        nodes = dict.fromkeys(nodes)
        beyond = [node for node in nodes if node != sender.node and manifest.files]
        here: dict[str, WeightManifest | BaseException] = {node: manifest for node in nodes if node not in beyond}
        if not beyond:
            return here
        origin = await sender.serve(manifest)
        sources = await asyncio.gather(*map(self._source, beyond), return_exceptions=True)
        upstream = [origin if isinstance(source, BaseException) else source for source in (origin, *sources[:-1])]
        arrived = await asyncio.gather(
            *map(self._receive, beyond, [manifest] * len(beyond), upstream), return_exceptions=True
        )
        for node, found in zip(beyond, arrived, strict=True):
            here[node] = found
            if isinstance(found, ServiceError):
                # Whoever stands behind a host that failed failed with it, and is served without it.
                (here[node],) = await asyncio.gather(self._receive(node, manifest, origin), return_exceptions=True)
        return here

    async def release(self) -> None:
        """Free what was received."""
        freeing = asyncio.gather(*(relay.release.remote() for relay in self._actors.values()), return_exceptions=True)
        await asyncio.wait({asyncio.ensure_future(freeing)}, timeout=self._timeout_s)

    def close(self) -> None:
        for relay in self._actors.values():
            ray.kill(relay)
        self._actors.clear()

    async def _source(self, node: str) -> Source:
        source: Source = await within(self._relay(node).source.remote(), self._timeout_s, _on(node))
        return source

    async def _receive(self, node: str, manifest: WeightManifest, source: Source) -> WeightManifest:
        receiving = self._relay(node).receive.remote(manifest, source)
        arrived: WeightManifest = await within(receiving, self._timeout_s, _on(node))
        return arrived

    def _relay(self, node: str) -> Any:
        if node not in self._actors:
            address = next((each["NodeManagerAddress"] for each in ray.nodes() if each["NodeID"] == node), None)
            if address is None:
                raise ServiceError(f"node {node[:12]} is gone")
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
