"""Bytes of a GPU, against the peaks that were measured on a card (deploy/bench/gpu-h200.md), and by hand."""

from pathlib import Path
from typing import Any

import pytest

from learner.model import fused, head
from orchestrator.config.recipe import Stage
from orchestrator.plan import gpu_memory, machine
from orchestrator.plan.gpu_memory import engine_gpu, held_bytes, learner_gpu, most_tokens, sure_tokens
from orchestrator.plan.memory import parameters
from tests.orchestrator.factories import decoder_folder, recipe

QWEN_1_5B = {"hidden": 1536, "layers": 28, "heads": 12, "kv_heads": 2, "intermediate": 8960, "vocab": 151_936}
PAIRS = {"pairs": {"path": "pairs.jsonl", "chosen_column": "chosen", "rejected_column": "rejected"}}

pytestmark = pytest.mark.usefixtures("laptop", "card")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: ("NVIDIA H200, 143771 MiB",))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(decoder_folder(tmp_path / "m", **QWEN_1_5B, tied=True))


def stage_of(folder: str, **learner: Any) -> Stage:
    settings = {"zero_stage": 1, "kl_coef": 0, "micro_batch_tokens": 16384, **learner}
    return recipe(model={"path": folder, "max_tokens": 16384}, learner=settings).stages[0]


def test_what_is_said_of_other_modules_is_so() -> None:
    assert gpu_memory.COMPILED_FROM == fused.LEAST_PARAMETERS
    assert gpu_memory.TILE_BYTES == head._TILE_BYTES_ELSEWHERE


@pytest.mark.parametrize(
    ("checkpointing", "compiled", "tokens", "packs", "measured_gb"),
    [
        (False, False, 16384, 4, 80.2),
        (False, True, 16384, 4, 66.7),
        (True, False, 16384, 4, 35.2),
        (True, True, 16384, 4, 34.4),
        (True, False, 32768, 1, 35.9),
        (True, False, 65536, 1, 43.4),
    ],
)
def test_a_rank_takes_what_was_measured(
    checkpointing: bool,
    compiled: bool,
    tokens: int,
    packs: int,
    measured_gb: float,
    folder: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not compiled:
        monkeypatch.setattr(gpu_memory, "COMPILED_FROM", 1 << 60)
    stage = stage_of(folder, activation_checkpointing=checkpointing)
    estimate = sum(learner_gpu(stage, tokens).values())
    if packs == 1:  # no gradients of earlier packs wait then
        estimate -= 2 * parameters(stage.model)
    assert estimate / 1e9 == pytest.approx(measured_gb, rel=0.03)


def test_an_offloaded_optimizer_is_not_on_the_gpu(folder: str) -> None:
    kept, offloaded = stage_of(folder), stage_of(folder, offload_optimizer=True)
    saved = 12 * parameters(kept.model)
    assert learner_gpu(kept, 1000)["learner"] - learner_gpu(offloaded, 1000)["learner"] == saved
    assert held_bytes(kept) - held_bytes(offloaded) == pytest.approx(saved, abs=2**30)


def test_zero_3_divides_states_and_adds_its_buffers(folder: str) -> None:
    count = parameters(stage_of(folder).model)
    parts = learner_gpu(stage_of(folder, zero_stage=3, ranks=4, kl_coef=0.1), 1000)
    assert (parts["learner"], parts["reference"]) == (18 * count / 4, 2 * count / 4)
    assert parts["ZeRO's buffers"] == 500e6 * 2 + 500e6 * 4 + 1e9 * 2


def test_an_engine_holds_its_weights_and_the_longest_sequence(folder: str) -> None:
    stage = stage_of(folder)
    parts = engine_gpu(stage)
    assert parts["weights"] == 2 * parameters(stage.model)
    assert parts["cache of the longest sequence"] == 2 * 28 * 256 * 2 * 16384
    halves = stage.model_copy(update={"rollout": stage.rollout.model_copy(update={"tensor_parallel": 2})})
    assert engine_gpu(halves) == {part: size / 2 for part, size in parts.items()}


def test_completions_reach_their_limit_and_pass_alone_beyond_the_budget() -> None:
    def tokens(budget: int, longest: int, groups: int = 32) -> int:
        stage = recipe(
            model={"path": "org/model", "max_tokens": 10_000},
            rollout={"max_tokens": longest, "group_size": 4},
            data={"max_prompt_tokens": 100, "sources": {"a": {"task": "arithmetic", "limit": 50}}},
            learner={"micro_batch_tokens": budget},
            stages=[{"name": "rl", "kind": "grpo", "loop": {"groups_per_step": groups}}],
        ).stages[0]
        assert most_tokens(stage) == sure_tokens(stage)
        return sure_tokens(stage)

    assert tokens(8192, 900) == 8192
    assert tokens(8192, 9900) == 10_000
    assert tokens(8192, 900, groups=1) == 4 * 1000, "there is no more in a batch"


def test_ranks_that_pass_a_pack_together_hold_a_part_of_it_each() -> None:
    def tokens(**learner: int) -> tuple[int, int]:
        stage = recipe(
            model={"path": "org/model", "max_tokens": 10_000},
            rollout={"max_tokens": 9900, "group_size": 4},
            data={"max_prompt_tokens": 100, "sources": {"a": {"task": "arithmetic", "limit": 50}}},
            learner={"ranks": 4, **learner},
            stages=[{"name": "rl", "kind": "grpo", "loop": {"groups_per_step": 32}}],
        ).stages[0]
        return sure_tokens(stage), most_tokens(stage)

    assert tokens(micro_batch_tokens=2048) == (10_000, 10_000)
    assert tokens(micro_batch_tokens=2048, sequence_parallel=4) == (2500, 2500)
    assert tokens(micro_batch_tokens=4096, sequence_parallel=4) == (4096, 4096), "their budgets add up"


def test_four_cards_of_80_gb_train_a_completion_of_64k_tokens_of_a_7b_model(tmp_path: Path) -> None:
    sizes = {"hidden": 3584, "layers": 28, "heads": 28, "kv_heads": 4, "intermediate": 18_944, "vocab": 152_064}
    folder = str(decoder_folder(tmp_path / "7b", **sizes, tied=False))

    def need(together: int) -> float:
        stage = recipe(
            model={"path": folder, "max_tokens": 67_584},
            rollout={"max_tokens": 65_536},
            data={"max_prompt_tokens": 2048, "sources": {"a": {"task": "arithmetic", "limit": 50}}},
            learner={"ranks": 4, "zero_stage": 3, "activation_checkpointing": True, "sequence_parallel": together},
        ).stages[0]
        return sum(learner_gpu(stage, sure_tokens(stage)).values())

    assert need(4) < 54e9
    assert need(1) > 0.9 * 80 * 2**30, "no room for what CUDA and NCCL take"


def test_the_length_of_examples_and_pairs_is_not_known_before_they_are_read() -> None:
    stages = [{"name": "p", "kind": "dpo", "data": {"sources": PAIRS}}]
    stage = recipe(model={"path": "org/model", "max_tokens": 6000}, stages=stages, data={}).stages[0]
    assert (sure_tokens(stage), most_tokens(stage)) == (6000, 12_000)


def test_a_model_that_is_not_here_or_of_another_form_has_no_estimate(folder: str) -> None:
    assert learner_gpu(recipe().stages[0], 1000) == engine_gpu(recipe().stages[0]) == {}
    (Path(folder) / "config.json").write_text('{"model_type": "gpt2", "n_embd": 8}')
    assert "activations" not in learner_gpu(stage_of(folder), 1000)
    assert "weights" in engine_gpu(stage_of(folder))
