"""verl's PPO trainer: the settings of `verl.trainer.main_ppo`, on a command line or in a YAML.

Read from verl 0.3 to 0.7: `verl/trainer/config/`. Its batches are counted in prompts, its mini-batches too; a step of its
trainer is a batch, as a step of `loop.steps` is.
"""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.config.sections.rewards import ANSWER_LINE
from orchestrator.convert.batches import batches_of, published_rows, rows_here
from orchestrator.convert.draft import Draft, name_from, slug
from orchestrator.convert.settings import UNKNOWN, Setting, Settings, is_secret
from orchestrator.convert.sources import (
    expanded,
    put_lengths,
    put_missing_rewards,
    put_places,
    put_reward,
    put_sequence_parallel,
    put_source,
    put_template_args,
    reward_of_file,
)
from orchestrator.convert.verl_names import DEFAULTS, KL, LOST, RENAMED
from rollout.errors import InputError, did_you_mean

TRAINER = "verl"
SECTIONS = ("actor_rollout_ref", "algorithm", "critic", "custom_reward_function", "data", "reward_model", "trainer")
_ACTOR, _ROLLOUT, _MODEL = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout.", "actor_rollout_ref.model."
_OPTIM = _ACTOR + "optim."
_KWARGS = "custom_reward_function.reward_kwargs."
_ULYSSES = _ACTOR + "ulysses_sequence_parallel_size"
_CORRECTION = "algorithm.rollout_correction."
_ESTIMATORS: Mapping[str, tuple[str, str, str]] = {
    "grpo": ("group_mean", "group_std", ""),
    "grpo_vectorized": ("group_mean", "group_std", ""),
    "rloo": ("leave_one_out", "none", ""),
    "rloo_vectorized": ("leave_one_out", "none", ""),
    "reinforce_plus_plus_baseline": ("group_mean", "batch_std", ""),
    "reinforce_plus_plus": (
        "group_mean",
        "batch_std",
        "the baseline is the mean of the group here, and that of the batch there",
    ),
    "remax": ("leave_one_out", "none", "the baseline is the mean of the others in the group, not a greedy completion"),
    "opo": ("group_mean", "none", "the baseline is the plain mean of the group, not one weighted by length"),
    "gpg": ("group_mean", "none", "rewards are not scaled by the share of groups that carry a signal"),
    "grpo_passk": ("group_mean", "group_std", "every completion counts, not the best of a group alone"),
    "optimal_token_baseline": ("group_mean", "none", "the baseline is the mean of the group, one for all tokens"),
    "tir_optimal_token_baseline": ("group_mean", "none", "the baseline is the mean of the group, one for all tokens"),
    "gae": ("group_mean", "group_std", "there is no value network: a completion is compared with its group (GRPO)"),
}
"""Estimator of verl → (baseline, scale, what differs)."""


def convert(file: str, found: Mapping[str, Setting], *, rows: int, processes: int) -> Draft:
    """The recipe of a verl run. Raises InputError for a wrong value.

    Args:
        file: its name.
        found: its settings by dotted names.
        rows: of the training data; 0: counted where they are here.
        processes: GPUs that train; 0: as the file says.
    """
    named = {name: setting for name, setting in found.items() if name not in RENAMED}
    for name, setting in found.items():
        if name in RENAMED and (setting.value is None or RENAMED[name] in found):
            named[name] = setting
        elif name in RENAMED:
            named[RENAMED[name]] = setting
    settings = Settings(file, _resolved(named), DEFAULTS)
    draft = Draft(TRAINER, settings)
    gpus = processes or (settings.whole("trainer.n_gpus_per_node", least=1) or 8) * (
        settings.whole("trainer.nnodes", least=1) or 1
    )
    settings.take("trainer.n_gpus_per_node", "trainer.nnodes")
    draft.put("name", name_from(settings, ("trainer.experiment_name",), file))
    if (seed := settings.whole("data.seed", least=0)) is not None:
        draft.put("seed", seed, "data.seed")
    _batches(draft, settings, rows, Path(file).parent)
    _model(draft, settings)
    _data(draft, settings)
    _rewards(draft, settings)
    _sampling(draft, settings, gpus)
    _advantage(draft, settings)
    _loss(draft, settings)
    _kl(draft, settings)
    _correction(draft, settings)
    _optimizer(draft, settings, gpus)
    _loop(draft, settings)
    draft.lose_rest(LOST, DEFAULTS)
    return draft


