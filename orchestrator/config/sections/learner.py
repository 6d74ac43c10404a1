"""`[learner]`: the optimizer, the loss and the ranks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.sections.base import Section


class LearnerSection(Section):
    ranks: Annotated[int, Field(ge=1)] = 1
    """Data-parallel ranks, one Ray actor each."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """DeepSpeed ZeRO: 0 nothing sharded, 1 optimizer, 2 and gradients, 3 and parameters."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in the host's memory and step there (ZeRO 1 to 3): slower, 12 bytes a parameter less on
    the GPUs."""
    lr: Annotated[float, Field(gt=0)] = 1e-6
    """Peak learning rate (AdamW)."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate, after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps of linear warm-up."""
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0
    """Warm-up as a share of all optimizer steps of the stage, instead of `warmup_steps`."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of AdamW's second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's, per step and unit of the learning rate."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Global norm clipping."""
    mini_batches: Annotated[int, Field(ge=1)] = 1
    """Optimizer steps made of one batch."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Token budget of one forward pass on one rank (a longer sequence passes alone)."""
    logit_chunk_tokens: Annotated[int, Field(ge=1)] = 1024
    """Tokens that pass through the output head at a time, a part of the vocabulary after the other."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    lora_rank: Annotated[int, Field(ge=0, le=512)] = 0
    """Train adapters of this rank beside the frozen model (LoRA), which alone are saved and published; 0: the model."""
    lora_alpha: Annotated[float, Field(gt=0)] = 32
    """Adapters count lora_alpha / lora_rank times."""
    lora_targets: tuple[str, ...] = ()
    """Names of the layers that get adapters, such as `["q_proj", "v_proj"]`; empty: all linear layers but the head."""
    advantage_baseline: Literal["group_mean", "leave_one_out"] = "group_mean"
    """What a reward is compared with: the mean of its group (GRPO) or of the others in it (RLOO)."""
    advantage_scale: Literal["group_std", "batch_std", "batch_reward_std", "none"] = "group_std"
    """Standard deviation that divides it: `group_std` of the group's rewards (GRPO), `batch_std` of all that is above or
    below its baseline (REINFORCE++), `batch_reward_std` of all rewards of the batch; `none` (Dr. GRPO, RLOO)."""
    overlong_filtering: bool = False
    """Completions cut at `rollout.max_tokens` get no loss; they still count in their group's baseline (DAPO)."""
    length_norm: Literal["sequence", "token", "constant"] = "sequence"
    """`sequence`: mean over a completion, then over completions (GRPO); `token`: mean over all tokens (DAPO);
    `constant`: sum over `rollout.max_tokens`, unbiased in length (Dr. GRPO)."""
    policy_loss: Literal["clip", "gspo", "cispo", "reinforce"] = "clip"
    """`clip`: clipped ratio of each token (PPO, GRPO, DAPO); `gspo`: of each completion; `cispo`: clipped ratio as a
    constant weight of the log-probability; `reinforce`: no ratio."""
    clip_low: Annotated[float, Field(gt=0)] = 0.2
    """The ratio is clipped below at 1 − clip_low."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: Annotated[float, Field(ge=0)] = 0
    """A token with a negative advantage counts at most this many times it, above 1 (3 in its paper); 0: no bound."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.001
    """β, weight of the KL to the frozen reference; 0: no reference is loaded."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where it counts: in the loss of each token (GRPO), or summed over the completion and taken from its reward (RLHF)."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """How it is estimated: `k1` −log r, `k2` (log r)² / 2, `k3` r − log r − 1 (GRPO), with r = π_ref / π. In the loss the
    expected gradient of `k1` is zero, and that of `k2` is the KL's."""
    reference_refresh_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps after which the reference takes the policy's weights (400 in R1); 0: never."""
    entropy_coef: Annotated[float, Field(ge=0)] = 0
    """Weight of an entropy bonus."""
    importance_cap: Annotated[float, Field(ge=0)] = 2.0
    """Upper bound of the importance weight learner / sampler, for mismatch and staleness; 0: no correction."""
    importance_mode: Literal["truncate", "mask"] = "truncate"
    """`truncate`: a larger weight is cut to the bound; `mask`: a weight outside the bounds becomes 0."""
    importance_floor: Annotated[float, Field(ge=0)] = 0.5
    """Lower bound of `mask`."""
    importance_level: Literal["token", "sequence", "geometric"] = "token"
    """Weight of each token, of the completion (product of its tokens'), or their geometric mean."""
    cpus: Annotated[float, Field(ge=0)] = 1
    """CPU cores reserved per rank."""
    gpus: Annotated[float, Field(gt=0, le=1)] = 1
    """GPU reserved per rank; below 1 it shares the GPU with an engine, and weights travel by CUDA IPC."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Compute threads of a rank on a CPU host; 0: all cores of the host, or half of them where the engines sample
    meanwhile, divided by the ranks."""
    timeout_s: Annotated[float, Field(gt=0)] = 1800
    """Longest wait for one batch, checkpoint or export."""

    @model_validator(mode="after")
    def _warmup(self) -> Self:
        if self.warmup_steps and self.warmup_share:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} and warmup_share = {self.warmup_share:g} say the same; set one to 0"
            )
        return self

    @model_validator(mode="after")
    def _offload(self) -> Self:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer = true needs zero_stage = 1, 2 or 3: at 0 DeepSpeed offloads nothing")
        return self

    @model_validator(mode="after")
    def _loss(self) -> Self:
        if 0 < self.dual_clip <= 1:
            raise ValueError(f"dual_clip = {self.dual_clip:g}: give more than 1, such as 3, or 0 for no bound")
        if self.dual_clip and self.policy_loss not in ("clip", "gspo"):
            raise ValueError(
                f"dual_clip = {self.dual_clip:g} bounds a clipped ratio, which policy_loss = "
                f"{self.policy_loss!r} does not have; set it to 0"
            )
        if self.lora_rank and self.kl_coef and self.reference_refresh_steps:
            raise ValueError(
                f"reference_refresh_steps = {self.reference_refresh_steps}: with adapters (lora_rank) the reference is "
                "the model without them and cannot be refreshed; set it to 0"
            )
        keeps_one = self.importance_floor <= 1 <= self.importance_cap or self.importance_cap == 0
        if self.importance_mode == "mask" and not keeps_one:
            raise ValueError(
                f'importance_mode = "mask" keeps weights from {self.importance_floor:g} (importance_floor) to '
                f"{self.importance_cap:g} (importance_cap): that drops even the weight 1 of an exact sampler"
            )
        return self
