"""Several ranks are one learner: the same updates, checkpoints that other numbers of ranks load or one process exports, and all
end together."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from learner.from_checkpoint import export_checkpoint
from learner.service import LearnerGroup
from rollout.errors import ServiceError
from tests.engine.conftest import Rig, learner_spec, start_learner
from tests.engine.test_learner import assert_same, cut, rows

START = {"kl_coef": 0.1, "lr": 1e-3}


async def update(group: LearnerGroup, number: int) -> None:
    """The second of the three has fewer sequences than ranks, the third two mini-batches."""
    batch = rows()[:2] if number == 1 else rows()
    await group.train(cut(batch, group.ranks, number, mini_batches=1 + (number == 2)), "grpo")


async def weights(group: LearnerGroup, folder: Path, rig: Rig) -> dict[str, Any]:
    from safetensors.torch import load_file

    await group.export(folder, rig.folder)
    return {name: tensor.float().numpy() for name, tensor in load_file(folder / "model.safetensors").items()}


async def two_updates(
    rig: Rig, group: LearnerGroup, folder: Path, **spec: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights after two updates, where a checkpoint is left in `folder`, and after the third."""
    await group.open(learner_spec(rig.folder, reference_path=rig.folder, **START, **spec))
    await update(group, 0)
    await update(group, 1)
    (folder / "checkpoint").mkdir(parents=True)
    await group.save(folder / "checkpoint", {"step": 2})
    second = await weights(group, folder / "second", rig)
    exported_alike(rig, folder, **spec)
    await update(group, 2)
    return second, await weights(group, folder / "third", rig)


def exported_alike(rig: Rig, folder: Path, **spec: Any) -> None:
    """A model folder from the checkpoint is, to the last bit, the one that the ranks exported."""
    made = folder / "made"
    made.mkdir()
    export_checkpoint(learner_spec(rig.folder, **START, **spec), folder / "checkpoint", made, rig.folder)
    for path in (folder / "second").iterdir():
        assert (made / path.name).read_bytes() == path.read_bytes(), path.name


async def third_update(rig: Rig, group: LearnerGroup, folder: Path, name: str, **spec: Any) -> dict[str, Any]:
    """Weights after the third update, of ranks that load the checkpoint in `folder` first."""
    await group.open(learner_spec(rig.folder, reference_path=rig.folder, **START, **spec))
    await group.load(folder / "checkpoint")
    await update(group, 2)
    return await weights(group, folder / name, rig)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("single")


