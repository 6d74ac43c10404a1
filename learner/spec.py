"""What a learner rank must know to open a model. Plain data, so that it travels to every rank."""

from dataclasses import dataclass
from typing import Literal

from rollout.weights import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpec:
    model_path: str
    """Folder or hub id of the weights to start from."""
    reference_path: str
    """Folder or hub id of the frozen reference; empty: none is loaded."""
    dtype: Literal["float32", "bfloat16"]
    trust_remote_code: bool
    zero_stage: int
    seed: int

    lr: float
    schedule: Literal["constant", "cosine"]
    warmup_steps: int
    """Optimizer steps of linear warm-up."""
    total_steps: int
    """Optimizer steps of the whole stage: where the cosine ends."""
    beta1: float
    beta2: float
    weight_decay: float
    max_grad_norm: float
    activation_checkpointing: bool
    logit_chunk_tokens: int

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    importance_cap: float = 2.0

    backend: Backend = "shm"
    """How weights travel to the engines."""
    bucket_bytes: int = 64 << 20
    """Size of one bucket of weights on their way to the engines."""
