"""What the services are told of a stage: every setting arrives where it is used."""

from typing import Any

import pytest

from orchestrator.cluster.specs import build_spec, engine_spec, learner_spec, optimizer_steps
from orchestrator.config.recipe import Stage
from orchestrator.config.sections.learner import LearnerSection
from tests.orchestrator.factories import recipe

USED_BESIDE_THE_SPEC = {
    "ranks", "cpus", "gpus", "resources", "threads", "timeout_s",  # LearnerGroup.start
    "mini_batches", "micro_batch_tokens", "length_norm",  # the batch
    "warmup_share",  # steps of it
    "advantage_baseline", "advantage_scale", "overlong_filtering",  # the advantages
}  # fmt: skip
"""Keys of `learner` that the ranks need not know to open a model."""
CHANGED: dict[str, Any] = {
    "sequence_parallel": 2,
    "zero_stage": 3,
    "zero_hpz_partition_size": 2,
    "reduce_dtype": "bfloat16",
    "offload_optimizer": True,
    "lr": 0.5,
    "schedule": "cosine",
    "warmup_steps": 3,
    "beta1": 0.1,
    "beta2": 0.2,
    "weight_decay": 0.3,
    "max_grad_norm": 0.4,
    "logit_chunk_tokens": 5,
    "activation_checkpointing": True,
    "policy_loss": "gspo",
    "clip_low": 0.6,
    "clip_high": 0.7,
    "dual_clip": 4.0,
    "kl_coef": 0.8,
    "kl_in": "reward",
    "kl_estimator": "k2",
    "reference_refresh_steps": 6,
    "entropy_coef": 0.01,
    "importance_cap": 1.9,
    "importance_mode": "mask",
    "importance_floor": 0.3,
    "importance_level": "geometric",
    "lora_alpha": 8.0,
    "lora_targets": ("q_proj",),
}


def stage_of(**sections: Any) -> Stage:
    return recipe(**sections).stages[0]


def test_every_key_of_the_learner_reaches_the_ranks_or_is_used_beside_them() -> None:
    assert set(CHANGED) | {"lora_rank"} | USED_BESIDE_THE_SPEC == set(LearnerSection.model_fields)
    spec = learner_spec(stage_of(learner={**CHANGED, "ranks": 4}), "m", "r", 7, "cpu")
    assert {key: getattr(spec, key) for key in CHANGED} == CHANGED
    assert (spec.model_path, spec.reference_path, spec.seed, spec.dtype, spec.backend) == (
        "m",
        "r",
        7,
        "float32",
        "shm",
    )


def test_learner_and_engine_have_the_same_adapters() -> None:
    stage = stage_of(learner={"lora_rank": 4, "lora_targets": ["q_proj"]})
    engine = engine_spec(stage, "cpu")
    learner = learner_spec(stage, "m", "r", 7, "cpu")
    assert (learner.lora_rank, learner.lora_targets) == (engine.lora_rank, engine.lora_targets) == (4, ("q_proj",))


def test_the_schedule_ends_with_the_last_optimizer_step() -> None:
    spec = learner_spec(stage_of(learner={"mini_batches": 4}, loop={"steps": 10}), "m", "r", 7, "cpu")
    assert spec.total_steps == 40


def test_a_warm_up_may_be_a_share_of_the_optimizer_steps() -> None:
    assert optimizer_steps(stage_of(learner={"mini_batches": 4, "warmup_share": 0.25}), 10) == (40, 10)
    assert optimizer_steps(stage_of(learner={"warmup_steps": 7}), 10) == (10, 7)
    # Supervised steps are not cut into mini-batches.
    supervised = stage_of(learner={"mini_batches": 4, "warmup_share": 0.25}, stages=[{"name": "s", "kind": "sft"}])
    assert optimizer_steps(supervised, 20) == (20, 5)


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
def test_the_reference_is_where_the_stage_begins(kl_in: str) -> None:
    spec = learner_spec(stage_of(learner={"kl_coef": 0.1, "kl_in": kl_in}), "m", "r", 7, "cpu")
    assert (spec.reference_path, spec.kl_in) == ("r", kl_in)


@pytest.mark.parametrize(("kind", "kl_coef"), [("sft", 0.1), ("grpo", 0.0)])
def test_no_reference_is_loaded_where_none_is_needed(kind: str, kl_coef: float) -> None:
    stage = stage_of(learner={"kl_coef": kl_coef}, stages=[{"name": "s", "kind": kind}])
    spec = learner_spec(stage, "m", "r", 7, "cpu")
    assert (spec.reference_path, spec.kl_coef) == ("", 0.0)


def preference_spec(kind: str, **section: Any) -> Any:
    source = {"path": "pairs.jsonl", "chosen_column": "good", "rejected_column": "bad"}
    stages = [{"name": "s", "kind": kind, kind: section}]
    stage = stage_of(
        stages=stages,
        data={"sources": {"a": source}},
        learner={"mini_batches": 4, "reference_refresh_steps": 5},
        loop={"steps": 10},
    )
    return learner_spec(stage, "m", "r", 7, "cpu")


def test_dpo_is_held_to_where_the_stage_begins() -> None:
    spec = preference_spec("dpo", beta=0.3, label_smoothing=0.2)
    assert (spec.reference_path, spec.reference_refresh_steps, spec.head, spec.total_steps) == ("r", 0, "language", 10)
    assert (spec.dpo_beta, spec.dpo_label_smoothing) == (0.3, 0.2)


def test_a_reward_model_has_another_head_and_no_reference() -> None:
    spec = preference_spec("reward_model")
    assert (spec.reference_path, spec.head, spec.total_steps) == ("", "score", 10)


def test_a_model_is_built_as_the_recipe_says() -> None:
    build = {"tokenizer": "bpe", "vocab_size": 301, "layers": 2, "hidden": 64, "heads": 2, "kv_heads": 1, "tied": True}
    spec = build_spec(stage_of(model={"path": "org/model", "max_tokens": 600, "build": build}), 7)
    assert {key: getattr(spec, key) for key in build} == build
    assert (spec.max_tokens, spec.seed) == (600, 7)


def test_an_engine_holds_prompt_and_completion() -> None:
    stage = stage_of(model={"path": "org/model", "max_tokens": 700}, rollout={"max_tokens": 100})
    spec = engine_spec(stage, "cpu")
    assert spec.max_tokens == 700
