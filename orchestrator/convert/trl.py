"""TRL's GRPO: the YAML of `trl grpo --config`, with the keys of GRPOConfig, ScriptArguments, ModelConfig and accelerate.

Read from TRL 0.14 to 1.9: `trl/trainer/grpo_config.py`, `trl/scripts/grpo.py`. Its batches are counted in completions of a
device; a generation is `steps_per_generation` of these, of which `gradient_accumulation_steps` make an optimizer step.
"""

import math
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from orchestrator.convert.batches import batches_of, published_rows, rows_here
from orchestrator.convert.beside import find_beside, text_of
from orchestrator.convert.draft import Draft, name_from, slug
from orchestrator.convert.settings import Setting, Settings
from orchestrator.convert.sources import (
    expanded,
    location,
    put_lengths,
    put_missing_rewards,
    put_places,
    put_reward,
    put_source,
    put_system,
    put_template_args,
)
from orchestrator.convert.trl_names import DEFAULTS, LOST, NEWEST, OF_GRPO, OF_OTHERS, OPTIONAL, REWARDS
from orchestrator.convert.yaml_file import read_yaml
from rollout.errors import InputError, did_you_mean

TRAINER = "TRL"
_SHIPPED = {
    "single_gpu": (1, 0),
    "multi_gpu": (8, 0),
    "zero1": (8, 1),
    "zero2": (8, 2),
    "zero3": (8, 3),
    "fsdp1": (8, 3),
    "fsdp2": (8, 3),
}
"""Accelerate config that TRL ships → processes, ZeRO stage that is like it."""


def convert(
    file: str, found: Mapping[str, Setting], *, version: tuple[int, ...] | None, rows: int, processes: int
) -> Draft:
    """The recipe of a TRL GRPO run. Raises InputError for settings that TRL refuses too, and for a wrong value.

    Args:
        file: its name.
        found: its settings.
        version: of TRL, whose defaults hold; None: the newest that is known.
        rows: of the training data; 0: counted where they are here.
        processes: devices that train; 0: as the file says.
    """
    version = version or NEWEST
    defaults = {
        name: max(by for by in values if by[0] <= version)[1]
        for name, values in DEFAULTS.items()
        if values[0][0] <= version
    }
    settings = Settings(file, {**_accelerate(file, found), **_deepspeed(file, found), **found}, defaults)
    draft = Draft(TRAINER, settings)
    _refuse(settings)
    draft.put("name", name_from(settings, ("run_name", "hub_model_id", "output_dir"), file))
    draft.put("seed", settings.whole("seed", least=0) or 0, "seed")
    settings.take("accelerate_config", "num_processes")
    devices = processes or _devices(draft, settings)
    _batches(draft, settings, devices, rows, Path(file).parent, prompts_counted=version < (0, 15))
    _model(draft, settings)
    _data(draft, settings)
    _rewards(draft, settings)
    _sampling(draft, settings, devices)
    _loss(draft, settings)
    _correction(draft, settings)
    _optimizer(draft, settings)
    _loop(draft, settings)
    draft.lose_rest(LOST, NAMES)
    return draft


NAMES = frozenset({*DEFAULTS, *OPTIONAL})
"""Settings that a file is known by."""


def is_trl(names: Set[str]) -> bool:
    """Whether a YAML or a command with these names is one of TRL's GRPO."""
    return bool(names & NAMES - {"seed"}) and not foreign(names)


def foreign(names: Set[str]) -> str:
    """A setting of another trainer of TRL's, such as SFT, where none is of GRPO; empty: there is none."""
    return "" if names & OF_GRPO or not names & NAMES else next(iter(sorted(names & OF_OTHERS)), "")


def _accelerate(file: str, found: Mapping[str, Setting]) -> dict[str, Setting]:
    """The accelerate config that the file names, under the settings of the file: one that ships, or a file beside it."""
    named = found.get("accelerate_config")
    if named is None or not isinstance(named.value, str):
        return {}
    if named.value in _SHIPPED:
        number, stage = _SHIPPED[named.value]
        name = f"accelerate_config = {named.value}"
        return {
            "num_processes": Setting(name, number, named.line),
            "deepspeed_config.zero_stage": Setting(name, stage, named.line),
        }
    return _beside(file, named.value)


