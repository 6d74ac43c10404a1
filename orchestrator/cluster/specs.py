"""From the settings of a stage to what its services take. Plain functions."""

from dataclasses import fields
from typing import Any

from learner.model.small import BuildSpec
from learner.spec import LearnerSpec
from orchestrator.cluster.session import cores_per_node, planned_gpus
from orchestrator.config.recipe import Stage
from orchestrator.config.stage_kinds import kind_of
from orchestrator.plan.gpu_memory import held_bytes
from orchestrator.plan.placement import shares_gpus
from rollout.actors import Device
from rollout.engine import EngineSpec
from rollout.weights.manifest import Backend

BUCKET_BYTES: dict[Device, int] = {"cpu": 64 << 20, "cuda": 256 << 20}
"""Bytes of one bucket of weights on their way to the engines; between GPUs two of them are in flight on each side."""


def backend(stage: Stage, device: Device) -> Backend:
    """How weights travel: NCCL between GPUs, CUDA IPC on a shared GPU, shared memory on hosts without."""
    if device == "cpu":
        return "shm"
    return "ipc" if shares(stage, device) else "nccl"


def shares(stage: Stage, device: Device) -> bool:
    """Whether engines and ranks take turns on GPUs of the cluster."""
    return device == "cuda" and kind_of(stage).generates and shares_gpus(stage, planned_gpus())


def resolve_dtype(stage: Stage, device: Device) -> Any:
    """Precision of the forward pass and of the engine; `auto` is bfloat16 on a GPU and float32 on a CPU."""
    if stage.model.dtype != "auto":
        return stage.model.dtype
    return "bfloat16" if device == "cuda" else "float32"


def learner_spec(stage: Stage, model_path: str, reference_path: str, seed: int, device: Device) -> LearnerSpec:
    """What the ranks need of a stage."""
    needs_reference = kind_of(stage).needs_reference(stage.learner.kl_coef)
    # Keys of the section that the spec has too mean the same in both; one that neither gives is a TypeError.
    settings = stage.learner.model_dump(include={known.name for known in fields(LearnerSpec)})
    settings["kl_coef"] = stage.learner.kl_coef if needs_reference else 0.0
    if kind_of(stage).reference == "fixed":
        settings["reference_refresh_steps"] = 0  # its loss is defined against the model that the stage starts from
    settings["total_steps"], settings["warmup_steps"] = optimizer_steps(stage, stage.loop.steps)
    return LearnerSpec(
        **settings,
        model_path=model_path,
        reference_path=reference_path if needs_reference else "",
        dtype=resolve_dtype(stage, device),
        trust_remote_code=stage.model.trust_remote_code,
        seed=seed,
        head="score" if kind_of(stage).leaves == "rewards" else "language",
        dpo_beta=stage.dpo.beta,
        dpo_label_smoothing=stage.dpo.label_smoothing,
        backend=backend(stage, device),
        bucket_bytes=BUCKET_BYTES[device],
    )


def cores(stage: Stage) -> int:
    """Cores of a CPU host for the engines, and for the ranks: half of them each where both compute at the same time."""
    all_cores = cores_per_node()
    return max(1, all_cores // 2) if kind_of(stage).is_rl and stage.loop.max_staleness else all_cores


def learner_threads(stage: Stage) -> int:
    """Compute threads of a rank on a CPU host."""
    return stage.learner.threads or max(1, cores(stage) // stage.learner.ranks)


def optimizer_steps(stage: Stage, steps: int) -> tuple[int, int]:
    """(optimizer steps, those of the warm-up) of a stage that trains on so many batches."""
    total = steps * stage.learner.mini_batches if kind_of(stage).is_rl else steps
    return total, round(stage.learner.warmup_share * total) or stage.learner.warmup_steps


def engine_spec(stage: Stage, device: Device) -> EngineSpec:
    """What an engine needs to know of a stage."""
    return EngineSpec(
        dtype=resolve_dtype(stage, device),
        trust_remote_code=stage.model.trust_remote_code,
        max_tokens=stage.model.max_tokens,
        max_sequences=stage.rollout.max_sequences,
        tensor_parallel=stage.rollout.tensor_parallel,
        kv_cache_gb=stage.rollout.kv_cache_gb,
        gpu_memory=stage.rollout.gpu_memory,
        eager=stage.rollout.eager,
        options=stage.rollout.engine,
        backend=backend(stage, device),
        device=device,
        sleeps=shares(stage, device),
        held_bytes=held_bytes(stage) if shares(stage, device) else 0,
        lora_rank=stage.learner.lora_rank,
        lora_targets=stage.learner.lora_targets if stage.learner.lora_rank else (),
    )


def build_spec(stage: Stage, seed: int) -> BuildSpec:
    """The model that a recipe makes from scratch."""
    return BuildSpec(**stage.model.build.model_dump(), max_tokens=stage.model.max_tokens, seed=seed)
