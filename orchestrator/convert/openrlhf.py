"""OpenRLHF's PPO trainer: the flags of `openrlhf.cli.train_ppo_ray`, as they were, and with dots as they are now.

Read from OpenRLHF 0.5 to 0.11: `openrlhf/cli/train_ppo_ray.py`. A rollout is counted in prompts, an optimizer step in
completions; a step of its trainer is a rollout, as a step of `loop.steps` is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.convert.batches import batches_of, published_rows, rows_here
from orchestrator.convert.draft import Draft, name_from
from orchestrator.convert.openrlhf_names import DEFAULTS, DOTTED, LOST, NEWER
from orchestrator.convert.settings import Setting, Settings
from orchestrator.convert.sources import (
    expanded,
    put_lengths,
    put_missing_rewards,
    put_places,
    put_reward,
    put_sequence_parallel,
    put_server,
    put_source,
    reward_of_file,
)
from rollout.data.known_sets import PLACEHOLDER
from rollout.errors import InputError, did_you_mean

TRAINER = "OpenRLHF"
_ESTIMATORS: Mapping[str, tuple[str, str, str]] = {
    "group_norm": ("group_mean", "group_std", ""),
    "dr_grpo": ("group_mean", "none", ""),
    "rloo": ("leave_one_out", "none", ""),
    "reinforce_baseline": ("group_mean", "batch_std", ""),
    "reinforce": ("group_mean", "batch_std", "the baseline is the mean of the group here, and that of the batch there"),
    "gae": ("group_mean", "group_std", "there is no value network: a completion is compared with its group (GRPO)"),
}
"""Estimator of OpenRLHF → (baseline, scale, what differs)."""


def convert(file: str, found: Mapping[str, Setting], *, rows: int, processes: int) -> Draft:
    """The recipe of an OpenRLHF run. Raises InputError for a wrong value.

    Args:
        file: its name.
        found: its flags, without dashes.
        rows: of the training data; 0: counted where they are here.
        processes: GPUs that train; 0: as the command says.
    """
    newer = any("." in name for name in found)
    settings = Settings(
        file,
        {DOTTED.get(name, name): setting for name, setting in found.items()},
        {**DEFAULTS, **(NEWER if newer else {})},
    )
    draft = Draft(TRAINER, settings)
    draft.put("name", name_from(settings, ("wandb_run_name", "save_path"), file))
    draft.put("seed", settings.whole("seed", least=0) or 0, "seed")
    _batches(draft, settings, rows, Path(file).parent)
    _model(draft, settings)
    _data(draft, settings)
    _rewards(draft, settings)
    _sampling(draft, settings, processes)
    _loss(draft, settings)
    _kl(draft, settings)
    _correction(draft, settings)
    _optimizer(draft, settings)
    _loop(draft, settings)
    draft.lose_rest(LOST, {*DEFAULTS, *DOTTED})
    return draft


def _batches(draft: Draft, settings: Settings, rows: int, folder: Path) -> None:
    """Groups, group size, mini-batches and steps."""
    prompts = settings.whole("rollout_batch_size", least=1) or 1024
    samples = settings.whole("n_samples_per_prompt", least=1) or 1
    per_step = settings.whole("train_batch_size", least=1) or 128
    if per_step > prompts * samples:
        raise settings.fault(
            "train_batch_size",
            f"more than the {prompts * samples:,} completions of a rollout (rollout_batch_size × n_samples_per_prompt)",
        )
    passes = settings.whole("max_epochs", least=1) or 1
    steps, length = _steps(settings, rows, folder, samples, per_step, passes)
    batches = batches_of(prompts=prompts, samples=samples, per_step=per_step, optimizer_steps=steps)
    sizes = {
        "rollout.group_size": "n_samples_per_prompt",
        "loop.groups_per_step": "rollout_batch_size",
        "learner.mini_batches": "train_batch_size",
    }
    draft.put_batches(batches, sizes=sizes, length=length)
    draft.differs(
        "train_batch_size",
        f"counts completions of an optimizer step; learner.mini_batches is their number in a batch: {batches.mini_batches:,} of "
        f"{batches.completions / batches.mini_batches:,.6g} completions",
    )
    if passes > 1:
        draft.differs(
            "max_epochs",
            f"a batch is passed once here, not {passes} times: as many optimizer steps, on {passes} times as many completions",
        )


def _steps(settings: Settings, rows: int, folder: Path, samples: int, per_step: int, passes: int) -> tuple[int, str]:
    """(optimizer steps, how they were found); 0: the rows are not known."""
    episodes = settings.whole("num_episodes", least=1) or 1
    most = settings.whole("max_samples", least=1) or 0
    paths = _paths(settings, "prompt_data")
    counted, where = rows or rows_here(paths, folder), "--rows" if rows else "counted here"
    if not counted and settings.text("prompt_split") == "train" and (counted := published_rows(paths)):
        where = "as published"
    if not counted and "max_samples" in settings:
        counted, where = most, "max_samples; give --rows N where there are fewer"
    if not counted:
        return 0, (
            f"num_episodes = {episodes} of data that is not here: (rows × {samples:,} // {per_step:,}) × {episodes * passes} optimizer "
            "steps; give --rows N"
        )
    counted = min(counted, most)
    steps = counted * samples // per_step * episodes * passes
    if not steps:
        raise InputError(
            f"{settings.file}: {counted:,} rows make no optimizer step of {per_step:,} completions (train_batch_size)"
        )
    return steps, f"num_episodes = {episodes} of {counted:,} rows ({where}): {steps:,} optimizer steps"


def _paths(settings: Settings, name: str) -> list[str]:
    return [part.strip() for part in settings.text(name).split(",") if part.strip()]


def _lengths(settings: Settings) -> tuple[int, int, str]:
    """(longest prompt, longest completion, what differs)."""
    whole = settings.whole("max_len", least=16)
    completion = settings.whole("generate_max_len", least=1)
    prompt = settings.whole("prompt_max_len", least=1)
    if "max_len" in settings or not completion or not prompt:
        whole = whole or 2048
        told = completion if "generate_max_len" in settings and completion and completion < whole else None
        prompt = (
            prompt if "prompt_max_len" in settings and prompt else (whole - told if told else min(1024, whole // 2))
        )
        completion = told or max(1, whole - prompt)
        return prompt, completion, "of max_len; a longer prompt is left out and counted"
    return prompt, completion, "a longer prompt is left out and counted"


def _model(draft: Draft, settings: Settings) -> None:
    model = settings.text("pretrain")
    draft.put("model.path", expanded(model), "pretrain")
    if not model:
        draft.remains.append("model.path: the command names no model")
    kind = settings.text("param_dtype")
    draft.put(
        "model.dtype",
        "bfloat16" if settings.flag("bf16") or kind in ("bf16", "fp16") else "auto",
        "param_dtype" if kind else "bf16" if "bf16" in settings else "",
        "float16 is not there: bfloat16" if kind == "fp16" else "",
    )
    prompt, completion, note = _lengths(settings)
    sources = {
        "prompt": "prompt_max_len" if "prompt_max_len" in settings else "max_len",
        "completion": "generate_max_len",
    }
    put_lengths(draft, prompt=prompt, completion=completion, sources=sources, note=note)
    rank = settings.whole("lora_rank") or 0
    alpha, targets = settings.real("lora_alpha", 16), [str(name) for name in settings.listed("target_modules")]
    if rank > 0:
        draft.put("learner.lora_rank", rank, "lora_rank")
        draft.put("learner.lora_alpha", alpha, "lora_alpha")
        draft.put("learner.lora_targets", [name for name in targets if name != "all-linear"], "target_modules")
        if settings.number("lora_dropout"):
            draft.differs("lora_dropout", "adapters have no dropout")


def _data(draft: Draft, settings: Settings) -> None:
    columns: dict[str, Any] = {
        "prompt_column": settings.text("input_key") or "input",
        "answer_column": settings.text("label_key"),
    }
    form = settings.text("input_template")
    if form and "{}" in form:
        columns["prompt_form"] = form.replace("{}", PLACEHOLDER, 1)
    elif form:
        draft.differs("input_template", "has no {} for the prompt, and is left out there, too")
    paths, shares = _paths(settings, "prompt_data"), _paths(settings, "prompt_data_probs")
    if shares and len(shares) != len(paths):
        raise settings.fault("prompt_data_probs", f"{len(shares)} shares for {len(paths)} data sets; give one for each")
    limit = settings.whole("max_samples", least=1) or 0
    if "max_samples" in settings and len(paths) == 1:
        columns["limit"] = limit
    for place, path in enumerate(paths or [""], 1):
        try:
            share = {"weight": float(shares[place - 1])} if len(paths) > 1 and shares else {}
        except ValueError:
            raise settings.fault("prompt_data_probs", "not all are numbers") from None
        own = {**columns, **share, "split": settings.text("prompt_split") or "train"}
        put_source(
            draft,
            f"data.sources.train{f'-{place}' if len(paths) > 1 else ''}",
            path,
            "prompt_data",
            own,
            keep="input_key" in settings,
        )
    if not paths:
        draft.remains.append("data.sources.train.path: the command names no data set")
    evaluated = settings.text("eval_dataset")
    if evaluated:
        own = {name: value for name, value in columns.items() if name != "limit"} | {
            "split": settings.text("eval_split") or "train"
        }
        put_source(draft, "eval.sets.test", evaluated, "eval_dataset", own, keep="input_key" in settings)
    chat = settings.flag("apply_chat_template")
    draft.put(
        "data.template",
        "chat" if chat else "plain",
        "apply_chat_template",
        "rows of messages need it" if not chat else "",
    )


def _rewards(draft: Draft, settings: Settings) -> None:
    asked = _paths(settings, "remote_rm_url")
    for place, each in enumerate(asked, 1):
        label = "remote" if len(asked) == 1 else f"remote-{place}"
        if each.startswith(("http://", "https://")):
            put_server(draft, each, "remote_rm_url", label)
        else:
            put_reward(
                draft,
                label,
                reward_of_file(each, "reward_func"),
                "remote_rm_url",
                "called for one completion at a time; group = true gives it those of a prompt",
            )
    models = _paths(settings, "reward_pretrain")
    for place, each in enumerate(models, 1):
        label = "model" if len(models) == 1 else f"model-{place}"
        if not asked:
            put_reward(draft, label, {"name": "reward_model", "path": each, "scope": "response"}, "reward_pretrain")
    if asked and models:
        draft.differs("reward_pretrain", "without effect: remote_rm_url comes before it, there too")
    if agent := settings.text("agent_func_path"):
        draft.differs("agent_func_path", "there are no turns with tools or environments")
        draft.remains.append(f"a reward function in place of the agent {agent}")
    put_missing_rewards(draft)
    size = settings.whole("overlong_buffer_len", least=1)
    if size:
        weight = settings.real("overlong_penalty_factor", 1.0)
        completion = _lengths(settings)[1]
        put_reward(
            draft,
            "length",
            {"name": "length", "max_tokens": completion, "buffer": size, "weight": weight},
            "overlong_buffer_len",
        )


def _sampling(draft: Draft, settings: Settings, processes: int) -> None:
    draft.put("rollout.temperature", settings.real("temperature", 1.0), "temperature")
    if settings.number("top_p") not in (None, 1.0):
        draft.differs("top_p", "completions are sampled from the whole distribution, which the learner's ratios are of")
    nodes, each = (
        settings.whole("actor_num_nodes", least=1) or 1,
        settings.whole("actor_num_gpus_per_node", least=1) or 8,
    )
    behind_asynchronous = settings.flag("async_train")
    engines = settings.whole("vllm_num_engines") or 1
    put_places(
        draft,
        gpus=processes or nodes * each,
        tensor_parallel=settings.whole("vllm_tensor_parallel_size", least=1) or 1,
        told="vllm_tensor_parallel_size" in settings,
        shared=settings.flag("colocate_all_models") and not behind_asynchronous,
        engines=engines,
        sources={
            "ranks": "actor_num_gpus_per_node",
            "replicas": "vllm_num_engines",
            "tensor_parallel": "vllm_tensor_parallel_size",
            "shared": "colocate_all_models",
        },
    )
    put_sequence_parallel(draft, settings.whole("ring_attn_size", least=1) or 1, "ring_attn_size")
    draft.put("rollout.gpu_memory", settings.real("vllm_gpu_memory_utilization", 0.85), "vllm_gpu_memory_utilization")
    draft.put("rollout.eager", settings.flag("enforce_eager"), "enforce_eager")
    queue = settings.whole("async_queue_size", least=1) or 1
    if behind_asynchronous:
        draft.put(
            "loop.max_staleness",
            queue,
            "async_queue_size",
            "sampling goes on beside training: tokens are so many versions old at most",
        )
        settings.take("partial_rollout")
    else:
        draft.put("loop.max_staleness", 0, "async_train", "a batch is sampled by the weights that it trains")
    if settings.flag("dynamic_filtering"):
        draft.put(
            "loop.dynamic_sampling",
            True,
            "dynamic_filtering",
            "groups whose rewards are all equal are replaced; there, those with a mean outside of the range",
        )
    settings.take("dynamic_filtering_reward_range")


def _loss(draft: Draft, settings: Settings) -> None:
    """Advantage, surrogate, clip, length, entropy."""
    name = settings.text("advantage_estimator")
    if name not in _ESTIMATORS:
        raise settings.fault(
            "advantage_estimator", f"not known{did_you_mean(name, _ESTIMATORS)}; there is: {', '.join(_ESTIMATORS)}"
        )
    baseline, scale, note = _ESTIMATORS[name]
    if settings.flag("no_advantage_std_norm") and scale == "batch_std":
        scale = "none"
    draft.put("learner.advantage_baseline", baseline, "advantage_estimator", note)
    draft.put("learner.advantage_scale", scale, "advantage_estimator")
    if note:
        draft.differs("advantage_estimator", note)
    sequence = settings.text("policy_loss_type") == "gspo"
    draft.put("learner.policy_loss", "gspo" if sequence else "clip", "policy_loss_type")
    draft.put("learner.length_norm", "sequence" if sequence else "token", "policy_loss_type")
    low = high = settings.real("eps_clip", 0.2)
    both = settings.listed("eps_clip_low_high")
    source = "eps_clip_low_high" if both else "eps_clip"
    if both:
        low, high = _two_numbers(settings, "eps_clip_low_high")
    draft.put("learner.clip_low", low, source)
    draft.put("learner.clip_high", high, source)
    draft.put("learner.dual_clip", settings.real("dual_clip", 0.0), "dual_clip")
    draft.put("learner.entropy_coef", settings.real("entropy_loss_coef", 0.0), "entropy_loss_coef")


def _two_numbers(settings: Settings, name: str) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in settings.listed(name))
    except ValueError:
        raise settings.fault(name, "give two numbers") from None
    return low, high


def _kl(draft: Draft, settings: Settings) -> None:
    """β, its place and its estimator."""
    in_loss = settings.flag("use_kl_loss")
    coefficient = settings.real("init_kl_coef", 0.0)
    kind = "k3" if settings.flag("use_kl_estimator_k3") else settings.text("kl_estimator")
    if kind not in ("k1", "k2", "k3"):
        raise settings.fault("kl_estimator", "there is: k1, k2, k3")
    draft.put("learner.kl_coef", coefficient, "init_kl_coef")
    draft.put(
        "learner.kl_in",
        "loss" if in_loss else "reward",
        "use_kl_loss",
        ""
        if in_loss or not coefficient
        else "of the whole completion, before the baseline; there of each token, behind it",
    )
    draft.put("learner.kl_estimator", kind, "kl_estimator")
    if in_loss and kind == "k1" and coefficient:
        draft.differs("kl_estimator", "the expected gradient of k1 in the loss is zero; k2 or k3")


def _correction(draft: Draft, settings: Settings) -> None:
    """The weights that correct for the difference of sampler and trainer."""
    if not settings.flag("enable_vllm_is_correction"):
        draft.put(
            "learner.importance_cap",
            0.0,
            "enable_vllm_is_correction",
            "no correction, as there; 2.0 is the default here",
        )
        return
    bounds = settings.listed("vllm_is_truncated_threshold")
    one = len(bounds) == 1
    low, high = (
        (0.0, settings.real("vllm_is_truncated_threshold", 0.0))
        if one
        else _two_numbers(settings, "vllm_is_truncated_threshold")
    )
    kind = settings.text("vllm_is_correction_type")
    draft.put("learner.importance_cap", high, "vllm_is_truncated_threshold")
    draft.put("learner.importance_mode", "truncate" if kind == "tis" else "mask", "vllm_is_correction_type")
    level = "geometric" if kind == "seq-mask-tis" else "token"
    draft.put(
        "learner.importance_level",
        level,
        "vllm_is_correction_type",
        "the weight is the completion's here; there it only decides which are left out" if level == "geometric" else "",
    )
    if kind != "tis":
        draft.put("learner.importance_floor", low, "vllm_is_truncated_threshold")
    elif low:
        draft.differs("vllm_is_truncated_threshold", f"a weight below {low:g} is not raised to it")


def _optimizer(draft: Draft, settings: Settings) -> None:
    rate = settings.number("actor_learning_rate")
    if not rate or rate < 0:
        raise settings.fault("actor_learning_rate", "give a number above 0")
    draft.put("learner.lr", rate, "actor_learning_rate")
    kind, end = settings.text("lr_scheduler"), settings.number("min_lr_ratio")
    constant = kind.startswith("constant")
    same = constant or (kind == "cosine_with_min_lr" and end == 0.1)
    draft.put(
        "learner.schedule",
        "constant" if constant else "cosine",
        "lr_scheduler",
        "" if same else f"{kind}: half a cosine to 10 % of the peak is the nearest here",
    )
    draft.put("learner.warmup_share", settings.real("lr_warmup_ratio", 0.0), "lr_warmup_ratio")
    first, second = _two_numbers(settings, "adam_betas")
    draft.put("learner.beta1", first, "adam_betas")
    draft.put("learner.beta2", second, "adam_betas")
    draft.put("learner.weight_decay", settings.real("l2", 0.0), "l2")
    draft.put("learner.max_grad_norm", settings.number("max_norm") or 1e9, "max_norm")
    stage = settings.whole("zero_stage", least=0)
    draft.put("learner.zero_stage", min(3, 2 if stage is None else stage), "zero_stage")
    offload = settings.flag("adam_offload")
    draft.put(
        "learner.offload_optimizer",
        bool(offload and stage),
        "adam_offload",
        "" if stage or not offload else "needs a zero_stage of 1 to 3",
    )
    draft.put("learner.activation_checkpointing", settings.flag("gradient_checkpointing"), "gradient_checkpointing")
    prompt, completion, _ = _lengths(settings)
    if settings.flag("use_dynamic_batch"):
        tokens, source = settings.whole("train_max_tokens_per_gpu", least=1) or 16192, "train_max_tokens_per_gpu"
    else:
        tokens, source = (
            (settings.whole("micro_train_batch_size", least=1) or 1) * (prompt + completion),
            "micro_train_batch_size",
        )
    draft.put("learner.micro_batch_tokens", tokens, source, "tokens of a forward pass; a limit, without padding")
    if settings.flag("packing_samples"):
        draft.differs("packing_samples", "sequences are always packed, without padding")


def _loop(draft: Draft, settings: Settings) -> None:
    """Checkpoints and evaluations: both are counted in rollouts on both sides."""
    draft.put("loop.checkpoint_every", max(0, settings.whole("save_steps") or 0), "save_steps")
    draft.put("loop.keep_checkpoints", settings.whole("max_ckpt_num", least=1) or 3, "max_ckpt_num")
    draft.put("loop.eval_every", max(0, settings.whole("eval_steps") or 0), "eval_steps")
    draft.put("eval.samples", settings.whole("eval_n_samples_per_prompt", least=1) or 4, "eval_n_samples_per_prompt")
    temperature = settings.real("eval_temperature", 0)
    draft.put("eval.temperature", max(0.01, temperature), "eval_temperature", "" if temperature else "greedy there")
    draft.put("eval.top_p", settings.real("top_p", 1.0), "top_p")
    draft.put("eval.greedy", False)
