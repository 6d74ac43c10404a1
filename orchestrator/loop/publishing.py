"""The way of the weights from the learner into the engines, which is also the only door by which a replica comes to serve.

A publish is asked for by the stage's page after a step. Between two of them a replica that has come (back) is let in by
another publish, to it alone, under the number that the others hold: never in the middle of an update of the learner.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from learner.service import LearnerGroup
from orchestrator.clock import PhaseClocks
from orchestrator.cluster.services import Services
from orchestrator.loop.audit import AuditorOf
from orchestrator.run.room import with_room
from rollout.actors import both
from rollout.errors import NobodyLoadedError, ServiceError
from rollout.service import Audit, PublishReport

TRIES = 3
"""Times that a publish is begun anew when every engine died of it, or during it."""


class Publishing:
    """Publishes of one stage."""

    def __init__(
        self, services: Services, clocks: PhaseClocks, auditor: AuditorOf, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """`auditor`: compares those that come with the learner. `tell`: hears that there is no room for the weights."""
        self._services, self._clocks, self._auditor, self._tell = services, clocks, auditor, tell
        self._weights = asyncio.Lock()
        """Held while the learner's weights change, or are sent."""
        self._version: int | None = None
        """Number of the weights that the learner holds; None before the stage's first publish."""
        self._letting_in: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def training(self) -> AsyncIterator[None]:
        """The learner makes the next version of the weights."""
        async with self._weights:
            yield
            if self._version is not None:
                self._version += 1

    async def publish(self, version: int) -> PublishReport:
        """Send the learner's weights, as `version`, to every engine that can take them; the others serve no more until they have.

        Raises:
            ServiceError: no engine is there, and none has come back in time.
        """
        async with self._weights:
            report = await self._send(version, joining=False)
            assert report is not None, "somebody was waited for"
            self._version = version
        if self._letting_in is None:
            self._letting_in = asyncio.create_task(self._let_in())
        return report

    def close(self) -> None:
        """Nobody comes in any more."""
        if self._letting_in:
            self._letting_in.cancel()

    async def _let_in(self) -> None:
        """Publish to replicas that wait at the door whenever the learner's weights stand still."""
        pool = await self._services.rollout()
        try:
            while True:
                await pool.joiners()
                async with self._weights:
                    assert self._version is not None
                    # Where not every step is published the learner may be ahead: then all engines get what it has.
                    await self._send(self._version, joining=self._version == pool.version)
        except Exception as problem:  # noqa: BLE001
            pool.give_up(problem)

    async def _send(self, version: int, *, joining: bool) -> PublishReport | None:
        """`joining`: to those alone that do not serve yet; None: there was none, or none has come through."""
        learner = await self._services.learner()
        audit = (await self._auditor(version)).joiners()
        began = time.perf_counter()
        for left in reversed(range(TRIES)):
            try:
                with self._clocks.publish.running():
                    report = await learner.attempt("publish", partial(self._once, version, audit, joining))
                return report and replace(report, seconds=time.perf_counter() - began)
            except NobodyLoadedError:
                if joining:
                    return None
                if not left:
                    raise
        raise ServiceError(f"policy version {version} was not published")

    async def _once(self, version: int, audit: Audit, joining: bool, ranks: LearnerGroup) -> PublishReport | None:
        """From these ranks to the engines that are there now."""
        pool = await self._services.rollout()
        members = await pool.roll_call(joining=joining)
        if not members:
            return None
        holding = pool.holding_of(members)
        manifest = await with_room(lambda: ranks.stage_weights(version, holding), self._tell)
        if manifest.backend == "nccl" and manifest.has_base:
            await self._services.meet(ranks, members)
        loading = pool.load(manifest, ranks, members, joining=joining, audit=audit)
        try:
            report = await both(loading, ranks.send_weights(), ranks.abandon)
        except ServiceError:
            await ranks.answer()  # what engines lack when ranks are lost is no fault of theirs
            await ranks.release_weights(manifest)
            raise
        await ranks.release_weights(manifest)
        return report