def is_verl(names: set[str]) -> bool:
    """Whether a YAML with these dotted names is one of verl's."""
    sections = {name.split(".", 1)[0] for name in names}
    return "actor_rollout_ref" in sections or len(sections & {*SECTIONS}) >= 2


def _resolved(found: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings with `${other.name}`, `${oc.select:other.name,default}` and `${oc.env:NAME,default}` filled in."""

    def value(text: str, depth: int) -> Any:
        inside = re.fullmatch(r"\$\{([^{}]*)\}", text)
        if inside is None or depth > 8:
            part = re.sub(r"\$\{[^{}]*\}", lambda each: str(value(each[0], depth + 1)), text) if depth <= 8 else text
            return part
        kind, _, rest = inside[1].rpartition(":")
        name, _, default = rest.partition(",")
        name, default = name.strip(), default.strip()
        if kind == "oc.env":
            return os.environ.get(name, default or f"{UNKNOWN}{name}{UNKNOWN}")
        if name in found:
            other = found[name].value
            return value(other, depth + 1) if isinstance(other, str) and "${" in other else other
        if name in DEFAULTS:
            return DEFAULTS[name]
        return (None if default in ("null", "None") else default) if default else f"{UNKNOWN}{{{inside[1]}}}{UNKNOWN}"

    return {
        name: Setting(setting.name, value(setting.value, 0), setting.line)
        if isinstance(setting.value, str) and "${" in setting.value
        else setting
        for name, setting in found.items()
    }


def _batches(draft: Draft, settings: Settings, rows: int, folder: Path) -> None:
    """Groups, group size, mini-batches and steps."""
    prompts = settings.whole("data.train_batch_size", least=1) or 1024
    samples = settings.whole(_ROLLOUT + "n", least=1) or 1
    part = settings.whole(_ACTOR + "ppo_mini_batch_size", least=1) or 256
    if part > prompts:
        raise settings.fault(
            _ACTOR + "ppo_mini_batch_size", f"more than the {prompts:,} prompts of a batch (data.train_batch_size)"
        )
    passes = settings.whole(_ACTOR + "ppo_epochs", least=1) or 1
    parts = math.ceil(prompts / part)
    steps, length = _steps(settings, rows, folder, prompts)
    batches = batches_of(
        prompts=prompts, samples=samples, per_step=part * samples, optimizer_steps=steps * parts * passes
    )
    if steps:
        length += f", {steps * parts * passes:,} optimizer steps"
    sizes = {
        "rollout.group_size": _ROLLOUT + "n",
        "loop.groups_per_step": "data.train_batch_size",
        "learner.mini_batches": _ACTOR + "ppo_mini_batch_size",
    }
    draft.put_batches(batches, sizes=sizes, length=length)
    draft.differs(
        _ACTOR + "ppo_mini_batch_size",
        f"counts prompts of an optimizer step; learner.mini_batches is their number in a batch: {batches.mini_batches:,} of "
        f"{batches.completions / batches.mini_batches:,.6g} completions",
    )
    if passes > 1:
        draft.differs(
            _ACTOR + "ppo_epochs",
            f"a batch is passed once here, not {passes} times: as many optimizer steps, on {passes} times as many completions",
        )
    _micro_batches(draft, settings)


def _micro_batches(draft: Draft, settings: Settings) -> None:
    longest = (settings.whole("data.max_prompt_length", least=1) or 512) + (
        settings.whole("data.max_response_length", least=1) or 512
    )
    sequences = settings.whole(_ACTOR + "ppo_micro_batch_size_per_gpu", least=1)
    if settings.flag(_ACTOR + "use_dynamic_bsz"):
        tokens, source = (
            settings.whole(_ACTOR + "ppo_max_token_len_per_gpu", least=1) or 16384,
            "ppo_max_token_len_per_gpu",
        )
    elif sequences:
        tokens, source = sequences * longest, "ppo_micro_batch_size_per_gpu"
    else:
        return
    draft.put(
        "learner.micro_batch_tokens", tokens, _ACTOR + source, "tokens of a forward pass; a limit, without padding"
    )


def _steps(settings: Settings, rows: int, folder: Path, prompts: int) -> tuple[int, str]:
    """(batches, how they were found); 0: the rows are not known."""
    epochs = settings.whole("trainer.total_epochs", least=1) or 30
    most = settings.whole("trainer.total_training_steps")
    if most is not None and most > 0:
        return most, f"{most:,} batches (trainer.total_training_steps)"
    paths = _files(settings, "data.train_files")
    counted, where = rows or rows_here(paths, folder), "--rows" if rows else "counted here"
    if not counted and (counted := published_rows(paths)):
        where = "as published"
    limit = settings.whole("data.train_max_samples") or -1
    if not counted and limit > 0:
        counted, where = limit, "data.train_max_samples; give --rows N where there are fewer"
    counted = min(counted, limit) if limit > 0 else counted
    if not counted:
        return (
            0,
            f"total_epochs = {epochs} of data that is not here: {epochs} × (rows // {prompts:,}) batches; give --rows N",
        )
    if counted < prompts:
        raise InputError(
            f"{settings.file}: {counted:,} rows make no batch of {prompts:,} prompts (data.train_batch_size); a smaller batch, or --rows N"
        )
    steps = epochs * (counted // prompts)
    return (
        steps,
        f"total_epochs = {epochs} of {counted:,} rows ({where}), {prompts:,} prompts a batch: {steps:,} batches",
    )


def _files(settings: Settings, name: str) -> list[str]:
    return [expanded(str(path)) for path in settings.listed(name)]


def _model(draft: Draft, settings: Settings) -> None:
    model = settings.text(_MODEL + "path")
    draft.put("model.path", expanded(model), _MODEL + "path")
    if not model:
        draft.remains.append("model.path: the command names no model (actor_rollout_ref.model.path)")
    if settings.flag(_MODEL + "trust_remote_code"):
        draft.put("model.trust_remote_code", True, _MODEL + "trust_remote_code")
    prompt = settings.whole("data.max_prompt_length", least=1) or 512
    completion = settings.whole("data.max_response_length", least=1) or 512
    put_lengths(
        draft,
        prompt=prompt,
        completion=completion,
        sources={"prompt": "data.max_prompt_length", "completion": "data.max_response_length"},
    )
    rank = settings.whole(_MODEL + "lora_rank") or 0
    if rank > 0:
        draft.put("learner.lora_rank", rank, _MODEL + "lora_rank")
        draft.put("learner.lora_alpha", settings.real(_MODEL + "lora_alpha", 16), _MODEL + "lora_alpha")
        targets = [str(name) for name in settings.listed(_MODEL + "target_modules") if name != "all-linear"]
        draft.put("learner.lora_targets", targets, _MODEL + "target_modules")
    for name in ("lora_rank", "lora_alpha", "target_modules"):
        settings.take(_MODEL + name)


def _data(draft: Draft, settings: Settings) -> None:
    key = settings.text("data.prompt_key") or "prompt"
    limits = {
        "train": settings.whole("data.train_max_samples") or 0,
        "val": settings.whole("data.val_max_samples") or 0,
    }
    for name, table in (("train", "data.sources"), ("val", "eval.sets")):
        paths = _files(settings, f"data.{name}_files")
        if not paths and name == "train":
            draft.put("data.sources.train.path", "", note="the command names no file (data.train_files)")
            draft.put("data.sources.train.answer_column", "reward_model.ground_truth")
            draft.put("data.sources.train.rubric", "default")
            draft.remains.append("data.sources.train.path: the command names no file (data.train_files)")
        for place, path in enumerate(paths, 1):
            columns: dict[str, Any] = {"prompt_column": key, "answer_column": "reward_model.ground_truth"}
            if limits[name] > 0:
                columns["limit"] = limits[name]
            own = name if len(paths) == 1 else f"{name}-{place}"
            note = "files are mixed in equal shares here, and put one behind the other there: set weights by their rows"
            put_source(
                draft, f"{table}.{own}", path, f"data.{name}_files", columns, note=note if place == 2 else "", keep=True
            )
    draft.put("data.template", "chat", note="rows of messages, under the model's chat template")
    put_template_args(draft, settings, "data.apply_chat_template_kwargs.")
    if not settings.flag("data.shuffle"):
        draft.differs("data.shuffle", "prompts are always shuffled here, by the seed")


def _rewards(draft: Draft, settings: Settings) -> None:
    path, function = settings.text("custom_reward_function.path"), settings.text("custom_reward_function.name")
    if path:
        arguments = {}
        for name in _names_below(settings, _KWARGS):
            value = settings.value(_KWARGS + name)
            if is_secret(name, value):
                draft.differs(_KWARGS + name, "a secret is not written out: read it from the environment (cluster.env)")
                draft.remains.append(f"the argument {name} of {path}:{function}, which is a secret")
            else:
                arguments[name] = value
        put_reward(
            draft,
            slug(function) or "score",
            {**arguments, **reward_of_file(path, function)},
            "custom_reward_function.path",
        )
    if settings.flag("reward_model.enable"):
        model = settings.text("reward_model.model.path")
        put_reward(
            draft, "model", {"name": "reward_model", "path": model, "scope": "response"}, "reward_model.model.path"
        )
        if not model:
            draft.remains.append("rewards.rubrics.default.model.path: the reward model")
    elif "reward_model.model.path" in settings:
        draft.differs("reward_model.model.path", "off there (reward_model.enable)")
    files = " ".join(_files(settings, "data.train_files")).lower()
    if not path and not settings.flag("reward_model.enable"):
        if "dapo" in files:
            put_reward(
                draft,
                "accuracy",
                {"name": "accuracy", "pattern": ANSWER_LINE},
                "",
                "verl scores by data_source; for these 1 or -1 by the line Answer: …, here 1 or 0",
            )
        else:
            put_missing_rewards(
                draft,
                "verl scores by the row's data_source; here the final answer is compared with reward_model.ground_truth",
            )
        draft.differs(
            "custom_reward_function.path",
            "none is named: verl's functions by data_source are not here; accuracy, code_tests or one of yours",
        )
    if settings.flag("reward_model.overlong_buffer.enable"):
        size = settings.whole("reward_model.overlong_buffer.len", least=1) or 1
        weight = settings.real("reward_model.overlong_buffer.penalty_factor", 1.0)
        limit = settings.whole("data.max_response_length", least=1) or 512
        put_reward(
            draft,
            "length",
            {"name": "length", "max_tokens": limit, "buffer": size, "weight": weight},
            "reward_model.overlong_buffer.len",
        )


def _names_below(settings: Settings, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in settings.names() if name.startswith(prefix)]


def _sampling(draft: Draft, settings: Settings, gpus: int) -> None:
    draft.put("rollout.temperature", settings.real(_ROLLOUT + "temperature", 1.0), _ROLLOUT + "temperature")
    for name, none in (("top_p", 1), ("top_k", -1)):
        value = settings.number(_ROLLOUT + name)
        if value not in (None, none, 0):
            draft.differs(
                _ROLLOUT + name,
                "completions are sampled from the whole distribution, which the learner's ratios are of",
            )
    put_places(
        draft,
        gpus=gpus,
        tensor_parallel=settings.whole(_ROLLOUT + "tensor_model_parallel_size", least=1) or 2,
        told=_ROLLOUT + "tensor_model_parallel_size" in settings,
        shared=True,
        engines=gpus,
        sources={"tensor_parallel": _ROLLOUT + "tensor_model_parallel_size", "ranks": "trainer.n_gpus_per_node"},
    )
    put_sequence_parallel(draft, settings.whole(_ULYSSES, least=1) or 1, _ULYSSES)
    draft.put(
        "rollout.gpu_memory",
        settings.real(_ROLLOUT + "gpu_memory_utilization", 0.5),
        _ROLLOUT + "gpu_memory_utilization",
    )
    draft.put(
        "rollout.max_sequences", settings.whole(_ROLLOUT + "max_num_seqs", least=1) or 256, _ROLLOUT + "max_num_seqs"
    )
    draft.put("rollout.eager", settings.flag(_ROLLOUT + "enforce_eager"), _ROLLOUT + "enforce_eager")
    if settings.flag("algorithm.filter_groups.enable"):
        draft.put(
            "loop.dynamic_sampling",
            True,
            "algorithm.filter_groups.enable",
            "groups whose rewards are all equal are replaced",
        )


def _advantage(draft: Draft, settings: Settings) -> None:
    name = settings.text("algorithm.adv_estimator")
    name = name.rsplit(".", 1)[-1].lower() if "." in name else name
    if name not in _ESTIMATORS:
        raise settings.fault(
            "algorithm.adv_estimator", f"not known{did_you_mean(name, _ESTIMATORS)}; there is: {', '.join(_ESTIMATORS)}"
        )
    baseline, scale, note = _ESTIMATORS[name]
    scaled = settings.flag("algorithm.norm_adv_by_std_in_grpo")
    if scale == "group_std" and not scaled:
        scale = "none"
    draft.put("learner.advantage_baseline", baseline, "algorithm.adv_estimator", note)
    draft.put(
        "learner.advantage_scale",
        scale,
        "algorithm.norm_adv_by_std_in_grpo"
        if scale in ("group_std", "none") and name.startswith("grpo")
        else "algorithm.adv_estimator",
    )
    if note:
        draft.differs("algorithm.adv_estimator", note)


def _loss(draft: Draft, settings: Settings) -> None:
    mode = settings.text(_ACTOR + "policy_loss.loss_mode")
    known = {
        "vanilla": ("clip", ""),
        "gspo": ("gspo", ""),
        "cispo": ("cispo", ""),
        "gpg": ("reinforce", "no ratio and no clip"),
    }
    policy, note = known.get(mode, ("clip", f"{mode} is not there: the clipped ratio of each token"))
    draft.put("learner.policy_loss", policy, _ACTOR + "policy_loss.loss_mode", note)
    clip = settings.real(_ACTOR + "clip_ratio", 0.2)
    for ours, name in (("learner.clip_low", "clip_ratio_low"), ("learner.clip_high", "clip_ratio_high")):
        told = _ACTOR + name in settings and settings.value(_ACTOR + name) is not None
        value = settings.number(_ACTOR + name) if told else clip
        alone = not told and _ACTOR + "clip_ratio" in settings and value != 0.2
        note = f"verl from 0.3 on takes {name}, 0.2 where it is not set, before clip_ratio" if alone else ""
        draft.put(ours, value, _ACTOR + (name if told else "clip_ratio"), note)
    dual = settings.real(_ACTOR + "clip_ratio_c", 0)
    if policy == "clip":
        draft.put("learner.dual_clip", dual if dual > 1 else 0.0, _ACTOR + "clip_ratio_c")
    kind = settings.text(_ACTOR + "loss_agg_mode")
    lengths = {
        "token-mean": ("token", ""),
        "seq-mean-token-mean": ("sequence", ""),
        "seq-mean-token-sum": (
            "constant",
            "divided by rollout.max_tokens here, so that the gradient is as many times smaller",
        ),
        "seq-mean-token-sum-norm": (
            "constant",
            "a mean over completions here, a sum there: the gradient is smaller by their number",
        ),
    }
    if kind not in lengths:
        raise settings.fault(
            _ACTOR + "loss_agg_mode", f"not known{did_you_mean(kind, lengths)}; there is: {', '.join(lengths)}"
        )
    draft.put("learner.length_norm", lengths[kind][0], _ACTOR + "loss_agg_mode", lengths[kind][1])
    draft.put("learner.entropy_coef", settings.real(_ACTOR + "entropy_coeff", 0.0), _ACTOR + "entropy_coeff")
    draft.put("learner.overlong_filtering", False, note="verl leaves no completion out of the loss for its length")


def _kl(draft: Draft, settings: Settings) -> None:
    """β, its place and its estimator."""
    in_loss, in_reward = settings.flag(_ACTOR + "use_kl_loss"), settings.flag("algorithm.use_kl_in_reward")
    coefficient, kind = (
        (_ACTOR + "kl_loss_coef", _ACTOR + "kl_loss_type")
        if in_loss or not in_reward
        else ("algorithm.kl_ctrl.kl_coef", "algorithm.kl_penalty")
    )
    value, name = settings.real(coefficient, 0.0), settings.text(kind)
    for each in (
        _ACTOR + "kl_loss_coef",
        _ACTOR + "kl_loss_type",
        "algorithm.kl_ctrl.kl_coef",
        "algorithm.kl_penalty",
        "algorithm.kl_ctrl.type",
    ):
        settings.take(each)
    if not in_loss and not in_reward:
        draft.put("learner.kl_coef", 0.0, _ACTOR + "use_kl_loss", "neither in the loss nor in the reward")
        return
    plain = name.removesuffix("+")
    if plain not in KL:
        raise settings.fault(kind, f"not known{did_you_mean(name, KL)}; there is: {', '.join(KL)}")
    estimator, note = KL[plain]
    if name.endswith("+"):
        estimator, note = "k2", f"{name} has the gradient of k2"
    draft.put("learner.kl_coef", value, coefficient)
    draft.put(
        "learner.kl_in",
        "loss" if in_loss else "reward",
        _ACTOR + "use_kl_loss" if in_loss else "algorithm.use_kl_in_reward",
    )
    draft.put("learner.kl_estimator", estimator, kind, note)
    if in_loss and in_reward:
        draft.differs("algorithm.use_kl_in_reward", "the KL term is in the loss alone; it is in one place here")
    if in_reward and settings.text("algorithm.kl_ctrl.type") == "adaptive":
        draft.differs("algorithm.kl_ctrl.type", "the coefficient stays as it is")


def _correction(draft: Draft, settings: Settings) -> None:
    """The weights that correct for the difference of sampler and trainer."""
    old = settings.real(_ACTOR + "tis_imp_ratio_cap", 0)
    level = settings.text(_CORRECTION + "rollout_is") or settings.text("algorithm.rollout_is_level")
    most = settings.real(_CORRECTION + "rollout_is_threshold", 2.0)
    if level in ("token", "sequence"):
        draft.put("learner.importance_cap", most, _CORRECTION + "rollout_is_threshold")
        draft.put("learner.importance_level", level, _CORRECTION + "rollout_is")
        draft.put("learner.importance_mode", "truncate")
    elif old > 0:
        draft.put("learner.importance_cap", old, _ACTOR + "tis_imp_ratio_cap")
        draft.put("learner.importance_level", "token")
        draft.put("learner.importance_mode", "truncate")
    else:
        draft.put(
            "learner.importance_cap",
            0.0,
            _CORRECTION + "rollout_is",
            "no correction, as there; 2.0 is the default here",
        )
    if settings.value(_CORRECTION + "rollout_rs") not in (None, "null"):
        draft.differs(
            _CORRECTION + "rollout_rs",
            "completions are not rejected by a second bound; learner.importance_mode = mask has one for both",
        )


def _optimizer(draft: Draft, settings: Settings, gpus: int) -> None:
    rate = settings.number(_OPTIM + "lr")
    if not rate or rate < 0:
        raise settings.fault(_OPTIM + "lr", "give a number above 0")
    draft.put("learner.lr", rate, _OPTIM + "lr")
    kind = settings.text(_OPTIM + "lr_scheduler_type") or "constant"
    end = settings.real(_OPTIM + "min_lr_ratio", 0.0)
    note = f"a cosine ends at 10 % of the peak here, at {end:.0%} there" if kind == "cosine" and end != 0.1 else ""
    draft.put("learner.schedule", "cosine" if kind == "cosine" else "constant", _OPTIM + "lr_scheduler_type", note)
    steps, ratio = settings.whole(_OPTIM + "lr_warmup_steps") or -1, settings.real(_OPTIM + "lr_warmup_steps_ratio", 0)
    if steps > 0:
        draft.put(
            "learner.warmup_steps",
            steps * draft.parts,
            _OPTIM + "lr_warmup_steps",
            "counted in optimizer steps; verl's rate moves once a batch",
        )
    else:
        draft.put("learner.warmup_share", ratio, _OPTIM + "lr_warmup_steps_ratio")
    betas = settings.listed(_OPTIM + "betas")
    if len(betas) != 2:
        raise settings.fault(_OPTIM + "betas", "give two numbers")
    draft.put("learner.beta1", float(betas[0]), _OPTIM + "betas")
    draft.put("learner.beta2", float(betas[1]), _OPTIM + "betas")
    draft.put("learner.weight_decay", settings.real(_OPTIM + "weight_decay", 0.0), _OPTIM + "weight_decay")
    draft.put("learner.max_grad_norm", settings.number(_ACTOR + "grad_clip") or 1e9, _ACTOR + "grad_clip")
    draft.put(
        "learner.activation_checkpointing",
        settings.flag(_MODEL + "enable_gradient_checkpointing"),
        _MODEL + "enable_gradient_checkpointing",
    )
    divided = gpus > 1 or settings.flag(_ACTOR + "fsdp_config.optimizer_offload")
    draft.put(
        "learner.zero_stage",
        3 if divided else 0,
        _ACTOR + "strategy",
        "parameters, gradients and optimizer are divided over the ranks" if divided else "",
    )
    settings.take(_ACTOR + "strategy")
    draft.put(
        "learner.offload_optimizer",
        settings.flag(_ACTOR + "fsdp_config.optimizer_offload"),
        _ACTOR + "fsdp_config.optimizer_offload",
    )


def _loop(draft: Draft, settings: Settings) -> None:
    """Checkpoints and evaluations: both are counted in batches on both sides."""
    draft.put("loop.max_staleness", 0, note="a batch is sampled by the weights that it trains")
    draft.put("loop.checkpoint_every", max(0, settings.whole("trainer.save_freq") or 0), "trainer.save_freq")
    draft.put("loop.eval_every", max(0, settings.whole("trainer.test_freq") or 0), "trainer.test_freq")
    if kept := settings.whole("trainer.max_actor_ckpt_to_keep", least=1):
        draft.put("loop.keep_checkpoints", kept, "trainer.max_actor_ckpt_to_keep")
    kwargs = _ROLLOUT + "val_kwargs."
    temperature, samples = settings.real(kwargs + "temperature", 0), settings.whole(kwargs + "n", least=1) or 1
    sampled = settings.flag(kwargs + "do_sample") and temperature > 0
    draft.put("eval.samples", samples if sampled else 0, kwargs + "n")
    draft.put("eval.greedy", not sampled, kwargs + "do_sample")
    if sampled:
        draft.put("eval.temperature", temperature, kwargs + "temperature")
        draft.put("eval.top_p", settings.real(kwargs + "top_p", 1.0), kwargs + "top_p")
    for name in ("temperature", "top_p", "top_k", "do_sample", "n"):
        settings.take(kwargs + name)
