"""The learner service on real DeepSpeed ranks: the update does not depend on ranks, ZeRO stage or micro-batches."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.batch import TrainingBatch, TrainingSequence, make_batch
from learner.service import LearnerGroup
from rollout.errors import InputError
from tests.engine.conftest import Rig, build_spec, learner_spec


def rows(count: int = 7) -> list[TrainingSequence]:
    rng = np.random.default_rng(0)
    return [
        TrainingSequence(
            token_ids=rng.integers(3, 90, size=length),
            first_target=4,
            advantage=float(rng.normal()),
            rollout_logprobs=np.full(length - 4, -4.5, np.float32),
        )
        for length in rng.integers(8, 40, size=count)
    ]


def cut(sequences: list[TrainingSequence], ranks: int = 1, seed: int = 0, **changes: Any) -> TrainingBatch:
    settings = {"mini_batches": 1, "micro_batch_tokens": 64, "length_norm": "sequence", "constant_length": 40}
    return make_batch(sequences, ranks=ranks, seed=seed, temperature=1.0, **(settings | changes))


def two_updates(rig: Rig, group: LearnerGroup, folder: Path, micro_batch_tokens: int = 64, **spec: Any) -> dict:
    """Weights after two optimizer steps from the same start, as exported."""
    from safetensors.numpy import load_file

    async def work() -> None:
        await group.open(learner_spec(rig.folder, reference_path=rig.folder, kl_coef=0.1, lr=1e-3, **spec))
        for seed in range(2):
            await group.train(cut(rows(), group.ranks, seed, micro_batch_tokens=micro_batch_tokens), "grpo")
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


def test_a_checkpoint_continues_to_the_same_weights(rig: Rig, single: dict, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    async def work() -> None:
        spec = learner_spec(rig.folder, reference_path=rig.folder, kl_coef=0.1, lr=1e-3)
        await rig.learner.open(spec)
        await rig.learner.train(cut(rows(), seed=0), "grpo")
        await rig.learner.save(tmp_path / "checkpoint", {"step": 1})
        await rig.learner.open(spec)
        await rig.learner.load(tmp_path / "checkpoint")
        stats = await rig.learner.train(cut(rows(), seed=1), "grpo")
        assert stats.optimizer_steps == 2
        await rig.learner.export(tmp_path / "export", rig.folder)

    rig.run(work())
    assert_same(load_file(tmp_path / "export" / "model.safetensors"), single)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_refreshed_reference_is_the_policy_and_survives_a_resume(rig: Rig, tmp_path: Path, stage: int) -> None:
    settings = {"reference_path": rig.folder, "kl_coef": 5.0, "lr": 1e-3, "zero_stage": stage}
    learner = rig.learner

    async def second_step(refresh: int, resume: bool, name: str) -> dict:
        """Weights after two steps, the process of the second one being new when it resumes."""
        from safetensors.numpy import load_file

        spec = learner_spec(rig.folder, reference_refresh_steps=refresh, **settings)
        await learner.open(spec)
        if resume:
            await learner.load(tmp_path / "checkpoint")
        else:
            await learner.train(cut(rows(), seed=0), "grpo")
            kl = await learner.kl_to_reference(cut(rows()))
            assert np.abs(kl).max() < 1e-5 if refresh else np.abs(kl).max() > 1e-3
            if refresh:
                await learner.save(tmp_path / "checkpoint", {"step": 1})
        await learner.train(cut(rows(), seed=1), "grpo")
        await learner.export(tmp_path / name, rig.folder)
        return load_file(tmp_path / name / "model.safetensors")

    refreshed = rig.run(second_step(1, False, "a"))
    resumed = rig.run(second_step(1, True, "b"))
    frozen = rig.run(second_step(0, False, "c"))
    assert all(np.array_equal(refreshed[name], resumed[name]) for name in refreshed)
    assert max(np.abs(refreshed[name] - frozen[name]).max() for name in frozen) > 1e-4


def test_every_step_reports_its_parts_and_figures(rig: Rig) -> None:
    spec = learner_spec(rig.folder, reference_path=rig.folder, kl_coef=0.1, entropy_coef=0.01, lr=1e-3)

    async def work() -> list[Any]:
        await rig.learner.open(spec)
        return [await rig.learner.train(cut(rows(), seed=seed, mini_batches=2), "grpo") for seed in range(2)]

    first, second = rig.run(work())
    assert second.count == sum(row.num_targets for row in rows())
    assert set(second.parts) == {"policy", "kl", "entropy"}
    assert second.loss == pytest.approx(sum(second.parts.values()))
    assert second.parts["entropy"] == pytest.approx(-0.01 * second.means["entropy"], rel=0.2)
    assert second.means["effective"] == 1
    assert second.means["kl"] > first.means["kl"] > 0
    # The first mini-batch is exactly on-policy, the second is not.
    assert second.extremes["ratio_min"] < 1 < second.extremes["ratio_max"]
    assert second.extremes["mismatch_max"] > 0


def test_the_loss_of_a_batch_is_told_without_training_on_it(rig: Rig) -> None:
    rig.open(lr=1e-3)
    batch = cut(rows(), length_norm="token", mini_batches=1)

    async def work() -> tuple[float, float, Any]:
        first, again = await rig.learner.mean_nll(batch), await rig.learner.mean_nll(batch)
        return first, again, await rig.learner.train(batch, "sft")

    first, again, stats = rig.run(work())
    assert first == again == pytest.approx(stats.means["nll"], rel=1e-6)
    assert (stats.optimizer_steps, stats.loss) == (1, pytest.approx(first, rel=1e-5))


def test_a_stage_whose_length_is_known_late_follows_its_schedule(rig: Rig) -> None:
    rig.open(lr=1.0, schedule="cosine", total_steps=0)

    async def work() -> list[float]:
        await rig.learner.plan(4, 2)
        return [(await rig.learner.train(cut(rows()), "sft")).lr for _ in range(5)]

    assert rig.run(work()) == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1])


def test_a_batch_without_rows_makes_no_step(rig: Rig) -> None:
    rig.open()
    stats = rig.run(rig.learner.train(cut([]), "grpo"))
    assert (stats.optimizer_steps, stats.count, stats.means, stats.loss, stats.grad_norm) == (0, 0, {}, 0, 0)


def test_a_reward_model_learns_to_order_and_its_export_is_one_of_transformers(rig: Rig, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    rng = np.random.default_rng(0)
    pairs = [
        TrainingSequence(token_ids=np.append(rng.integers(3, 40, size=6), last), first_target=3)
        for _ in range(8)
        for last in (50, 51)
    ]

    async def work() -> Any:
        await rig.learner.open(learner_spec(rig.folder, head="score", lr=3e-3))
        for _ in range(12):
            stats = await rig.learner.train(cut(pairs, together=2), "reward_model")
        await rig.learner.export(tmp_path / "export", rig.folder)
        return stats

    stats = rig.run(work())
    assert (stats.count, stats.means["ordered"]) == (8, 1)
    assert stats.loss < 0.3
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export")
    import torch

    with torch.no_grad():
        good, bad = (model(torch.tensor(row.token_ids)[None]).logits.item() for row in pairs[:2])
    assert good > bad


def test_an_export_loads_with_transformers(rig: Rig, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rig.open()
    rig.run(rig.learner.export(tmp_path / "export", rig.folder))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    assert model.generation_config.eos_token_id == rig.tokenizer.eos_token_id
    assert AutoTokenizer.from_pretrained(tmp_path / "export").encode("1+1") == rig.tokenizer.encode("1+1")


def test_a_tied_bfloat16_export_keeps_its_dtype_and_holds_the_embedding_once(rig: Rig, tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    tied = str(tmp_path / "tied")

    async def work() -> None:
        await rig.learner.build(build_spec(tied=True), [], tied)
        await rig.learner.open(learner_spec(tied, dtype="bfloat16"))
        await rig.learner.train(cut(rows()), "grpo")
        await rig.learner.export(tmp_path / "export", tied)

    rig.run(work())
    with safe_open(tmp_path / "export" / "model.safetensors", framework="pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (tied, tmp_path / "export"))
    assert after.dtype == torch.bfloat16
    assert after.lm_head.weight is after.get_input_embeddings().weight
    assert (after.lm_head.weight - before.lm_head.weight).abs().max() > 1e-3


def test_a_model_that_is_not_there_is_an_input_error(rig: Rig) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        rig.run(asyncio.wait_for(rig.learner.open(learner_spec("/nowhere/model")), 60))
