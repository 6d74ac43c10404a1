"""The recipe: one TOML file, typed sections, every key documented where it is declared.

A recipe has defaults (`[model]`, `[rollout]`, `[learner]`, …) and `[[stages]]`, each of which may repeat any of these
sections over the defaults. `load_recipe` returns a `Recipe` whose stages are resolved: what a stage needs is in the
stage. An unknown key is an error that names the nearest known one.

Nothing here imports torch, vllm, ray, deepspeed or transformers, so a mistake is answered in well under a second.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from orchestrator.keys import flat
from orchestrator.overrides import overridden
from orchestrator.schedule import CAN_CHANGE, Schedule, check_schedule, refused_key
from orchestrator.wiring import check_wiring
from rollout.errors import InputError, did_you_mean
from rollout.published import PLACEHOLDER, PUBLISHED, PublishedSet

if TYPE_CHECKING:
    from rollout.sources import Source

RECIPES = Path(__file__).parent / "recipes"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BuildSection(Section):
    """A small untied Qwen2 made from scratch, for runs that need no download."""

    tokenizer: Literal["", "characters", "bpe"] = ""
    """Empty: build nothing, use `model.path`. `characters`: one token a character plus the four R1 tags.
    `bpe`: a byte-level BPE trained on the data sources of the recipe."""
    vocab_size: Annotated[int, Field(ge=300)] = 2048
    """Size of the BPE vocabulary (`characters` has its own)."""
    layers: Annotated[int, Field(ge=1)] = 3
    """Transformer layers."""
    hidden: Annotated[int, Field(ge=16)] = 128
    """Width of the residual stream."""
    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads."""
    kv_heads: Annotated[int, Field(ge=1)] = 4
    """Key/value heads (grouped-query attention when fewer than `heads`)."""
    intermediate: Annotated[int, Field(ge=16)] = 384
    """Width of the feed-forward layer."""
    tied: bool = False
    """Share the input and the output embedding."""

    @model_validator(mode="after")
    def _head_size(self) -> Self:
        if self.hidden % (32 * self.heads):
            raise ValueError(
                f"model.build.hidden = {self.hidden} over {self.heads} heads: the engine needs a head size that is a "
                f"multiple of 32, so hidden must be a multiple of {32 * self.heads}"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"model.build.heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}")
        return self


class ModelSection(Section):
    path: str = ""
    """A Hugging Face model folder or hub id that the first stage starts from; empty: `model.build`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass and of the engine; master weights and gradient sums are float32 always. `auto`: bfloat16 on a GPU,
    float32 on a CPU."""
    max_tokens: Annotated[int, Field(ge=8)] = 512
    """Longest prompt plus completion that the engine accepts."""
    trust_remote_code: bool = False
    """Run Python that ships inside the model folder. Off: such a model is refused."""
    build: BuildSection = BuildSection()


