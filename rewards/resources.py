"""What the reward functions of one process share: child processes, sandbox, models. Each is started when first needed."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewards.math.verdict import SYMBOLIC
from rewards.models.scorers import RemoteScorer, Scorer, open_scorer, scorer_key
from rewards.processes.pool import KillablePool
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import BrokenPackage, Limits, SandboxUnavailable
from rewards.types import FunctionSpec

FORMS_MODULE = "rewards.processes.forms"
"""Module that calls the user's functions, in the child."""
RETRY_S = 10.0
"""Seconds after a sandbox that did not start before it is tried again; until then whoever asks is told at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSettings:
    """How much the reward functions of one process may use."""

    processes: int = 1
    """Child processes, and so symbolic checks and user functions at the same time; also programs at the same time."""
    function_timeout_s: float = 10.0
    """Longest run of a user function on one completion."""
    preload: tuple[str, ...] = ()
    """Modules and files of user functions."""
    limits: Limits = field(default_factory=Limits)
    """Limits of programs whose task does not set its own."""
    allow_weak_sandbox: bool = False
    """Run programs even where the kernel lacks what contains them."""
    packages: tuple[str, ...] = ()
    """Packages of this environment that programs and their tests may import."""


class Resources:
    """Child processes, sandbox and models of one process. Whoever owns the rubrics owns them too; `close` ends what was started."""

    def __init__(
        self,
        settings: ResourceSettings,
        scorers: Mapping[str, Any] | None = None,
        start_timeout_s: float = 300.0,
    ) -> None:
        """
        Args:
            scorers: `scorer_key` → the actor that a model lives in; other models are opened in this process.
            start_timeout_s: longest import of what the child processes preload.
        """
        self.settings = settings
        self._start_timeout_s = start_timeout_s
        self._scorers: dict[str, Scorer] = {key: RemoteScorer(actor) for key, actor in (scorers or {}).items()}
        self._pool: KillablePool | None = None
        self._sandbox: Sandbox | None = None
        self._refused: SandboxUnavailable | BrokenPackage | None = None
        self._refused_at = 0.0
        self._starting = asyncio.Lock()

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    @property
    def pool(self) -> KillablePool:
        if self._pool is None:
            # The first import of sympy on a fresh machine compiles it.
            preload = (SYMBOLIC, FORMS_MODULE, *self.settings.preload)
            self._pool = KillablePool(self.settings.processes, preload=preload, start_timeout_s=self._start_timeout_s)
        return self._pool

    async def sandbox(self) -> Sandbox:
        """Raises SandboxUnavailable when the kernel lacks what contains hostile programs, BrokenPackage as its start does."""
        async with self._starting:
            if self._sandbox is None:
                if self._refused and time.monotonic() - self._refused_at < RETRY_S:
                    raise self._refused
                sandbox = Sandbox(
                    slots=self.settings.processes,
                    allow_weak=self.settings.allow_weak_sandbox,
                    packages=self.settings.packages,
                )
                try:
                    await sandbox.start()
                except (SandboxUnavailable, BrokenPackage) as problem:
                    # A try takes up to minutes, and a queue of completions would make them one after the other.
                    self._refused, self._refused_at = problem, time.monotonic()
                    raise
                self._sandbox = sandbox
        return self._sandbox

    async def scorer(self, spec: FunctionSpec) -> Scorer:
        """The model of a reward function. Raises InputError when it cannot be opened."""
        key = scorer_key(spec)
        async with self._starting:
            if key not in self._scorers:
                self._scorers[key] = await asyncio.to_thread(open_scorer, spec)
            return self._scorers[key]

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        if self._sandbox is not None:
            self._sandbox.close()
        for scorer in self._scorers.values():
            await scorer.close()
