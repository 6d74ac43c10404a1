"""What a learner rank must know to open a model. Plain data without torch, so that any process can make and read it."""

from dataclasses import dataclass
from typing import Literal

from rollout.weights.manifest import Backend

ObjectiveName = Literal["grpo", "sft", "reward_model", "dpo"]
"""Names of learner/objectives.py."""
Head = Literal["language", "score"]
"""What stands on the last layer: the model's own output layer, or one number a sequence (reward models)."""
PolicyLoss = Literal["clip", "gspo", "cispo", "reinforce"]
KlEstimator = Literal["k1", "k2", "k3"]
ImportanceMode = Literal["truncate", "mask"]
ImportanceLevel = Literal["token", "sequence", "geometric"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec:
    """Choices that the loss of reinforcement learning is put together from (learner/losses/policy.py)."""

    policy_loss: PolicyLoss
    clip_low: float
    clip_high: float
    dual_clip: float
    """Least multiple of a negative advantage that a token's surrogate may reach; 0: unbound."""
    kl_coef: float
    kl_estimator: KlEstimator
    kl_in: Literal["loss", "reward"]
    entropy_coef: float
    importance_mode: ImportanceMode
    importance_level: ImportanceLevel
    importance_floor: float
    importance_cap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpec(LossSpec):
    """What a model that trains is opened with."""

    model_path: str
    """Folder or hub id of the weights to start from."""
    reference_path: str
    """Folder or hub id of the frozen reference; empty: none is loaded."""
    reference_refresh_steps: int
    """Optimizer steps after which the reference takes the policy's weights; 0: never."""
    dtype: Literal["float32", "bfloat16"]
    trust_remote_code: bool
    zero_stage: int
    offload_optimizer: bool
    """Whether the optimizer's state and step are on the CPU (ZeRO 1 to 3)."""
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
    sequence_parallel: int = 1
    """Ranks that pass one pack together, each a share of its tokens."""

    lora_rank: int = 0
    """Rank of the adapters that train in place of the model; 0: the model itself trains."""
    lora_alpha: float = 32
    """Scale of the adapters: their product counts lora_alpha / lora_rank times."""
    lora_targets: tuple[str, ...] = ()
    """Names of the layers that get an adapter; empty: all linear ones but the head."""

    reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which gradients travel between ranks."""
    zero_hpz_partition_size: int = 1
    """Ranks that keep a second copy of the parameters between them (ZeRO++ hpZ); 1: none does."""

    head: Head = "language"
    """Output layer of the model."""
    dpo_beta: float = 0.1
    """β of DPO: how strongly the reference holds."""
    dpo_label_smoothing: float = 0.0
    """Share of the preferences that DPO takes to be the wrong way round."""
    backend: Backend = "shm"
    """Transport of weights to the engines."""
    bucket_bytes: int = 64 << 20
    """Bytes of one bucket of weights on their way to the engines."""