@pytest.fixture(scope="module")
def single(rig: Rig, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return rig.run(two_updates(rig, rig.learner, folder))


def group_of(rig: Rig, ranks: int) -> Iterator[LearnerGroup]:
    group = rig.run(start_learner(ranks=ranks, name=f"group-of-{ranks}"))
    yield group
    rig.run(group.close())


@pytest.fixture(scope="module")
def pair(rig: Rig) -> Iterator[LearnerGroup]:
    yield from group_of(rig, 2)


@pytest.fixture(scope="module")
def trio(rig: Rig) -> Iterator[LearnerGroup]:
    yield from group_of(rig, 3)


@pytest.mark.parametrize("stage", [0, 3])
def test_two_ranks_make_the_updates_of_one(
    rig: Rig, single: tuple[dict[str, Any], dict[str, Any]], pair: LearnerGroup, tmp_path: Path, stage: int
) -> None:
    for mine, theirs in zip(rig.run(two_updates(rig, pair, tmp_path, zero_stage=stage)), single, strict=True):
        assert_same(mine, theirs)


def test_the_kl_to_the_reference_does_not_depend_on_ranks(rig: Rig, pair: LearnerGroup) -> None:
    for group in (rig.learner, pair):
        rig.run(group.open(learner_spec(rig.folder, reference_path=rig.folder, **START)))
        rig.run(update(group, 0))
    kl = rig.run(rig.learner.kl_to_reference(cut(rows())))
    np.testing.assert_allclose(rig.run(pair.kl_to_reference(cut(rows(), 2, seed=3))), kl, atol=1e-5)


def test_a_checkpoint_of_one_rank_continues_on_two(
    rig: Rig, single: tuple[dict[str, Any], dict[str, Any]], folder: Path, pair: LearnerGroup
) -> None:
    assert_same(rig.run(third_update(rig, pair, folder, "two", zero_stage=3)), single[1])
    assert_same(rig.run(third_update(rig, pair, folder, "two-1", zero_stage=1)), single[1])


def test_a_checkpoint_in_bfloat16_keeps_its_float32_weights_in_any_layout(
    rig: Rig, pair: LearnerGroup, tmp_path: Path
) -> None:
    _, exact = rig.run(two_updates(rig, rig.learner, tmp_path / "one", dtype="bfloat16"))
    for stage in (0, 2, 3):
        found = rig.run(third_update(rig, pair, tmp_path / "one", f"two-{stage}", dtype="bfloat16", zero_stage=stage))
        assert_alike(found, exact)
    rig.run(two_updates(rig, pair, tmp_path / "two", dtype="bfloat16", zero_stage=3))
    assert_alike(rig.run(third_update(rig, rig.learner, tmp_path / "two", "one", dtype="bfloat16")), exact)


def assert_alike(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Nowhere further apart than two bfloat16 next to each other near 1; on average much less than a step (1e-3)."""
    assert left.keys() == right.keys()
    gaps = [np.abs(left[name] - right[name]) for name in left]
    assert max(gap.max() for gap in gaps) < 1e-2
    assert np.concatenate([gap.ravel() for gap in gaps]).mean() < 2e-4


def in_the_middle_of_training(rig: Rig, group: LearnerGroup, rank: int, blow: int, timeout_s: float = 120) -> str:
    """The error of a batch in whose second mini-batch one rank gets a signal."""
    pids = [ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=30) for actor in group._actors]

    async def work() -> None:
        await group.open(learner_spec(rig.folder))
        group.timeout_s = timeout_s
        batch = cut(rows(200), group.ranks, mini_batches=100)
        training = asyncio.create_task(group.train(batch, "grpo"))
        while not (await group._actors[rank].progress.remote())[0].part.startswith("mini-batch 2"):
            await asyncio.sleep(0.01)
        os.kill(pids[rank], blow)
        await training

    with pytest.raises(ServiceError) as caught:
        rig.run(work())
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a rank still runs after its group was ended"
        time.sleep(0.1)
    with pytest.raises(ServiceError, match="ended before"):
        rig.run(group.train(cut(rows(), group.ranks), "grpo"))
    return str(caught.value)


def test_a_killed_rank_ends_the_group_and_is_named(rig: Rig, pair: LearnerGroup) -> None:
    message = in_the_middle_of_training(rig, pair, 1, signal.SIGKILL)
    assert message.startswith("`train` of 2 learner ranks: rank 1 died")
    assert "rank 0 at mini-batch 2 of 100" in message


@pytest.mark.parametrize(
    ("stage", "offload"), [(0, False), (3, False), (2, True)], ids=["stage-0", "stage-3", "stage-2-offload"]
)
def test_three_ranks_make_the_updates_of_one(
    rig: Rig,
    single: tuple[dict[str, Any], dict[str, Any]],
    trio: LearnerGroup,
    tmp_path: Path,
    stage: int,
    offload: bool,
) -> None:
    updates = rig.run(two_updates(rig, trio, tmp_path, zero_stage=stage, offload_optimizer=offload))
    for mine, theirs in zip(updates, single, strict=True):
        assert_same(mine, theirs)
    assert_same(rig.run(third_update(rig, rig.learner, tmp_path, "one", zero_stage=0)), single[1])


def test_a_stopped_rank_ends_the_group_and_is_named(rig: Rig, trio: LearnerGroup) -> None:
    message = in_the_middle_of_training(rig, trio, 2, signal.SIGSTOP, timeout_s=6)
    assert message.startswith("`train` of 3 learner ranks: waited 6 s; rank 2 does not answer")
    assert "all_reduce" in message
