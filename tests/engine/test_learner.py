"""The learner service on real DeepSpeed ranks: the update does not depend on ranks, ZeRO stage or micro-batches."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.batch import Sequence, make_batch
from learner.service import LearnerGroup
from rollout.errors import InputError
from tests.engine.conftest import Rig, learner_spec, start_learner


def rows(count: int = 7) -> list[Sequence]:
    rng = np.random.default_rng(0)
    return [
        Sequence(
            token_ids=rng.integers(3, 90, size=length),
            first_target=4,
            advantage=float(rng.normal()),
            rollout_logprobs=np.full(length - 4, -4.5, np.float32),
        )
        for length in rng.integers(8, 40, size=count)
    ]


def two_updates(rig: Rig, group: LearnerGroup, folder: Path, micro_batch_tokens: int = 64, **spec: Any) -> dict:
    """Weights after two optimizer steps from the same start, as exported."""
    from safetensors.numpy import load_file

    async def work() -> None:
        await group.open(learner_spec(rig.folder, reference_path=rig.folder, kl_coef=0.1, lr=1e-3, **spec))
        for seed in range(2):
            batch = make_batch(
                rows(),
                ranks=group.ranks,
                mini_batches=1,
                micro_batch_tokens=micro_batch_tokens,
                length_norm="sequence",
                constant_length=40,
                temperature=1.0,
                seed=seed,
            )
            await group.train(batch, "grpo")
        await group.export(folder, rig.folder)

    rig.run(work())
    return load_file(folder / "model.safetensors")


def assert_same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    assert max(np.abs(left[name] - right[name]).max() for name in left) < 2e-5


@pytest.fixture(scope="module")
def single(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return two_updates(rig, rig.learner, tmp_path_factory.mktemp("single") / "export")


def test_the_update_moves_the_weights(rig: Rig, single: dict) -> None:
    from safetensors.numpy import load_file

    start = load_file(Path(rig.folder) / "model.safetensors")
    assert max(np.abs(start[name] - single[name]).max() for name in single) > 1e-4


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_stages_agree_with_stage_0(rig: Rig, single: dict, tmp_path: Path, stage: int) -> None:
    assert_same(two_updates(rig, rig.learner, tmp_path / "export", zero_stage=stage), single)


def test_micro_batches_and_checkpointing_do_not_matter(rig: Rig, single: dict, tmp_path: Path) -> None:
    one_pack = two_updates(rig, rig.learner, tmp_path / "a", micro_batch_tokens=10_000, activation_checkpointing=True)
    assert_same(one_pack, single)


def test_two_ranks_agree_with_one(rig: Rig, single: dict, tmp_path: Path) -> None:
    pair = rig.run(start_learner(ranks=2, name="pair"))
    try:
        for stage in (0, 3):
            assert_same(two_updates(rig, pair, tmp_path / f"stage{stage}", zero_stage=stage), single)
    finally:
        rig.run(pair.close())


def test_a_checkpoint_continues_to_the_same_weights(rig: Rig, single: dict, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    def batch(seed: int) -> Any:
        return make_batch(
            rows(),
            ranks=1,
            mini_batches=1,
            micro_batch_tokens=64,
            length_norm="sequence",
            constant_length=40,
            temperature=1.0,
            seed=seed,
        )

    async def work() -> None:
        spec = learner_spec(rig.folder, reference_path=rig.folder, kl_coef=0.1, lr=1e-3)
        await rig.learner.open(spec)
        await rig.learner.train(batch(0), "grpo")
        await rig.learner.save(tmp_path / "checkpoint", {"step": 1})
        await rig.learner.open(spec)
        await rig.learner.load(tmp_path / "checkpoint")
        stats = await rig.learner.train(batch(1), "grpo")
        assert stats.optimizer_steps == 2
        await rig.learner.export(tmp_path / "export", rig.folder)

    rig.run(work())
    assert_same(load_file(tmp_path / "export" / "model.safetensors"), single)


def test_an_export_loads_with_transformers(rig: Rig, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rig.open()
    rig.run(rig.learner.export(tmp_path / "export", rig.folder))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    assert model.generation_config.eos_token_id == rig.tokenizer.eos_token_id
    assert AutoTokenizer.from_pretrained(tmp_path / "export").encode("1+1") == rig.tokenizer.encode("1+1")


def test_a_model_that_is_not_there_is_an_input_error(rig: Rig) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        rig.run(asyncio.wait_for(rig.learner.open(learner_spec("/nowhere/model")), 60))
