"""What the services share about Ray's actors: their place, their environment, and answers that are waited for with a bound."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import rollout.ray_defaults  # noqa: F401

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from rollout.errors import InputError, ServiceError, told
from rollout.failures import failure
from rollout.waits import waiting

EnginesAnswer = TypeVar("EnginesAnswer")

POLL_S = 0.1
"""Seconds between two looks at whether a place is there."""
PEER_S = 5.0
"""Seconds that one side of a publish has to end by itself after the other failed."""


Device = Literal["cpu", "cuda"]
"""What actors that compute run on."""


@dataclass(frozen=True, slots=True)
class SharedGpus:
    """GPUs each of which a learner rank and an engine use in turns."""

    group: PlacementGroup
    """Bundle i is the GPU of rank i and of engine i."""
    share: float
    """Part of a GPU that each of the two is given by Ray."""


@dataclass(frozen=True, slots=True)
class Room:
    """How places on the cluster are waited for."""

    busy_s: float = 60.0
    """Longest wait for what others use now."""
    coming_s: float = 0.0
    """Longest wait for what the cluster does not have yet, and an autoscaler may bring; 0: that is refused at once."""
    say: Callable[[str], None] = lambda _: None
    """Told when a wait for what is not there begins."""


ANY_ROOM = Room()
"""Places that are there, or are given free within a minute."""


async def reserve(bundles: Sequence[Mapping[str, float]], what: str, room: Room) -> PlacementGroup:
    """A placement group on the cluster. While it is waited for, it is the demand that an autoscaler sees.

    Args:
        bundles: resources by name (`CPU`, `GPU`, custom ones) of each part, which lies on one node; a single bundle is one node's.
        what: the recipe key that asks for them, at the start of a message.

    Raises:
        InputError: the cluster lacks them, or they are not free in time.
    """
    wanted = [{name: amount for name, amount in bundle.items() if amount} or {"CPU": 0.001} for bundle in bundles]
    lacking = _lacking(wanted)
    if lacking and not room.coming_s:
        raise InputError(f"{what} needs {lacking}: lower it or add nodes (or wait for an autoscaler: cluster.wait_s)")
    if lacking:
        room.say(f"{what} needs {lacking}; waiting up to {room.coming_s:.0f} s for nodes to come")
    group = placement_group(wanted, strategy="STRICT_PACK" if len(wanted) == 1 else "PACK")
    limit = max(room.busy_s, room.coming_s)
    try:
        async with asyncio.timeout(limit):
            while placement_group_table(group)["state"] != "CREATED":
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        remove_placement_group(group)
        free = ray.available_resources()
        raise InputError(
            f"{what}: no place for {wanted} on the Ray cluster within {limit:.0f} s; {free.get('CPU', 0):g} CPUs and "
            f"{free.get('GPU', 0):g} GPUs are free: lower it, add nodes, or wait for other jobs"
        ) from None
    except BaseException:
        remove_placement_group(group)
        raise
    return group


def _lacking(bundles: Sequence[Mapping[str, float]]) -> str:
    """The first resource of which the cluster has less than is asked for, in words; empty: it has enough of all."""
    available = ray.cluster_resources()
    for name in ("CPU", "GPU", *sorted({name for bundle in bundles for name in bundle} - {"CPU", "GPU"})):
        wanted = sum(bundle.get(name, 0) for bundle in bundles)
        if wanted > available.get(name, 0):
            return f"{wanted:g} {name}{'s' if name.isupper() else ''}; the Ray cluster has {available.get(name, 0):g}"
    return ""


async def reserve_all(parts: Sequence[tuple[Mapping[str, float], str]], room: Room) -> list[PlacementGroup]:
    """A group for each (bundle, what asks for it), all of them or none; asked for at once, as an autoscaler wants it. Raises
    as `reserve` does."""
    waits = [asyncio.ensure_future(reserve([bundle], what, room)) for bundle, what in parts]
    try:
        return list(await asyncio.gather(*waits))
    except BaseException:
        for wait in waits:
            wait.cancel()
        for group in await asyncio.gather(*waits, return_exceptions=True):
            if isinstance(group, PlacementGroup):
                remove_placement_group(group)
        raise


def unreserve(group: PlacementGroup) -> None:
    """Give back what was reserved; actors there end."""
    remove_placement_group(group)


def compute_environment(device: str, threads: int) -> dict[str, str]:
    """Environment of an actor that computes.

    On a CPU host engine and learner share the cores. Threads that spin while they wait, OpenMP's default, take them
    from whoever has work: measured five times slower. Threads that sleep at once are woken up for every operation, which
    costs a small model up to a third of its speed (deploy/bench/learner-cpu.md). So they spin for some ten microseconds
    first.
    """
    if device == "cuda":
        return {}
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "2000",
        "KMP_BLOCKTIME": "0",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",  # of a host that has some, on which the recipe leaves them alone
        "TOKENIZERS_PARALLELISM": "false",
    }


async def both(
    engines: Awaitable[EnginesAnswer], ranks: Awaitable[Any], abandon: Callable[[str], Awaitable[None]]
) -> EnginesAnswer:
    """What the engines answer, in a call in which they and the learner's ranks wait for each other.

    Args:
        abandon: ends the ranks.

    Raises:
        ServiceError: a side failed. The other, which would wait for ever, is not waited for.
    """
    sides = asyncio.ensure_future(engines), asyncio.ensure_future(ranks)
    try:
        done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_EXCEPTION)
        failed = next((side for side in done if side.exception()), None)
        if failed is None:
            return sides[0].result()
        _, waiting = await asyncio.wait({sides[1]}, timeout=PEER_S)
        if waiting:
            await abandon(f"the engines failed: {failed.exception()}")
        return failed.result()
    finally:
        for side in sides:
            side.cancel()
        await asyncio.gather(*sides, return_exceptions=True)


async def within(awaitable: Any, timeout_s: float | None, what: str) -> Any:
    """Await an actor's answer for a bounded time (None: somebody else sees to its end); meanwhile it stands in the table of open
    waits (rollout/waits.py).

    Raises:
        InputError: as the actor raised it.
        ServiceError: as the actor raised it; any other exception of the actor's, or of Ray's; no answer in time; the actor is gone.
    """
    answer = asyncio.ensure_future(awaitable)
    # When this wait is cancelled, an answer that fails later has been asked for by nobody.
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    with waiting(what, math.inf if timeout_s is None else timeout_s) as wait:
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except RayError as problem:  # before TimeoutError and OSError, which some kinds of it are too
            raise failure(problem, what) from problem
        except TimeoutError:
            raise ServiceError(wait.ran_out()) from None
        except OSError as problem:
            raise told(problem, what) from problem


def node_here() -> str:
    """Id of the node that the actor, or the driver, that asks lives on."""
    return str(ray.get_runtime_context().get_node_id())


def said(answer: Any) -> str:
    """What an actor has answered; empty while it has not, and when it failed. Waits for nothing."""
    if answer is None or not ray.wait([answer], timeout=0)[0]:
        return ""
    try:
        return str(ray.get(answer))
    except RayError:
        return ""


def actor_name() -> str:
    """Name of the actor that asks, such as `rollout-0`; empty outside of one. As an actor's `repr` it is what the dashboard shows
    and what stands before the lines of its log.
    """
    return str(ray.get_runtime_context().get_actor_name() or "") if ray.is_initialized() else ""
