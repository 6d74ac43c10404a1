"""One load of weights on several engines: what each of them answers, and whom the others disagree with."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rollout.actors import PEER_S, within
from rollout.errors import NobodyLoadedError, ServiceError
from rollout.fleet import Member
from rollout.keeper import Keeper
from rollout.relays import Relays, Sender
from rollout.weights.manifest import LoadReport, WeightManifest

Answer = LoadReport | BaseException


async def load_on(
    keeper: Keeper,
    members: Sequence[Member],
    manifest: WeightManifest,
    relays: Relays,
    sender: Sender,
    timeout_s: float,
) -> list[Answer]:
    """What each member answers to a load: its report, or why it has none. Where they load together (NCCL), and one fails, the
    others have a moment to answer, and have failed then: they wait for somebody who will not come.
    """
    what = f"engines to load policy version {manifest.version} (rollout.timeout_s)"
    nodes = [keeper.engines[member.id].node for member in members]
    try:
        here = await relays.spread(manifest, sender, nodes)

        async def one(member: Member, node: str) -> Any:
            arrived = here[node]
            if isinstance(arrived, BaseException):
                raise arrived
            call = keeper.engines[member.id].actor.load.remote(arrived)
            return await keeper.while_it_lives(member, within(call, timeout_s, what))

        loads = [asyncio.ensure_future(one(member, node)) for member, node in zip(members, nodes, strict=True)]
        try:
            if manifest.backend == "nccl" and manifest.has_base:
                await asyncio.wait(loads, return_when=asyncio.FIRST_EXCEPTION)
                await asyncio.wait(loads, timeout=PEER_S)
            else:
                await asyncio.wait(loads)
            return [_answer(load) for load in loads]
        finally:
            for load in loads:
                load.cancel()
    finally:
        await relays.release()


def _answer(load: "asyncio.Future[LoadReport]") -> Answer:
    if not load.done():
        return ServiceError("it waits for an engine or a rank that has failed")
    return load.exception() or load.result()


def disagreeing(reports: Mapping[int, LoadReport], manifest: WeightManifest) -> dict[int, ServiceError]:
    """Id of a member → how what it holds differs from what was sent or, where that cannot be told, from what most hold."""
    if not reports:
        return {}
    common, _ = Counter(report.checksums for report in reports.values()).most_common(1)[0]
    return {
        member: ServiceError(
            f"it holds other weights than were sent with publish {manifest.version}: version {report.version}, "
            f"checksums {report.checksums} ≠ {common}"
        )
        for member, report in reports.items()
        if report.version != manifest.version or report.checksums != common
    }


def nobody(answers: Iterable[BaseException], version: int) -> NobodyLoadedError:
    """Why no engine holds a version."""
    reasons = "; ".join(dict.fromkeys(str(answer) for answer in answers))
    return NobodyLoadedError(f"no rollout replica has loaded policy version {version}: {reasons}")