class SourceSection(Section):
    """Where prompts come from: a file, a directory, or a generated task."""

    path: str = ""
    """A JSONL, Parquet, CSV or Arrow file, a folder of them, or a saved `datasets` directory."""
    set: Literal["", "gsm8k", "aime24", "amc23", "humaneval"] = ""
    """The file is this data set as it is published: columns, rubric (`math` or `code`) and form need not be named."""
    task: str = ""
    """A generated task instead of a path: `arithmetic`."""
    stage: str = ""
    """An earlier stage instead of a path: the rows that it left."""
    split: str = "train"
    """Split of a generated task (`train` or `held-out`) or of a `datasets` directory."""
    prompt_column: str = "prompt"
    """Column that holds the question."""
    answer_column: str = "answer"
    """Column that holds the reference answer; empty: none."""
    answer_pattern: str = ""
    """Regular expression whose first group is the answer inside that column, such as `#### (.+)`."""
    completion_column: str = ""
    """Column that holds a worked completion (SFT)."""
    prompt_form: str = ""
    """Text with `{prompt}` in it that the question is put into before the template; empty: the question alone, or
    what `set` asks with."""
    chosen_column: str = ""
    """Column that holds the better of two responses (reward models, DPO); then no answer column is expected."""
    rejected_column: str = ""
    """Column that holds the worse one."""
    messages_column: str = ""
    """Column of conversations (SFT): a list of messages with `role` and `content`, which the model's chat template
    renders. In place of prompt, answer and completion columns."""
    rubric: str = "default"
    """Rubric that scores the completions, a key of `rewards.rubrics`."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Share of this source relative to the others; with `sft.epochs`, how often it is passed through in an epoch. 0: not
    before a step of the stage's schedule gives it a share."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Take only the first rows; 0: all."""
    options: dict[str, int | float | str | bool] = {}
    """Options of the generated task."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, raw: Any) -> Any:
        """The keys of a published set, written out."""
        known = _published_set(raw)
        return {**known.columns, "rubric": known.rubric, **raw} if known else raw

    @model_validator(mode="before")
    @classmethod
    def _pairs_need_no_answer(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("chosen_column") and "answer_column" not in values:
            return {**values, "answer_column": ""}
        return values

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(map(bool, (self.path, self.task, self.stage))) != 1:
            raise ValueError("a source has one of `path`, `task` and `stage`")
        if self.set and not self.path:
            raise ValueError(f"set = {self.set!r} says what a file holds; name the file with `path`")
        if self.prompt_form and PLACEHOLDER not in self.prompt_form:
            raise ValueError(f"prompt_form = {self.prompt_form!r} has no {PLACEHOLDER} for the question; add it")
        if bool(self.chosen_column) != bool(self.rejected_column):
            raise ValueError("preference pairs need both `chosen_column` and `rejected_column`")
        if self.chosen_column and self.task:
            raise ValueError(f"the task {self.task!r} makes no preference pairs; remove `chosen_column`")
        return self

    @property
    def holds_pairs(self) -> bool:
        """Whether the rows are preference pairs."""
        return bool(self.chosen_column)

    def source(self, name: str) -> "Source":
        """What `load_rows` takes. `name`: of this section."""
        # Only here: brings pyarrow.
        from rollout.sources import Source

        return Source(name=name, **self.model_dump(exclude={"weight", "set", "prompt_form", "correct", "stage"}))


class EvalSetSection(SourceSection):
    correct: str = ""
    """LABEL of the reward function that says what is right, by giving 1 or more; empty: the rubric's `accuracy` or
    `code_tests`, or else the first one that is no reward model."""

    @model_validator(mode="after")
    def _no_stage(self) -> Self:
        if self.stage:
            raise ValueError(
                f"stage = {self.stage!r}: an evaluation set has `path` or `task`; rows of a stage are to train on"
            )
        return self


class DataSection(Section):
    sources: dict[str, SourceSection] = {}
    """Named sources of prompts, mixed by weight."""
    template: str = "plain"
    """`plain`, `r1-zero`, `chat` (the model's own chat template), or a text file with `{prompt}` in it."""
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 256
    """A longer prompt is reported and skipped, never cut."""


class RolloutSection(Section):
    replicas: Annotated[int, Field(ge=1)] = 1
    """vLLM engines, each behind one Ray actor."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """Workers (GPUs) of one engine."""
    group_size: Annotated[int, Field(ge=1)] = 8
    """Completions a prompt (G)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Sampling temperature; the learner divides its logits by the same."""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Longest completion."""
    max_sequences: Annotated[int, Field(ge=1)] = 256
    """Sequences that one engine decodes at a time."""
    kv_cache_gb: Annotated[int, Field(ge=1)] = 1
    """Key/value cache of one engine on a CPU host."""
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Share of GPU memory that one engine takes."""
    eager: bool = False
    """Never compile or capture graphs (always so on a CPU)."""
    cpus: Annotated[float, Field(ge=0)] = 1
    """CPU cores reserved per replica and tensor-parallel worker."""
    gpus: Annotated[float, Field(gt=0, le=1)] = 1
    """GPU reserved per tensor-parallel worker; below 1 it shares the GPU with a learner rank."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Compute threads of a CPU engine; 0: all cores of the host."""
    timeout_s: Annotated[float, Field(gt=0)] = 600
    """Longest wait for one group before the request is retried on another replica."""


class FunctionSection(Section):
    """One reward function of a rubric. Keys that are not named here are arguments of the function."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str = ""
    """A function that ships (`rayzero recipes --rewards` lists them), `path/to/file.py:function` or
    `package.module:function`; empty: LABEL is the name."""
    weight: float = 1.0
    """The reward is the sum of weight times value. `LABEL = 0.5` is short for `LABEL = { weight = 0.5 }`."""
    gate: str = ""
    """LABEL of another function of the rubric: this one counts only where that one gives 1 or more."""
    group: bool = False
    """A function of your own that gets the list of all completions of a group and returns a list of numbers."""


_FORMAT = FunctionSection(name="format", weight=0.2)
SHIPPED_RUBRICS: Mapping[str, dict[str, FunctionSection]] = {
    "math": {"accuracy": FunctionSection(name="accuracy"), "format": _FORMAT},
    "code": {"code_tests": FunctionSection(name="code_tests"), "format": _FORMAT},
}
"""A source may ask for these where the recipe has none of that name."""


class RewardsSection(Section):
    rubrics: dict[str, dict[str, FunctionSection]] = {"default": SHIPPED_RUBRICS["math"]}
    """Rubric name → label → reward function. `math` (accuracy, format) and `code` (code_tests, format) are there without
    being named."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Ray actors that score."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Child processes of each, for symbolic checks, functions of your own and programs."""
    function_timeout_s: Annotated[float, Field(gt=0)] = 10
    """Longest run of a function of your own on one completion; then it is killed, which counts as an error."""
    timeout_s: Annotated[float, Field(gt=0)] = 60
    """Longest silence of a reward actor that has work; then it is replaced."""
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of completions that may fail to be scored; above it the run stops and names the reward."""

    @field_validator("rubrics", mode="before")
    @classmethod
    def _written_out(cls, rubrics: Any) -> Any:
        """`LABEL = 0.5` and `functions = [{ name = …, … }]` as tables by label."""
        if not isinstance(rubrics, dict):
            return rubrics
        return {name: _by_label(functions) for name, functions in rubrics.items()}

    @model_validator(mode="after")
    def _gates(self) -> Self:
        for rubric, functions in self.rubrics.items():
            for label, function in functions.items():
                if function.gate and (function.gate not in functions or function.gate == label):
                    others = ", ".join(other for other in functions if other != label)
                    raise ValueError(
                        f"rewards.rubrics.{rubric}.{label}.gate = {function.gate!r}: not another function of the "
                        f"rubric; there is: {others or 'none'}"
                    )
        return self


class SandboxSection(Section):
    """Where programs that a model writes are run."""

    allow_weak: bool = False
    """Run them even where the kernel lacks what contains them (`rayzero doctor` says what)."""
    time_limit_s: Annotated[float, Field(gt=0)] = 6
    """Wall time of one test, where the task says nothing."""
    total_s: Annotated[float, Field(gt=0)] = 60
    """Wall time of all tests of a program together."""
    memory_mb: Annotated[int, Field(ge=16)] = 512
    """Of all processes of a program together, where the task says nothing."""
    processes: Annotated[int, Field(ge=1)] = 16
    """Processes and threads of a program at any time."""
    file_mb: Annotated[int, Field(ge=1)] = 16
    """Largest file of a program, its output included."""


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
    """Compute threads of a rank on a CPU host; 0: all cores divided by the ranks."""
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


class LoopSection(Section):
    steps: Annotated[int, Field(ge=0)] = 100
    """Batches to train on (SFT: optimizer steps); 0: as many as `sft.epochs` makes."""
    groups_per_step: Annotated[int, Field(ge=1)] = 32
    """Groups in one batch."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """Oldest policy version, relative to the learner's, that a trained token may have; 0: exactly on-policy."""
    publish_every: Annotated[int, Field(ge=1)] = 1
    """Batches between two publishes; at most `max_staleness` + 1."""
    dynamic_sampling: bool = False
    """Replace groups whose rewards are all equal by fresh ones (DAPO), instead of training on them."""
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Batches between two evaluations (SFT: of the loss alone); 0: only before and after."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 20
    """Batches between two checkpoints; 0: only at the end."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Older ones of the stage are deleted."""
    audit_every: Annotated[int, Field(ge=0)] = 10
    """Batches between two audits of the engines' logprobs against the learner's; 0: never."""
    audit_tolerance: Annotated[float, Field(ge=0)] = 0
    """Largest allowed logprob difference; 0: 1e-4 in float32, 0.25 in bfloat16."""


class SftSection(Section):
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Examples an optimizer step (of a conversation each turn of the assistant is one)."""
    epochs: Annotated[float, Field(ge=0)] = 0
    """Passes through the data, instead of `loop.steps`: every example comes exactly so often; 0: `loop.steps` says."""
    mask_prompt: bool = True
    """Train on completion tokens only; off: on every token (pre-training)."""
    turns: Literal["all", "last"] = "all"
    """Turns of the assistant in a conversation that train."""
    eval_loss: bool = True
    """Also measure the loss of evaluation sets with worked completions, before, every `loop.eval_every` steps, and after."""


class RejectSection(Section):
    """What a `reject` stage samples and keeps."""

    samples: Annotated[int, Field(ge=1)] = 4
    """Completions a prompt."""
    keep: Literal["right", "shortest", "best"] = "right"
    """Of what passes the filters: those that are `right` (as in an evaluation, by their rubric), the
    `shortest` of these, or the `best` by reward, right or not."""
    keep_at_most: Annotated[int, Field(ge=1)] = 1
    """Completions kept of a prompt."""
    filters: tuple[Literal["mixed_languages", "long_paragraph", "code_blocks", "code_only", "repetitive"], ...] = (
        "mixed_languages",
        "long_paragraph",
        "code_blocks",
    )
    """Flags of the thought that drop a completion (those of R1 by default)."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of common shingles at which the later of two rows is dropped; 1: only the same words again."""
    overlap_words: Annotated[int, Field(ge=0)] = 13
    """A prompt that shares so many words in a row with an evaluation set is not asked; 0: not checked."""
    shard_prompts: Annotated[int, Field(ge=1)] = 256
    """Prompts between two writes: what a stop may lose."""


class RewardModelSection(Section):
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Pairs an optimizer step."""
    scope: Literal["answer", "response"] = "answer"
    """What the reward model reads of a response: the final answer alone (helpfulness in R1), or the whole of it with its
    thought (harmlessness)."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts whose pairs are not trained on but judged, beside the `eval.sets` with pairs."""


class DpoSection(Section):
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Pairs an optimizer step."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """β: how strongly the model that the stage starts from holds; larger is closer to it."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the preferences taken to be the wrong way round (conservative DPO)."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts whose pairs are not trained on but judged, beside the `eval.sets` with pairs."""


class EvalSection(Section):
    sets: dict[str, EvalSetSection] = {}
    """Named evaluation sets; their problems must not occur in training. Those with pairs are for the stages that learn from
    pairs, the others for what generates."""
    samples: Annotated[int, Field(ge=0)] = 4
    """k: completions a problem for pass@1 and cons@k; 0: greedy only."""
    temperature: Annotated[float, Field(gt=0)] = 0.6
    """Of the samples (0.6 as in R1)."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Of the samples (0.95 as in R1)."""
    greedy: bool = True
    """Also decode greedily."""
    max_tokens: Annotated[int, Field(ge=0)] = 0
    """Longest completion; 0: `rollout.max_tokens`."""

    @property
    def prompt_sets(self) -> dict[str, EvalSetSection]:
        """Problems for the model to answer."""
        return {
            name: section
            for name, section in self.sets.items()
            if not section.holds_pairs and not section.messages_column
        }

    @property
    def pair_sets(self) -> dict[str, EvalSetSection]:
        """Preference pairs."""
        return {name: section for name, section in self.sets.items() if section.holds_pairs}


class ClusterSection(Section):
    address: str = ""
    """Ray cluster to join: `auto`, `HOST:PORT` or `ray://HOST:PORT`; empty: a private one in this process."""
    dashboard_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Dashboard of the private cluster, on loopback; 0: off."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Prometheus text of the private cluster; 0: a free port."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 300
    """Longest wait for actors and engines to start."""


class Settings(Section):
    """The sections that a recipe gives defaults for and a stage may repeat."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    rollout: RolloutSection = RolloutSection()
    rewards: RewardsSection = RewardsSection()
    sandbox: SandboxSection = SandboxSection()
    learner: LearnerSection = LearnerSection()
    loop: LoopSection = LoopSection()
    sft: SftSection = SftSection()
    reject: RejectSection = RejectSection()
    reward_model: RewardModelSection = RewardModelSection()
    dpo: DpoSection = DpoSection()
    eval: EvalSection = EvalSection()


class RolloutChange(Section):
    max_tokens: Annotated[int, Field(ge=0)] = 0
    """Longest completion from then on; 0: as before."""
    temperature: Annotated[float, Field(ge=0)] = 0
    """Sampling temperature from then on; 0: as before."""


class SourceChange(Section):
    weight: Annotated[float, Field(ge=0)]
    """Share of this source from then on; 0: none."""


class DataChange(Section):
    sources: dict[str, SourceChange] = {}
    """Data source → what changes of it."""


class Change(Section):
    """Settings of a grpo stage that change at a step (orchestrator/schedule.py)."""

    from_step: Annotated[int, Field(ge=1)]
    """Batches trained before the change."""
    rollout: RolloutChange = RolloutChange()
    data: DataChange = DataChange()

    @model_validator(mode="before")
    @classmethod
    def _can_change(cls, values: Any) -> Any:
        if isinstance(values, dict) and (key := refused_key(flat(values))):
            raise ValueError(
                f"{key} cannot change at a step{did_you_mean(key, CAN_CHANGE)}; can: {', '.join(CAN_CHANGE)}"
            )
        return values


StageKind = Literal["sft", "grpo", "reject", "reward_model", "dpo", "eval"]


class Stage(Settings):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of the stage and of its folder in the run directory."""
    kind: StageKind
    """`sft`: supervised fine-tuning; `grpo`: reinforcement learning; `reject`: rejection sampling, which leaves rows;
    `reward_model`: a model of preferences from pairs, for rubrics (`path = "stage:NAME"`); `dpo`: direct preference
    optimisation on pairs; `eval`: evaluation alone."""

    model_from: str = ""
    """Earlier stage whose model this one starts from; `own`: what its own `model` section says. Empty: the stage before
    it that left a policy."""
    schedule: tuple[Change, ...] = ()
    """Settings that change at a step (grpo), in the order of the steps."""

    @model_validator(mode="before")
    @classmethod
    def _steps_of_epochs(cls, values: Any) -> Any:
        """With epochs, steps that are not given are none, instead of their default."""
        if not isinstance(values, dict) or values.get("kind") != "sft":
            return values
        sft, loop = values.get("sft", {}), values.get("loop", {})
        if isinstance(sft, dict) and sft.get("epochs") and isinstance(loop, dict) and "steps" not in loop:
            return values | {"loop": loop | {"steps": 0}}
        return values

    @model_validator(mode="after")
    def _length(self) -> Self:
        if self.kind == "sft" and self.sft.epochs:
            if self.loop.steps:
                raise ValueError(
                    f"stage {self.name!r}: sft.epochs = {self.sft.epochs:g} and loop.steps = {self.loop.steps} both say "
                    "how long it is; set one of them to 0"
                )
        elif not self.loop.steps:
            raise ValueError(
                f"stage {self.name!r}: loop.steps = 0: give at least 1" + " or sft.epochs" * (self.kind == "sft")
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _shipped_rubrics(cls, raw: Any) -> Any:
        """The rubrics that ship, written out where a source asks for one."""
        if not isinstance(raw, dict) or not isinstance(rewards := raw.get("rewards", {}), dict):
            return raw
        rubrics = rewards.get("rubrics", {"default": SHIPPED_RUBRICS["math"]})
        asked = {name for source in _sources(raw) if isinstance(name := _rubric_asked(source), str)}
        if isinstance(rubrics, dict) and (missing := sorted(asked & set(SHIPPED_RUBRICS) - set(rubrics))):
            rubrics = {**rubrics, **{name: SHIPPED_RUBRICS[name] for name in missing}}
            return {**raw, "rewards": {**rewards, "rubrics": rubrics}}
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "eval" and not self.eval.sets:
            raise ValueError(f"stage {self.name!r} evaluates nothing: add [eval.sets.NAME] with `path` or `task`")
        if self.kind != "eval" and not self.data.sources:
            raise ValueError(f"stage {self.name!r} has no prompts: add [data.sources.NAME] with `path` or `task`")
        # Pairs are not scored.
        scored = {} if self.kind in ("reward_model", "dpo") else self.data.sources
        for name, source in (*scored.items(), *self.eval.prompt_sets.items()):
            if source.rubric not in self.rewards.rubrics:
                known = ", ".join(sorted(self.rewards.rubrics))
                raise ValueError(f"source {name!r} asks for rubric {source.rubric!r}; rewards.rubrics has: {known}")
        for name, chosen in self.eval.prompt_sets.items():
            labels = self.rewards.rubrics[chosen.rubric]
            if chosen.correct and chosen.correct not in labels:
                raise ValueError(
                    f"eval.sets.{name}.correct = {chosen.correct!r}{did_you_mean(chosen.correct, labels)}; "
                    f"rubric {chosen.rubric!r} has: {', '.join(labels)}"
                )
        if self.kind == "grpo":
            if self.rollout.group_size == 1:
                raise ValueError(
                    "rollout.group_size = 1: advantages are relative to the group, which needs at least 2 completions"
                )
            if self.loop.publish_every > self.loop.max_staleness + 1:
                raise ValueError(
                    f"loop.publish_every = {self.loop.publish_every} lets tokens be {self.loop.publish_every - 1} "
                    f"versions old; raise loop.max_staleness (now {self.loop.max_staleness}) to at least that"
                )
            if self.learner.mini_batches > self.loop.groups_per_step:
                raise ValueError(
                    f"learner.mini_batches = {self.learner.mini_batches} is more than the "
                    f"{self.loop.groups_per_step} groups of a batch (loop.groups_per_step)"
                )
        check_schedule(self)
        longest = Schedule(self).max_tokens
        if longest + self.data.max_prompt_tokens > self.model.max_tokens:
            raise ValueError(
                f"rollout.max_tokens ({longest}) + data.max_prompt_tokens "
                f"({self.data.max_prompt_tokens}) exceed model.max_tokens ({self.model.max_tokens})"
            )
        return self


class Recipe(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of the recipe; the run directory is `runs/<name>` unless told otherwise."""
    description: str = ""
    """One line for `rayzero recipes` and the report."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Every random choice of the run derives from it."""
    cluster: ClusterSection = ClusterSection()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    """In order; each starts from the model that the one before it left, unless it says otherwise."""

    @model_validator(mode="after")
    def _wired(self) -> Self:
        check_wiring(self.stages)
        return self


STAGE_SECTIONS = tuple(Settings.model_fields)


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name or a TOML file by path, apply `key=value` overrides (overrides.py), validate.

    Raises:
        InputError: unknown recipe, unreadable TOML, unknown key, wrong type, or settings that contradict each other.
    """
    return parse_recipe(_read_toml(_find(name)), overrides)


def parse_recipe(raw: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Lay overrides over a recipe, resolve its stages over its defaults and validate it. Raises InputError."""
    raw = overridden(raw, overrides, STAGE_SECTIONS)
    defaults = {section: raw.pop(section) for section in STAGE_SECTIONS if section in raw}
    stages = raw.get("stages")
    if isinstance(stages, list) and all(isinstance(stage, dict) for stage in stages):
        _check_default_keys(defaults)
        raw["stages"] = [_merge(defaults, stage) for stage in stages]
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise InputError(_explain(error, raw)) from None


def shipped_recipes() -> dict[str, str]:
    """Name → one-line description of every recipe in the package."""
    return {path.stem: str(_read_toml(path).get("description", "")) for path in sorted(RECIPES.glob("*.toml"))}


def recipe_keys() -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of everything a recipe may hold; the README's table is made from this."""
    yield from _keys("", Recipe, skip=("stages",))
    yield from _keys("stages[].", Stage, skip=STAGE_SECTIONS)
    yield from _keys("", Settings)


def to_toml(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain TOML data: what `recipe.toml` in the run directory holds."""
    data: dict[str, Any] = json.loads(recipe.model_dump_json())
    return data


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix == ".toml" or "/" in name:
        if not path.is_file():
            raise InputError(f"no recipe file at {name}")
        return path
    shipped = RECIPES / f"{name}.toml"
    if not shipped.is_file():
        known = sorted(path.stem for path in RECIPES.glob("*.toml"))
        raise InputError(f"unknown recipe {name!r}{did_you_mean(name, known)}; shipped: {', '.join(known)}")
    return shipped


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _published_set(source: Any) -> PublishedSet | None:
    """What a source as it is written in a recipe names by `set`."""
    name = source.get("set") if isinstance(source, dict) else None
    return PUBLISHED.get(name) if isinstance(name, str) else None


def _rubric_asked(source: Any) -> Any:
    known = _published_set(source)
    return source.get("rubric", known.rubric if known else "") if isinstance(source, dict) else None


def _sources(stage: Mapping[str, Any]) -> Iterator[Any]:
    """The sources of a stage as they are written in a recipe, the evaluation sets included."""
    for section, key in (("data", "sources"), ("eval", "sets")):
        values = stage.get(section)
        named = values.get(key) if isinstance(values, dict) else None
        yield from named.values() if isinstance(named, dict) else ()


def _by_label(functions: Any) -> Any:
    """A rubric with one table a function."""
    if not isinstance(functions, dict):
        return functions
    tables: dict[str, Any] = {}
    for label, value in functions.items():
        listed = value if label == "functions" and isinstance(value, list) else [value]
        for function in listed:
            table = {"weight": function} if isinstance(function, int | float) else function
            if not isinstance(table, dict):
                tables[label] = table
                continue
            own = str(table.get("label") or (table.get("name", "") if listed is value else label))
            if own in tables:
                raise ValueError(f"two functions of a rubric are called {own!r}; give one a `label` of its own")
            name = table.get("name") or own
            tables[own] = {"name": name} | {key: each for key, each in table.items() if key not in ("name", "label")}
    return tables


def _check_default_keys(defaults: Mapping[str, Any]) -> None:
    """Report an unknown key of the defaults once, under its own name instead of once a stage."""
    for section, values in defaults.items():
        known = Settings.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
        if not isinstance(values, dict):
            raise InputError(f"{section} = {values!r}: is a section, write [{section}] with keys below it")
        for key in values:
            if key not in known:
                raise InputError(f"unknown key {section}.{key}{did_you_mean(key, known)}")


def _explain(error: ValidationError, raw: Mapping[str, Any]) -> str:
    """The first mistake, in the words of the recipe."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    where = _place(error, raw)
    if first["type"] == "extra_forbidden":
        known = [*_keys_at(Recipe, location[:-1]), *(STAGE_SECTIONS if len(location) == 1 else ())]
        return f"unknown key {where}{did_you_mean(location[-1], known)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return f"{where}: {message}" if where and not message.startswith("stage ") else message
    return f"{where} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _place(error: ValidationError, raw: Mapping[str, Any]) -> str:
    """Where the first mistake is: `learner.lr (stage reasoning)`; without the stage when every stage makes it."""
    places = [entry["loc"] for entry in error.errors()]
    first = places[0]
    stages = raw.get("stages")
    if len(first) < 2 or first[0] != "stages" or not isinstance(first[1], int) or not isinstance(stages, list):
        return ".".join(map(str, first))
    stage, key = stages[first[1]], ".".join(map(str, first[2:]))
    name = stage.get("name") if isinstance(stage, dict) else None
    label = f"stage {name}" if isinstance(name, str) else f"stage number {first[1] + 1}"
    if not key:
        return label
    mistaken = {place[1] for place in places if place[:1] == ("stages",) and place[2:] == first[2:]}
    return key if len(first) > 3 and len(mistaken) == len(stages) else f"{key} ({label})"


def _keys_at(model: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        field = model.model_fields.get(part)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else [model]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(model.model_fields)


def _keys(prefix: str, model: type[BaseModel], skip: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(f"{prefix}{name}.", kind)
            continue
        args: tuple[Any, ...] = getattr(kind, "__args__", ())
        listed = args[0] if args[-1:] == (Ellipsis,) else None
        if isinstance(listed, type) and issubclass(listed, BaseModel):
            yield from _keys(f"{prefix}{name}[].", listed)
            continue
        place, nested = f"{prefix}{name}.NAME.", args[-1] if args else None
        while inner := getattr(nested, "__args__", ()):
            place, nested = f"{place}LABEL.", inner[-1]
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _keys(place, nested)
            continue
        text = kind.__name__ if isinstance(kind, type) and not args else str(kind)
        text = text.replace("typing.", "").replace("Literal", "")
        default = "required" if field.is_required() else json.dumps(field.default)
        yield f"{prefix}{name}", text, default, " ".join((field.description or "").split())