def _deepspeed(file: str, found: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings of the DeepSpeed file that the file names, if it is beside it."""
    named = found.get("deepspeed")
    if named is None or not isinstance(named.value, str):
        return {}
    return {f"deepspeed.{name}": setting for name, setting in _beside(file, named.value).items()}


def _beside(file: str, named: str) -> dict[str, Setting]:
    """The settings of a YAML or JSON file beside another, or where rayzero was started; none where there is no such file."""
    path = find_beside(Path(file).parent, [named])
    return read_yaml(str(path), text_of(path)) if path else {}


def _refuse(settings: Settings) -> None:
    """What TRL refuses, too."""
    both = ("generation_batch_size", "steps_per_generation")
    if all(name in settings and settings.value(name) is not None for name in both):
        raise settings.fault(both[0], f"{both[1]} says the same; keep one")
    kind = settings.text("loss_type")
    kinds = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
    if kind not in kinds:
        raise settings.fault("loss_type", f"no loss of TRL{did_you_mean(kind, kinds)}; there is: {', '.join(kinds)}")


def _devices(draft: Draft, settings: Settings) -> int:
    if number := settings.whole("num_processes", least=1):
        return number
    draft.differs(
        "num_processes", "not in the file: 1 device taken; give --processes N, since batches are counted by device"
    )
    draft.remains.append("the number of processes (accelerate's num_processes): rayzero convert --processes N")
    return 1


def _batches(draft: Draft, settings: Settings, devices: int, rows: int, folder: Path, *, prompts_counted: bool) -> None:
    """Groups, group size, mini-batches and steps."""
    samples = settings.whole("num_generations", least=2) or 8
    each = settings.whole("per_device_train_batch_size", least=1) or 8
    accumulated = settings.whole("gradient_accumulation_steps", least=1) or 1
    per_pass = each * devices * (samples if prompts_counted else 1)
    per_step = per_pass * accumulated
    generated = settings.whole("generation_batch_size", least=1)
    turns = settings.whole("steps_per_generation", least=1) or (generated // per_pass if generated else accumulated)
    batch = max(per_step, per_pass * turns)
    counted = f"{each} × {devices} devices × {max(turns, accumulated)}"
    if generated and generated % per_pass:
        raise settings.fault("generation_batch_size", f"not a multiple of the {per_pass} completions of all devices")
    if (per_pass * turns) % samples or batch % samples:
        raise settings.fault(
            "num_generations",
            f"the {per_pass * turns:,} completions of a generation ({each} × {devices} devices × {turns}) are no multiple of it; "
            f"change one of them, or give --processes N, such as {samples // math.gcd(samples, per_pass * turns // devices)}",
        )
    passes = settings.whole("num_iterations", least=1) or 1
    steps, length = _steps(settings, rows, folder, batch // samples, passes * batch // per_step)
    batches = batches_of(prompts=batch // samples, samples=samples, per_step=per_step, optimizer_steps=steps)
    sizes = {
        "rollout.group_size": "num_generations",
        "loop.groups_per_step": "per_device_train_batch_size",
        "learner.mini_batches": "steps_per_generation"
        if "steps_per_generation" in settings
        else "gradient_accumulation_steps",
    }
    draft.put_batches(batches, sizes=sizes, length=length)
    draft.differs(
        "per_device_train_batch_size",
        f"counts completions of a device; a batch here is {batches.completions:,} completions of all ({counted}), which are "
        f"{batches.groups:,} groups of {batches.group_size:,}",
    )
    if passes > 1:
        draft.differs(
            "num_iterations",
            f"a batch is passed once here, not {passes} times: as many optimizer steps, on {passes} times as many completions",
        )
    if batches.mini_batches > 1:
        draft.differs(
            "steps_per_generation", "the completions of a group stay in one optimizer step here; there they are mixed"
        )
    draft.put(
        "learner.micro_batch_tokens",
        max(1, each * _longest(settings)),
        "per_device_train_batch_size",
        "tokens of a forward pass; a limit, without padding",
    )
    for name in ("save_steps", "eval_steps"):
        settings.take(name)


def _steps(settings: Settings, rows: int, folder: Path, prompts: int, per_batch: int) -> tuple[int, str]:
    """(optimizer steps, how they were found); 0: the rows are not known."""
    most = settings.whole("max_steps")
    epochs = settings.real("num_train_epochs", 3.0)
    if most is not None and most > 0:
        return most, f"{most:,} optimizer steps (max_steps)"
    paths = [settings.text("dataset_name")] if "dataset_name" in settings else []
    counted = rows or (rows_here(paths, folder) if paths else 0)
    where = "counted here" if not rows else "--rows"
    if not counted and settings.text("dataset_train_split") == "train" and (counted := published_rows(paths)):
        where = "as published"
    if not counted:
        return (
            0,
            f"num_train_epochs = {epochs:g} of data that is not here: {epochs:g} × (rows // {prompts:,}) × {per_batch:,} optimizer steps; give --rows N",
        )
    if counted < prompts:
        raise InputError(
            f"{settings.file}: {counted:,} rows make no batch of {prompts:,} prompts; smaller batches, or --rows N"
        )
    steps = math.ceil(epochs * (counted // prompts) * per_batch)
    return (
        steps,
        f"num_train_epochs = {epochs:g} of {counted:,} rows ({where}), {prompts:,} prompts a batch: {steps:,} optimizer steps",
    )


def _longest(settings: Settings) -> int:
    return _prompt_length(settings)[0] + (settings.whole("max_completion_length", least=1) or 256)


def _prompt_length(settings: Settings) -> tuple[int, str]:
    """(longest prompt, what differs)."""
    if prompt := settings.whole("max_prompt_length", least=1):
        return prompt, "a longer prompt is left out and counted; there its beginning was cut off"
    whole = settings.whole("vllm_max_model_length") or settings.whole("vllm_max_model_len")
    completion = settings.whole("max_completion_length", least=1) or 256
    if whole and whole > completion:
        return whole - completion, "what vllm_max_model_length leaves; a longer prompt is left out and counted"
    return 1024, "TRL bounds no prompt; a longer one is left out and counted here"


def _model(draft: Draft, settings: Settings) -> None:
    model = settings.text("model_name_or_path")
    draft.put("model.path", expanded(model), "model_name_or_path")
    if not model:
        draft.remains.append("model.path: the model is named in the training script")
    if settings.flag("trust_remote_code"):
        draft.put("model.trust_remote_code", True, "trust_remote_code")
    kind = settings.text("dtype") or settings.text("torch_dtype")
    settings.take("dtype", "torch_dtype")
    half = settings.flag("fp16") or kind == "float16"
    mixed = settings.value("bf16")
    dtype = "bfloat16" if mixed in (True, "true") or kind == "bfloat16" or half else "auto"
    if mixed in (False, "false") and not half and kind != "bfloat16":
        dtype = "float32"
    note = "float16 is not there: bfloat16" if half else ""
    draft.put("model.dtype", dtype, "bf16" if "bf16" in settings else "dtype", note)
    settings.take("mixed_precision")
    prompt, said = _prompt_length(settings)
    completion = settings.whole("max_completion_length", least=1) or 256
    put_lengths(
        draft,
        prompt=prompt,
        completion=completion,
        sources={"prompt": "max_prompt_length", "completion": "max_completion_length"},
        note=said,
    )


def _data(draft: Draft, settings: Settings) -> None:
    """Sources and the evaluation set."""
    names = [str(name) for name in settings.listed("reward_funcs")]
    # Functions of one's own name the columns that they read; TRL's read `solution`.
    reads_columns = bool(names or settings.listed("reward_model_name_or_path")) and all("." in name for name in names)
    answer = "" if reads_columns else "solution"
    prompt = settings.text("dataset_prompt_column") or "prompt"
    columns = {"prompt_column": prompt, "answer_column": answer}
    subset = {"subset": settings.text("dataset_config")} if settings.text("dataset_config") else {}
    written = settings.text("dataset_name")
    mixed = settings.listed("datasets") or settings.listed("dataset_mixture.datasets")
    if mixed:
        _mixture(draft, mixed, columns)
    else:
        split = settings.text("dataset_train_split") or "train"
        is_hub = location(written).startswith("hub:")
        own = {**columns, **(subset if is_hub else {}), "split": split}
        put_source(draft, "data.sources.train", written, "dataset_name", own)
        if not written:
            draft.remains.append("data.sources.train.path: the data set is named in the training script")
        if _evaluates(settings):
            held = {**own, "split": settings.text("dataset_test_split") or "test"}
            put_source(draft, "eval.sets.test", written, "dataset_test_split", held)
    draft.put(
        "data.template",
        "chat",
        note="rows of messages go through the chat template as there; where rows hold text, TRL takes it as it is: plain",
    )
    if system := settings.text("system_prompt"):
        put_system(draft, "system_prompt", system)
    put_template_args(draft, settings, "chat_template_kwargs.")
    if not settings.flag("shuffle_dataset"):
        draft.differs("shuffle_dataset", "prompts are always shuffled here, by the seed")


def _mixture(draft: Draft, mixed: list[Any], columns: Mapping[str, Any]) -> None:
    for place, each in enumerate(mixed, 1):
        each = each if isinstance(each, Mapping) else {"path": str(each)}
        written = str(each.get("path") or each.get("id") or "")
        files = each.get("data_files")
        if written in ("json", "parquet", "csv", "arrow") and files:
            written = str(files[0] if isinstance(files, list) else files)
        subset = str(each.get("name") or each.get("config") or "")
        own = {**columns, "subset": subset, "split": str(each.get("split") or "train"), "weight": each.get("weight")}
        put_source(
            draft,
            f"data.sources.part-{place}",
            written,
            "datasets",
            own,
            note=""
            if place > 1
            else "parts are mixed by weight here, and put one behind the other there: give weights by their rows",
        )
    if any(isinstance(each, Mapping) and each.get("columns") for each in mixed):
        draft.differs("datasets", "a source here names its columns: prompt_column, answer_column")


def _evaluates(settings: Settings) -> bool:
    return settings.value("eval_strategy") not in (None, "no", False) or settings.value("evaluation_strategy") not in (
        None,
        "no",
        False,
    )


def _rewards(draft: Draft, settings: Settings) -> None:
    weights = settings.listed("reward_weights")
    models = [str(name) for name in settings.listed("reward_model_name_or_path")]
    names = [str(name) for name in settings.listed("reward_funcs")]
    asked = [*(("reward_model_name_or_path", name) for name in models), *(("reward_funcs", name) for name in names)]
    if weights and len(weights) != len(asked) and asked:
        raise settings.fault("reward_weights", f"{len(weights)} weights for {len(asked)} functions; give one for each")
    labels: set[str] = set()
    for place, (source, name) in enumerate(asked):
        try:
            weight = float(weights[place]) if weights else 1.0
        except (TypeError, ValueError):
            raise settings.fault("reward_weights", "not all are numbers") from None
        arguments, note = _reward(source, name)
        if not arguments:
            draft.differs("reward_funcs", f"{name}: {note}")
            draft.remains.append(f"a reward function for {name}: {note}")
            continue
        label = slug(name.rsplit(".", 1)[-1]).removesuffix("-reward") or "reward"
        label = label if label not in labels else f"{label}-{place + 1}"
        labels.add(label)
        put_reward(draft, label, {**arguments, "weight": weight}, source, note)
    put_missing_rewards(draft)
    if settings.text("multi_objective_aggregation") == "normalize_then_sum":
        draft.differs("multi_objective_aggregation", "rewards are summed, and the sum is scaled")


def _reward(source: str, name: str) -> tuple[dict[str, Any], str]:
    """(function of ours with its arguments, what differs); nothing: there is none."""
    if source == "reward_model_name_or_path":
        return {
            "name": "reward_model",
            "path": name,
            "scope": "response",
        }, "one logit of a sequence-classification model"
    if name in REWARDS:
        arguments, note = REWARDS[name]
        return dict(arguments), note
    if "." in name:
        module, _, function = name.rpartition(".")
        return {"name": f"{module}:{function}"}, ""
    return {}, "a function of the training script: give it as FILE.py:FUNCTION; functions in TRL's form run as they are"


def _sampling(draft: Draft, settings: Settings, devices: int) -> None:
    draft.put("rollout.temperature", settings.real("temperature", 1.0), "temperature")
    for name, none in (("top_p", 1.0), ("top_k", 0), ("min_p", 0), ("repetition_penalty", 1.0)):
        value = settings.number(name)
        if value is not None and value != none and not (name == "top_k" and value < 0):
            draft.differs(
                name, "completions are sampled from the whole distribution, which the learner's ratios are of"
            )
    fast = settings.flag("use_vllm")
    server = fast and settings.text("vllm_mode") == "server"
    parallel = settings.whole("vllm_tensor_parallel_size", least=1) or 1
    share = settings.number("vllm_gpu_memory_utilization")
    sources = {"ranks": "num_processes", "tensor_parallel": "vllm_tensor_parallel_size", "shared": "vllm_mode"}
    put_places(
        draft,
        gpus=devices,
        tensor_parallel=1 if server else parallel,
        told="vllm_tensor_parallel_size" in settings,
        shared=not server,
        engines=1,
        sources=sources,
    )
    if server:
        draft.differs(
            "vllm_mode",
            "engines are started by rayzero itself, on GPUs of their own: rollout.replicas, rollout.tensor_parallel",
        )
    if fast and share and not server:
        draft.put(
            "rollout.gpu_memory",
            share,
            "vllm_gpu_memory_utilization",
            "an engine sleeps while its rank trains here, so that 0.8 and more are possible",
        )
    if not fast:
        draft.differs("use_vllm", "vLLM samples here in any case")


def _loss(draft: Draft, settings: Settings) -> None:
    """Surrogate, clip, length, advantage, KL, entropy."""
    kind, high = settings.text("loss_type"), settings.number("epsilon_high")
    low = settings.real("epsilon", 0.2)
    high = low if high is None else high
    length = {"grpo": "sequence", "sapo": "sequence", "dr_grpo": "constant", "luspo": "sequence"}.get(kind, "token")
    notes = {
        "dapo": "the mean over tokens alone: a higher clip and dynamic sampling are settings of their own",
        "bnpo": "the mean is over the tokens of a device's micro-batch there, over those of the optimizer step here",
        "sapo": "a soft gate in place of the clip is not there: clip",
        "vespo": "its gamma weights are not there: clip",
        "luspo": "a completion's weight is not its length here: GSPO",
    }
    sequence = settings.text("importance_sampling_level") == "sequence"
    policy = "cispo" if kind == "cispo" else "gspo" if kind == "luspo" or sequence else "clip"
    draft.put("learner.policy_loss", policy, "importance_sampling_level" if sequence else "loss_type")
    draft.put("learner.length_norm", length, "loss_type", notes.get(kind, ""))
    if kind == "cispo":
        draft.put("learner.clip_low", 1.0, note="no lower bound, as there")
        draft.put(
            "learner.clip_high",
            max(1e-6, high - 1),
            "epsilon_high",
            "the bound is 1 + clip_high here, epsilon_high itself there",
        )
    else:
        draft.put("learner.clip_low", low, "epsilon")
        draft.put(
            "learner.clip_high", high, "epsilon_high" if settings.value("epsilon_high") is not None else "epsilon"
        )
    if (bound := settings.number("delta")) and bound > 1 and policy != "cispo":
        draft.put("learner.dual_clip", bound, "delta", "bounds a ratio where the advantage is negative")
    scales = {"group": "group_std", "true": "group_std", "batch": "batch_reward_std", "none": "none", "false": "none"}
    scale = str(settings.value("scale_rewards")).lower()
    if scale not in scales:
        raise settings.fault("scale_rewards", "TRL knows group, batch and none")
    draft.put("learner.advantage_baseline", "group_mean")
    draft.put("learner.advantage_scale", scales[scale], "scale_rewards")
    draft.put("learner.overlong_filtering", settings.flag("mask_truncated_completions"), "mask_truncated_completions")
    draft.put("learner.kl_coef", settings.real("beta", 0.0), "beta")
    draft.put("learner.kl_in", "loss")
    draft.put("learner.kl_estimator", "k3")
    draft.put("learner.entropy_coef", settings.real("entropy_coef", 0.0), "entropy_coef")
    if settings.flag("sync_ref_model"):
        every = settings.whole("ref_model_sync_steps", least=1) or 512
        mixed = settings.number("ref_model_mixup_alpha")
        note = (
            ""
            if mixed == 1
            else f"the reference becomes the policy; there it becomes {mixed:g} of it and the rest of the old one"
        )
        draft.put("learner.reference_refresh_steps", every, "ref_model_sync_steps", note)
    for name in ("use_bias_correction_kl", "use_adaptive_entropy"):
        if settings.flag(name):
            draft.differs(name, "not there: the estimator and the coefficient are as they are written")


def _correction(draft: Draft, settings: Settings) -> None:
    """The weights that correct for the difference of sampler and trainer."""
    if not settings.flag("use_vllm"):
        draft.put(
            "learner.importance_cap",
            2.0,
            note="there one model sampled and trained; here vLLM samples, so weights up to 2 correct for the difference",
        )
        draft.put("learner.importance_mode", "truncate")
        draft.put("learner.importance_level", "token")
        return
    mode = settings.text("vllm_importance_sampling_mode") or "token_truncate"
    most = settings.number("vllm_importance_sampling_clip_max")
    if settings.number("vllm_importance_sampling_cap") is not None:
        most = settings.number("vllm_importance_sampling_cap")
    least = settings.real("vllm_importance_sampling_clip_min", 0.0)
    if not settings.flag("vllm_importance_sampling_correction"):
        draft.put("learner.importance_cap", 0.0, "vllm_importance_sampling_correction")
        return
    level, _, treatment = mode.partition("_")
    if level not in ("token", "sequence") or treatment not in ("truncate", "mask"):
        raise settings.fault("vllm_importance_sampling_mode", "TRL knows token_ and sequence_, with truncate or mask")
    source = (
        "vllm_importance_sampling_cap"
        if "vllm_importance_sampling_cap" in settings
        else "vllm_importance_sampling_clip_max"
    )
    draft.put("learner.importance_cap", 1e9 if most is None else most, source, "no upper bound" if most is None else "")
    draft.put("learner.importance_mode", treatment, "vllm_importance_sampling_mode")
    draft.put("learner.importance_level", level, "vllm_importance_sampling_mode")
    if treatment == "mask":
        draft.put("learner.importance_floor", least, "vllm_importance_sampling_clip_min")
    elif least:
        draft.differs("vllm_importance_sampling_clip_min", "a smaller weight is not raised to it")


def _optimizer(draft: Draft, settings: Settings) -> None:
    rate = settings.number("learning_rate")
    if not rate or rate < 0:
        raise settings.fault("learning_rate", "give a number above 0")
    draft.put("learner.lr", rate, "learning_rate")
    kind = settings.text("lr_scheduler_type")
    constant = kind.startswith("constant")
    note = "" if constant else f"{kind}: half a cosine to 10 % of the peak is the nearest here"
    draft.put("learner.schedule", "constant" if constant else "cosine", "lr_scheduler_type", note)
    steps, ratio = settings.real("warmup_steps", 0), settings.real("warmup_ratio", 0)
    if 0 < steps < 1:
        steps, ratio = 0, steps
    if kind == "constant" and (steps or ratio):
        draft.differs(
            "warmup_steps" if steps else "warmup_ratio", "without effect: TRL's schedule constant has no warm-up"
        )
    elif steps:
        draft.put("learner.warmup_steps", int(steps), "warmup_steps")
    else:
        draft.put("learner.warmup_share", ratio, "warmup_ratio")
    draft.put("learner.beta1", settings.number("adam_beta1"), "adam_beta1")
    draft.put("learner.beta2", settings.number("adam_beta2"), "adam_beta2")
    draft.put("learner.weight_decay", settings.real("weight_decay", 0.0), "weight_decay")
    norm = settings.number("max_grad_norm")
    draft.put("learner.max_grad_norm", norm or 1e9, "max_grad_norm", "" if norm else "no bound")
    draft.put("learner.activation_checkpointing", settings.flag("gradient_checkpointing"), "gradient_checkpointing")
    stage = settings.whole("deepspeed_config.zero_stage") or settings.whole("deepspeed.zero_optimization.stage") or 0
    source = next(
        (name for name in ("deepspeed_config.zero_stage", "deepspeed.zero_optimization.stage") if name in settings), ""
    )
    if not stage and str(settings.value("fsdp") or settings.value("distributed_type") or "").lower().startswith(
        ("full_shard", "fsdp")
    ):
        stage, source = 3, "fsdp" if "fsdp" in settings else "distributed_type"
    settings.take("fsdp", "distributed_type")
    draft.put("learner.zero_stage", min(3, stage), source)
    names = ("deepspeed_config.offload_optimizer_device", "deepspeed.zero_optimization.offload_optimizer.device")
    if stage and any(settings.text(name) == "cpu" for name in names):
        draft.put("learner.offload_optimizer", True, next(name for name in names if name in settings))
    if isinstance(settings.value("deepspeed"), str) and not stage:
        draft.differs("deepspeed", "a file of DeepSpeed is not read: learner.zero_stage, learner.offload_optimizer")
        draft.remains.append("learner.zero_stage: as the file of DeepSpeed says")
    _adapters(draft, settings)


def _adapters(draft: Draft, settings: Settings) -> None:
    if not settings.flag("use_peft"):
        return
    draft.put("learner.lora_rank", settings.whole("lora_r", least=1) or 16, "lora_r")
    draft.put("learner.lora_alpha", settings.real("lora_alpha", 32), "lora_alpha")
    targets = [str(name) for name in settings.listed("lora_target_modules")]
    plain = [] if targets in ([], ["all-linear"]) else targets
    note = (
        ""
        if targets
        else "without it TRL takes what PEFT has for the model, often q_proj and v_proj; here all linear layers"
    )
    draft.put("learner.lora_targets", plain, "lora_target_modules", note)
    if settings.number("lora_dropout"):
        draft.differs("lora_dropout", "adapters have no dropout")


def _loop(draft: Draft, settings: Settings) -> None:
    """Checkpoints and evaluations, counted in batches."""
    draft.put("loop.max_staleness", 0, note="a batch is sampled by the weights that it trains")
    saves = settings.value("save_strategy")
    every = 0 if saves in ("no", False) else _batches_of(settings, draft, "save_steps")
    draft.put("loop.checkpoint_every", every, "save_steps", "in batches" if draft.parts > 1 else "")
    if saves == "epoch":
        draft.differs("save_strategy", "checkpoints are counted in batches")
    if kept := settings.whole("save_total_limit", least=1):
        draft.put("loop.keep_checkpoints", kept, "save_total_limit")
    draft.put(
        "loop.eval_every", _batches_of(settings, draft, "eval_steps") if _evaluates(settings) else 0, "eval_steps"
    )
    samples = settings.whole("num_generations_eval") or settings.whole("num_generations") or 8
    draft.put("eval.samples", samples, "num_generations_eval")
    draft.put("eval.temperature", settings.real("temperature", 1.0), "temperature")
    draft.put("eval.top_p", settings.real("top_p", 1.0), "top_p")
    draft.put("eval.greedy", False)


def _batches_of(settings: Settings, draft: Draft, name: str) -> int:
    """A number of optimizer steps in batches, at least one."""
    steps = settings.number(name) or settings.number("logging_steps") or 1
    if steps < 1:
        draft.differs(name, "a share of all steps: 20 batches taken")
        return 20
    return max(1, round(steps / draft.parts))
