"""Weights from one rank to one engine on the same card: by handles, with a digest, into an engine that slept."""

import asyncio
import time
from dataclasses import replace
from typing import Any

from rollout.errors import ServiceError
from tests.bench.gpu_parts.bench import Bench
from tests.bench.gpu_parts.pair import Pair, start_pair, told


def run(bench: Bench) -> None:
    asyncio.run(_run(bench))


async def _run(bench: Bench) -> None:
    pair = await start_pair(bench)
    try:
        pair.memory("engine asleep, model open")
        times, report = await pair.publish(1)
        pair.memory("after the publish, engine awake")
        bench.record(first=times, version=report.version)
        if bench.device == "cuda":
            began = time.perf_counter()
            await pair.engine.sleep()
            bench.record(sleep_s=time.perf_counter() - began)
            pair.memory("engine asleep again")
            times, _ = await pair.publish(2)
            bench.record(asleep=times)
        times, _ = await pair.publish(3)
        bench.record(awake=times)
        groups = await pair.sample(4, 4, 128, seed=1)
        bench.record(same_weights=told(await pair.gap(groups, seed=1)))
        bench.record(damaged=await damaged(pair))
        _two_cards(bench)
    finally:
        await pair.close()


async def damaged(pair: Pair) -> str:
    """What the engine says of weights whose digest is another. Nothing can be loaded afterwards."""
    manifest = await pair.of_rank(pair.rank.stage_weights, 4)
    assert manifest is not None
    if not manifest.payload:
        return "not asked: shared memory"
    wrong: dict[str, Any] = manifest.payload | {"digest": "00" * 8}
    try:
        await asyncio.wait_for(pair.engine.load(replace(manifest, payload=wrong)), 60)
    except Exception as problem:  # noqa: BLE001 - vLLM's core wraps what a worker raised
        if "damaged" not in str(problem) and not isinstance(problem, ServiceError):
            pair.bench.note(f"of another kind than expected: {problem!r}"[:300])
        return f"refused: {type(problem).__name__}: {str(problem).splitlines()[0][:200]}"
    raise AssertionError("weights with another digest were taken")


def _two_cards(bench: Bench) -> None:
    if bench.device == "cuda":
        import torch

        if torch.cuda.device_count() < 2:
            bench.note("NCCL between two processes was not tried: it needs two cards")
