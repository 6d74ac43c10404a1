"""What a run that goes on says when it is asked what it waits for: `rayzero status RUN --debug`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.cluster.services import Services
from orchestrator.loop.pulse import Pulse
from orchestrator.run.control import Sizes
from orchestrator.run.debug import DEBUG
from orchestrator.run.watchdog import task_stacks, thread_stacks
from rollout.waits import open_waits

RANKS_S = 10.0
"""Seconds that the ranks have to say what they are at."""


def or_debug(
    scale: Callable[[Sizes], Awaitable[dict[str, Any]]], services: Services, pulse: Pulse
) -> Callable[[Sizes], Awaitable[dict[str, Any]]]:
    """What a run does when something is asked of it: it says what it waits for, or changes its sizes."""

    async def answer(sizes: Sizes) -> dict[str, Any]:
        return await debug_report(services, pulse) if DEBUG in sizes else await scale(sizes)

    return answer


async def debug_report(services: Services, pulse: Pulse) -> dict[str, Any]:
    """Open waits, queues, phases, members, notes of ranks, stacks of tasks and threads, as plain values."""
    now, context = time.monotonic(), pulse.context
    waits = [
        {
            "who": wait.who,
            "what": wait.what,
            "seconds": round(now - wait.since, 1),
            "idle_seconds": round(wait.idle_s, 1),
            "limit_s": wait.limit_s if wait.limit_s < float("inf") else None,
        }
        for wait in open_waits()
    ]
    try:
        ranks = await asyncio.wait_for(services.rank_notes(), RANKS_S)
    except TimeoutError:
        ranks = [f"no answer within {RANKS_S:.0f} s"]
    return {
        "waits": waits,
        "stage": context.stage.name if context else "",
        "queues": context.queues() if context else {},
        "phases": {name: round(seconds, 1) for name, seconds in context.clocks.going_on().items()} if context else {},
        "services": services.states(),
        "ranks": ranks,
        "stacks": task_stacks(asyncio.get_running_loop()) | thread_stacks(),
    }
