"""`[learner]`: the optimizer, the loss and the ranks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.sections.base import Resources, Section


class LearnerSection(Section):
    ranks: Annotated[int, Field(ge=1)] = 1
    """Number of ranks, one Ray actor each."""
    sequence_parallel: Annotated[int, Field(ge=1)] = 1
    """Ranks that pass a pack together, each a share of its tokens, for sequences that one GPU has no memory for; a divisor
    of `ranks`, and no more than the model has attention heads."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """Stage of DeepSpeed ZeRO: what is divided over the ranks. 0: nothing; 1: optimizer states; 2: gradients too; 3:
    parameters too."""
    zero_hpz_partition_size: Annotated[int, Field(ge=1)] = 1
    """Ranks of one node that keep a second copy of all parameters between them, with `zero_stage = 3` on several nodes
    (ZeRO++ hpZ): the backward pass then gathers inside a node. 1: no such copy."""
    reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which gradients are sent from rank to rank. `bfloat16`: half of the bytes, each rank's share rounded;
    micro-batches are added up in float32 either way."""
    offload_optimizer: bool = False
    """Whether the optimizer's state is kept, and its step taken, in the host's memory (ZeRO 1 to 3): slower, 12 bytes a
    parameter less on the GPUs."""
    lr: Annotated[float, Field(gt=0)] = 1e-6
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Course of the learning rate after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps in which the learning rate rises linearly to its peak."""
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0
    """Share of all optimizer steps of the stage that is warm-up, in place of `warmup_steps`."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of AdamW's second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW, per step and unit of the learning rate."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient of all parameters; a longer gradient is scaled down to it."""
    mini_batches: Annotated[int, Field(ge=1)] = 1
    """Optimizer steps made of one batch, each on a part of its groups."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Token budget of one forward pass on one rank (a longer sequence passes alone). Ranks that pass a pack together
    (`sequence_parallel`) add theirs up."""
    logit_chunk_tokens: Annotated[int, Field(ge=1)] = 1024
    """Tokens that pass through the output head at a time, one part of the vocabulary after the other."""
    activation_checkpointing: bool = False
    """Whether activations are computed again in the backward pass instead of kept."""
    lora_rank: Annotated[int, Field(ge=0, le=512)] = 0
    """Rank of the adapters that train beside the frozen model (LoRA) and alone are saved and published; 0: no adapters,
    the model itself trains."""
    lora_alpha: Annotated[float, Field(gt=0)] = 32
    """Scale of the adapters, which count lora_alpha / lora_rank times."""
    lora_targets: tuple[str, ...] = ()
    """Names of the layers that get adapters, such as `["q_proj", "v_proj"]`; empty: all linear layers but the head."""
    advantage_baseline: Literal["group_mean", "leave_one_out"] = "group_mean"
    """Baseline that a reward is compared with. `group_mean`: the mean of its group (GRPO); `leave_one_out`: that of the
    others in its group (RLOO)."""
    advantage_scale: Literal["group_std", "batch_std", "batch_reward_std", "none"] = "group_std"
    """Standard deviation that divides a reward's difference from its baseline. `group_std`: of the group's rewards
    (GRPO); `batch_std`: of these differences in the batch (REINFORCE++); `batch_reward_std`: of all rewards of the
    batch; `none`: no division (Dr. GRPO, RLOO)."""
    overlong_filtering: bool = False
    """Whether completions cut at `rollout.max_tokens` get no loss; they still count in their group's baseline
    (DAPO)."""
    length_norm: Literal["sequence", "token", "constant"] = "sequence"
    """Average that makes the loss of a batch out of those of tokens. `sequence`: mean over a completion, then over
    completions (GRPO); `token`: mean over all tokens (DAPO); `constant`: sum over a completion divided by
    `rollout.max_tokens`, unbiased in length (Dr. GRPO)."""
    policy_loss: Literal["clip", "gspo", "cispo", "reinforce"] = "clip"
    """Loss of the policy. `clip`: clipped ratio of each token (PPO, GRPO, DAPO); `gspo`: clipped ratio of each
    completion; `cispo`: clipped ratio as a constant weight of the log-probability; `reinforce`: no ratio."""
    clip_low: Annotated[float, Field(gt=0)] = 0.2
    """Distance below 1 at which the ratio is clipped: at 1 − clip_low."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """Distance above 1 at which the ratio is clipped: at 1 + clip_high."""
    dual_clip: Annotated[float, Field(ge=0)] = 0
    """Bound, above 1, on how many times its negative advantage a token counts (3 in the paper of dual clipping); 0: no
    bound."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.001
    """β, weight of the KL divergence from the frozen reference; 0: no reference is loaded."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Place of the KL term. `loss`: in the loss of each token (GRPO); `reward`: summed over the completion and taken
    from its reward (RLHF)."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of the KL divergence, with r = π_ref / π: `k1` −log r, `k2` (log r)² / 2, `k3` r − log r − 1 (GRPO). In
    the loss the expected gradient of `k1` is zero, and that of `k2` is the KL's."""
    reference_refresh_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps after which the reference takes the policy's weights (400 in R1); 0: never."""
    entropy_coef: Annotated[float, Field(ge=0)] = 0
    """Weight of an entropy bonus in the loss."""
    importance_cap: Annotated[float, Field(ge=0)] = 2.0
    """Upper bound of the importance weight, learner / sampler, that corrects for mismatch and staleness; 0: no
    correction."""
    importance_mode: Literal["truncate", "mask"] = "truncate"
    """Treatment of importance weights that are out of bounds. `truncate`: a larger one is cut to the upper bound;
    `mask`: one outside the bounds becomes 0."""
    importance_floor: Annotated[float, Field(ge=0)] = 0.5
    """Lower bound of the importance weight where `importance_mode` is `mask`."""
    importance_level: Literal["token", "sequence", "geometric"] = "token"
    """Scope of one importance weight. `token`: each token; `sequence`: the completion (product of its tokens' weights);
    `geometric`: the completion (their geometric mean)."""
    cpus: Annotated[float, Field(ge=0)] = 1
    """CPU cores reserved for each rank."""
    gpus: Annotated[float, Field(gt=0.5, le=1)] = 1
    """Part of a GPU reserved for each rank, more than half of one; below 1 the rest is for reward models."""
    resources: Resources = {}
    """Custom resources of the cluster's nodes that each rank takes, such as `{ ranks = 1 }`: where it may live (`ray start
    --resources`)."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Compute threads of a rank on a CPU host; 0: all cores of the host, or half of them where the engines sample
    meanwhile, divided by the ranks."""
    timeout_s: Annotated[float, Field(gt=0)] = 1800
    """Longest time in which no rank makes progress with a batch, a checkpoint or an export, in seconds. Progress is the next
    micro-batch or collective, or megabytes read or written: what is slow is not ended."""

    @property
    def groups(self) -> int:
        """Data-parallel groups: ranks, or sets of them, that pass packs of their own."""
        return self.ranks // self.sequence_parallel

    @property
    def pack_tokens(self) -> int:
        """Token budget of one pack."""
        return self.micro_batch_tokens * self.sequence_parallel

    @property
    def trains_all(self) -> bool:
        """Whether a completion with an advantage of 0 has a gradient: the loss has a term beside the policy gradient's."""
        return self.entropy_coef != 0 or (self.kl_coef != 0 and self.kl_in == "loss")

    @model_validator(mode="after")
    def _sequences(self) -> Self:
        if self.ranks % self.sequence_parallel:
            raise ValueError(
                f"sequence_parallel = {self.sequence_parallel} does not divide ranks = {self.ranks}, which pass packs in "
                "sets of that size"
            )
        return self

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
    def _second_copy(self) -> Self:
        size = self.zero_hpz_partition_size
        if size > 1 and self.zero_stage < 3:
            raise ValueError(
                f"zero_hpz_partition_size = {size} is for zero_stage = 3, which divides parameters; leave it out"
            )
        if size > 1 and (size >= self.ranks or self.ranks % size):
            raise ValueError(
                f"zero_hpz_partition_size = {size}: ranks = {self.ranks} do not make several groups of {size}; give the ranks "
                "of one node, or leave it out"
            )
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
