"""Actors that an earlier start of a run has left on a cluster that was joined. Ray ends them when it notices that their driver is gone,
which takes a while, and never while the driver is only frozen; they hold the places that the run needs.
"""

import asyncio

import rollout.ray_defaults  # noqa: F401

import ray

from orchestrator.display import Display
from orchestrator.run.lease import Lease

PATIENCE_S = 20.0
"""Seconds that Ray has to end them by itself."""
POLL_S = 0.5


def namespace_of(lease: Lease) -> str:
    """Ray namespace of a start: no other run's, and no other start's."""
    return f"rayzero-{lease.run}-{lease.epoch}"


async def end_orphans(lease: Lease, display: Display) -> None:
    """End the actors of earlier starts of this run; those of others are left alone."""
    if lease.epoch == 1 or not await asyncio.to_thread(_of_before, lease):
        return
    display.line("actors of an earlier start are still there; waiting for Ray to end them")
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_S
    while left := await asyncio.to_thread(_of_before, lease):
        if loop.time() > until:
            for name, namespace in left:
                _kill(name, namespace)
            display.line(f"ended {len(left)} of them: {', '.join(sorted(name for name, _ in left))}")
            return
        await asyncio.sleep(POLL_S)


def _of_before(lease: Lease) -> list[tuple[str, str]]:
    """(name, namespace) of the actors of earlier starts."""
    mine = f"rayzero-{lease.run}-"
    return [
        (actor["name"], actor["namespace"])
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if (rest := actor["namespace"].removeprefix(mine)) != actor["namespace"]
        and rest.isdecimal()
        and int(rest) < lease.epoch
    ]


def _kill(name: str, namespace: str) -> None:
    try:
        ray.kill(ray.get_actor(name, namespace=namespace))
    except ValueError:
        return  # it has ended meanwhile
