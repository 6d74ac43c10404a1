"""Adapters from a DeepSpeed learner to a real vLLM engine that applies them."""

import asyncio
from pathlib import Path

import numpy as np

from rollout.types import RolloutGroup
from tests.engine.conftest import Rig, build_spec, learner_spec, start_pool
from tests.engine.test_publish import LONG, SHORT, gap, step


def sample(rig: Rig, name: str) -> RolloutGroup:
    group: RolloutGroup = rig.run(rig.pool.generate(name, rig.prompt("8+9="), SHORT))
    return group


def test_the_engine_applies_what_the_learner_trains(rig: Rig, tmp_path: Path) -> None:
    """One engine for all of it, for an engine takes twenty seconds to start."""
    settings = {"lora_rank": 4}
    pool = rig.run(start_pool(rig.folder, name="lora", lora_rank=4))
    try:
        whole, rig.pool = rig.pool, pool
        rig.open(reference_path=rig.folder, kl_coef=0.1, **settings)
        first = rig.publish(1, whole=False)
        step(rig)
        step(rig)
        # The audit that a run makes notices an adapter that has not been published.
        assert gap(rig, sample(rig, "stale")) > 1e-2
        second = rig.publish(2, whole=False)
        group = sample(rig, "fresh")
        assert gap(rig, group) < 1e-4
        assert all((c.policy_versions == 2).all() for c in group.completions)
        assert rig.run(pool.versions()) == [2]
        # Not even the first publish sends the base: the engine has started with it.
        assert 0 < first.num_bytes == second.num_bytes < 100_000
        # Nothing has changed: nothing is sent but the number.
        assert rig.publish(3, whole=False).num_bytes == 0
        assert rig.run(pool.versions()) == [3]
        assert gap(rig, sample(rig, "unchanged")) < 1e-4

        groups = rig.run(published_in_flight(rig))
        versions = [v for group in groups for c in group.completions for v in c.policy_versions.tolist()]
        assert set(versions) == {3, 4}
        assert all((np.diff(c.policy_versions) >= 0).all() for group in groups for c in group.completions)
        assert gap(rig, sample(rig, "after")) < 1e-4

        # A later stage has another base, which the same engine takes with its adapter, once.
        other = str(tmp_path / "other")
        rig.run(rig.learner.build(build_spec(seed=2), [], other))
        rig.run(rig.learner.open(learner_spec(other, **settings)))
        step(rig)
        assert rig.publish(5, whole=False).num_bytes > 300_000
        assert gap(rig, sample(rig, "other")) < 1e-4
        step(rig)
        assert rig.publish(6, whole=False).num_bytes < 100_000
        assert gap(rig, sample(rig, "other again")) < 1e-4
    finally:
        rig.pool = whole
        rig.run(pool.close())


async def published_in_flight(rig: Rig) -> list[RolloutGroup]:
    running = [asyncio.ensure_future(rig.pool.generate(f"fly{i}", rig.prompt(f"{i}+1="), LONG)) for i in range(12)]
    await asyncio.sleep(0.15)
    manifest = await rig.learner.stage_weights(4)
    await rig.pool.load(manifest, rig.learner)
    await rig.learner.release_weights(manifest)
    return list(await asyncio.gather(*running))
