"""Weights from a DeepSpeed learner to a real vLLM engine, and the audit that would notice if they were not there."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.batch import TrainingSequence, make_batch
from rollout.errors import ServiceError
from rollout.types import RolloutGroup, Sampling
from rollout.weights.link import Source
from rollout.weights.manifest import SHARED_MEMORY, WeightManifest
from tests.engine.conftest import Rig, build_spec, learner_spec, start_pool

LONG = Sampling(n=4, max_tokens=100, seed=11)
SHORT = Sampling(n=4, max_tokens=24, seed=12)


def rows_of(group: RolloutGroup, advantage: float = 0.0) -> list[TrainingSequence]:
    return [
        TrainingSequence(
            token_ids=np.concatenate([np.array(group.prompt.token_ids), c.token_ids]).astype(np.int64),
            first_target=len(group.prompt.token_ids),
            advantage=advantage,
            rollout_logprobs=c.rollout_logprobs,
        )
        for c in group.completions
    ]


def batch_of(rows: list[TrainingSequence]) -> Any:
    return make_batch(
        rows,
        ranks=1,
        mini_batches=1,
        micro_batch_tokens=256,
        length_norm="sequence",
        constant_length=100,
        temperature=1.0,
        seed=0,
    )


def gap(rig: Rig, group: RolloutGroup) -> float:
    rows = rows_of(group)
    gaps = rig.run(rig.learner.logprob_gaps(batch_of(rows), [0] * len(rows)))
    return float(gaps[0].largest)


def step(rig: Rig) -> None:
    """One optimizer step that really moves the policy."""
    group = rig.run(rig.pool.generate("step", rig.prompt("3+4="), SHORT))
    rows = [replace(row, advantage=1.0 if i % 2 else -1.0) for i, row in enumerate(rows_of(group))]
    rig.run(rig.learner.train(batch_of(rows), "grpo"))


def test_after_a_publish_engine_and_learner_agree_and_report(rig: Rig) -> None:
    rig.open()
    step(rig)
    report = rig.publish(5)
    assert report.version == 5
    assert report.num_bytes > 100_000
    assert 0 < report.pause_seconds <= report.seconds
    assert rig.run(rig.pool.versions()) == [5]
    group = rig.run(rig.pool.generate("after", rig.prompt("8+9="), SHORT))
    assert gap(rig, group) < 1e-4
    assert all((c.policy_versions == 5).all() for c in group.completions)


def test_an_engine_with_stale_weights_is_caught(rig: Rig) -> None:
    rig.open()
    rig.publish(1)
    step(rig)  # trained, not published
    group = rig.run(rig.pool.generate("stale", rig.prompt("8+9="), SHORT))
    assert gap(rig, group) > 1e-2


def test_requests_in_flight_survive_and_change_version_in_the_middle(rig: Rig) -> None:
    rig.open()
    rig.publish(7)

    async def swap_while_generating() -> RolloutGroup:
        # Enough work that the swap falls into the middle of it.
        running = [asyncio.ensure_future(rig.pool.generate(f"fly{i}", rig.prompt(f"{i}+1="), LONG)) for i in range(12)]
        await asyncio.sleep(0.15)
        manifest = await rig.learner.stage_weights(8)
        await rig.pool.load(manifest, rig.learner)
        await rig.learner.release_weights(manifest)
        return await asyncio.gather(*running)

    groups = rig.run(swap_while_generating())
    versions = [v for group in groups for c in group.completions for v in c.policy_versions.tolist()]
    assert set(versions) == {7, 8}
    for group in groups:
        for completion in group.completions:
            assert (np.diff(completion.policy_versions) >= 0).all()
    # The weights are the same under both numbers, so every token must still be the learner's.
    assert max(gap(rig, group) for group in groups) < 1e-4


def test_damaged_weights_are_refused(rig: Rig) -> None:
    rig.open()
    manifest = rig.run(rig.learner.stage_weights(20))
    torn = replace(manifest, buckets=(replace(manifest.buckets[0], checksum=1), *manifest.buckets[1:]))
    path = Path(manifest.buckets[0].path)
    assert path.is_relative_to(SHARED_MEMORY)
    assert path.stat().st_mode & 0o077 == 0

    from rollout.weights.shared_memory import open_verified

    with pytest.raises(ServiceError, match="arrived damaged"):
        open_verified(str(path), torn.buckets[0].num_bytes, torn.buckets[0].checksum)
    rig.run(rig.learner.release_weights(manifest))
    assert not path.exists()


def test_weights_reach_engines_that_share_no_memory_with_the_learner(rig: Rig) -> None:
    """Through a relay, of a host that is this one; those of several hosts are in tests/cluster/."""

    @dataclass
    class Elsewhere:
        node: str = "a node of its own"

        async def serve(self, manifest: WeightManifest) -> Source:
            return await rig.learner.serve(manifest)

    rig.open()
    step(rig)
    manifest = rig.run(rig.learner.stage_weights(30))
    report = rig.run(rig.pool.load(manifest, Elsewhere()))
    rig.run(rig.learner.release_weights(manifest))
    assert report.version == 30
    group = rig.run(rig.pool.generate("remote", rig.prompt("8+9="), SHORT))
    assert gap(rig, group) < 1e-4
    assert not list(SHARED_MEMORY.glob("rayzero-*/relay-30-*"))


def test_every_tensor_parallel_worker_gets_its_part(rig: Rig) -> None:
    rig.open()
    pool = rig.run(start_pool(rig.folder, tensor_parallel=2, name="wide"))
    try:
        single, rig.pool = rig.pool, pool
        step(rig)
        assert rig.publish(3).version == 3
        assert rig.run(pool.versions()) == [3]
        group = rig.run(pool.generate("wide", rig.prompt("8+9="), SHORT))
        assert gap(rig, group) < 1e-4
    finally:
        rig.pool = single
        rig.run(pool.close())


def test_tied_embeddings_are_published_exactly(rig: Rig, tmp_path: Path) -> None:
    """The CPU backend keeps a packed copy of a tied head; without care it would keep serving the old one."""
    folder = str(tmp_path / "tied")
    rig.run(rig.learner.build(build_spec(tied=True), [], folder))
    rig.run(rig.learner.open(learner_spec(folder)))
    pool = rig.run(start_pool(folder, name="tied"))
    try:
        untied, rig.pool = rig.pool, pool
        step(rig)
        rig.publish(1)
        group = rig.run(pool.generate("tied", rig.prompt("8+9="), SHORT))
        assert gap(rig, group) < 1e-4
    finally:
        rig.pool = untied
        rig.run(pool.close())
