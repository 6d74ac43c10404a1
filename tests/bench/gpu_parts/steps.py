"""GRPO steps on one card with random rewards: sample, sleep, train, publish, audit; with the time and the memory of each."""

import asyncio
import time
from statistics import median

from tests.bench.gpu_parts.bench import Bench
from tests.bench.gpu_parts.pair import Pair, start_pair, told

STEPS = 4
RATE = 1e-6
"""Of the kind that real runs have; a stale engine must show at it too, after a few steps."""


def run(bench: Bench) -> None:
    asyncio.run(_run(bench))


async def _run(bench: Bench) -> None:
    pair = await start_pair(bench)
    try:
        await pair.publish(0)
        phases: dict[str, list[float]] = {}
        audits = []
        for step in range(1, STEPS + 1):
            audits.append(await one_step(pair, step, phases))
            bench.record(audits=audits, phases_s={name: median(values) for name, values in phases.items()})
        await stale(pair)
    finally:
        await pair.close()


async def one_step(pair: Pair, step: int, phases: dict[str, list[float]]) -> dict[str, float]:
    """Figures of the audit after it."""
    bench, cuda = pair.bench, pair.bench.device == "cuda"
    size = (2, 4, 24) if bench.tiny else (16, 8, 512)

    def phase(name: str, began: float) -> float:
        now = time.perf_counter()
        phases.setdefault(name, []).append(now - began)
        return now

    now = time.perf_counter()
    groups = await pair.sample(*size, seed=step)
    now = phase("sample", now)
    if step == 1:
        pair.memory("after sampling")
    if cuda:
        await pair.engine.sleep()
        now = phase("sleep", now)
    stats = await pair.of_rank(pair.rank.train, pair.batch(groups, seed=step), "grpo")
    now = phase("train", now)
    if step == 1:
        pair.memory("after training, engine asleep")
    await pair.publish(step)
    phase("publish", now)
    if step == 1:
        pair.memory("after the publish")
    bench.record(grad_norm=stats.grad_norm, memory_peak_gb=stats.memory_peak / 1e9, mismatch=stats.figures)
    fresh = await pair.sample(4, 2, 24 if bench.tiny else 256, seed=100 + step)
    return told(await pair.gap(fresh, seed=100 + step))


async def stale(pair: Pair) -> None:
    """The same figures where the engine is one larger step behind: what an audit must find."""
    groups = await pair.sample(4, 2, 24 if pair.bench.tiny else 256, seed=200)
    before = await pair.gap(groups, seed=200)
    for model in pair.rank.models.values():
        for group in model.engine.optimizer.param_groups:
            group["lr"] = 1e-4
        object.__setattr__(model.spec, "lr", 1e-4)
    for seed in range(3):
        await pair.of_rank(pair.rank.train, pair.batch(groups, seed=200), "grpo")
        after = await pair.gap(groups, seed=200)
        pair.bench.record(**{f"stale_by_{seed + 1}_steps_of_1e-4": told(after)})
    pair.bench.record(not_stale=told(before))
