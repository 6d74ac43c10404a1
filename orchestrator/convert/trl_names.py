"""What TRL takes where a file says nothing, by version; its reward functions; and what becomes of settings without a counterpart."""

from collections.abc import Mapping
from typing import Any

NEWEST = (1, 9)
"""Newest version whose defaults are known here."""

_ALWAYS = (0, 14)

DEFAULTS: Mapping[str, tuple[tuple[tuple[int, ...], Any], ...]] = {
    "per_device_train_batch_size": ((_ALWAYS, 1), ((0, 15), 8)),
    "gradient_accumulation_steps": ((_ALWAYS, 8), ((0, 15), 1)),
    "num_train_epochs": ((_ALWAYS, 3.0),),
    "max_steps": ((_ALWAYS, -1),),
    "num_generations": ((_ALWAYS, 8),),
    "num_iterations": ((_ALWAYS, 1),),
    "max_prompt_length": ((_ALWAYS, 512), ((0, 26), None)),
    "max_completion_length": ((_ALWAYS, 256),),
    "temperature": ((_ALWAYS, 0.9), ((0, 18), 1.0)),
    "top_k": ((_ALWAYS, 50), ((0, 18), 0)),
    "top_p": ((_ALWAYS, 1.0),),
    "learning_rate": ((_ALWAYS, 1e-6),),
    "lr_scheduler_type": ((_ALWAYS, "linear"),),
    "warmup_steps": ((_ALWAYS, 0),),
    "warmup_ratio": ((_ALWAYS, 0.0),),
    "adam_beta1": ((_ALWAYS, 0.9),),
    "adam_beta2": ((_ALWAYS, 0.999),),
    "weight_decay": ((_ALWAYS, 0.0),),
    "max_grad_norm": ((_ALWAYS, 1.0),),
    "gradient_checkpointing": ((_ALWAYS, False), ((0, 22), True)),
    "seed": ((_ALWAYS, 42),),
    "beta": ((_ALWAYS, 0.04), ((0, 19), 0.0)),
    "epsilon": ((_ALWAYS, 0.2),),
    "loss_type": ((_ALWAYS, "grpo"), ((0, 17), "bnpo"), ((0, 22), "dapo")),
    "scale_rewards": ((_ALWAYS, "group"),),
    "importance_sampling_level": ((_ALWAYS, "token"),),
    "mask_truncated_completions": ((_ALWAYS, False),),
    "shuffle_dataset": ((_ALWAYS, True),),
    "sync_ref_model": ((_ALWAYS, False),),
    "ref_model_sync_steps": ((_ALWAYS, 64), ((0, 16), 512)),
    "ref_model_mixup_alpha": ((_ALWAYS, 0.9), ((0, 16), 0.6)),
    "use_vllm": ((_ALWAYS, False),),
    "vllm_mode": ((_ALWAYS, "server"), ((1, 0), "colocate")),
    "vllm_gpu_memory_utilization": ((_ALWAYS, 0.9), ((0, 18), 0.3)),
    "vllm_tensor_parallel_size": ((_ALWAYS, 1),),
    "vllm_importance_sampling_correction": ((_ALWAYS, False), ((0, 23), True)),
    "vllm_importance_sampling_mode": ((_ALWAYS, "token_truncate"), ((0, 26), "sequence_mask")),
    "vllm_importance_sampling_clip_max": ((_ALWAYS, 2.0), ((0, 26), 3.0)),
    "multi_objective_aggregation": ((_ALWAYS, "sum_then_normalize"),),
    "lora_r": ((_ALWAYS, 16),),
    "lora_alpha": ((_ALWAYS, 32),),
    "lora_dropout": ((_ALWAYS, 0.05),),
    "save_strategy": ((_ALWAYS, "steps"),),
    "save_steps": ((_ALWAYS, 500),),
    "eval_strategy": ((_ALWAYS, "no"),),
    "dataset_train_split": ((_ALWAYS, "train"),),
    "dataset_test_split": ((_ALWAYS, "test"),),
    "bf16": ((_ALWAYS, False), ((0, 19), None)),
}
"""Name → (version, default from it on), in order. The settings of transformers' TrainingArguments are among them."""

OPTIONAL = frozenset(
    [
        "model_name_or_path",
        "dataset_name",
        "reward_funcs",
        "reward_weights",
        "reward_model_name_or_path",
        "generation_batch_size",
        "steps_per_generation",
        "epsilon_high",
        "delta",
        "vllm_server_host",
        "use_peft",
        "output_dir",
        "num_generations_eval",
        "entropy_coef",
    ]
)
"""Names of settings without a default by which a file is known for TRL's."""

OF_GRPO = frozenset(
    [
        "num_generations",
        "reward_funcs",
        "reward_weights",
        "num_iterations",
        "epsilon",
        "epsilon_high",
        "delta",
        "scale_rewards",
        "steps_per_generation",
        "generation_batch_size",
        "mask_truncated_completions",
        "importance_sampling_level",
        "top_entropy_quantile",
        "use_vllm",
        "vllm_mode",
    ]
)
"""Names of settings that SFT and DPO do not have."""
OF_OTHERS = frozenset(
    [
        "max_length",
        "max_seq_length",
        "packing",
        "packing_strategy",
        "padding_free",
        "dataset_text_field",
        "assistant_only_loss",
        "completion_only_loss",
        "dataset_kwargs",
        "eos_token",
        "label_smoothing",
        "precompute_ref_log_probs",
        "rpo_alpha",
        "f_divergence_type",
        "desirable_weight",
        "undesirable_weight",
        "center_rewards_coefficient",
        "lmbda",
        "num_ppo_epochs",
        "response_length",
    ]
)
"""Names of settings that GRPO does not have."""

REWARDS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "accuracy_reward": ({"name": "accuracy"}, "math verified here, by other rules than math-verify alone"),
    "reasoning_accuracy_reward": ({"name": "accuracy"}, "of the reply behind the thought, as everywhere here"),
    "accuracy": ({"name": "accuracy"}, "math verified here, by other rules than math-verify alone"),
    "think_format_reward": ({"name": "format", "answer_tags": False}, "a thought and a reply behind it"),
    "format": ({"name": "format"}, "<think>…</think><answer>…</answer>"),
    "get_soft_overlong_punishment": (
        {"name": "length", "max_tokens": 1280, "buffer": 256},
        "with the lengths of TRL's script",
    ),
    "soft_overlong_punishment": (
        {"name": "length", "max_tokens": 16384, "buffer": 4096},
        "with the default lengths of open-r1",
    ),
    "repetition_penalty": ({"name": "repetition"}, "from 1 down to 0 here, from 0 down to a penalty there"),
    "get_repetition_penalty_reward": ({"name": "repetition"}, "from 1 down to 0 here, from 0 down to a penalty there"),
    "code": ({"name": "code_tests", "scoring": "fraction"}, "the share of the tests that pass, in the sandbox here"),
    "binary_code": ({"name": "code_tests"}, "1 where all tests pass, in the sandbox here"),
}
"""Name in TRL or in open-r1's recipes → (function of ours with arguments, what differs)."""

_LOG = "figures are in metrics.jsonl, TensorBoard and the report of the run directory; `track` sends them on"
_HUB = "nothing is uploaded; the model is in export/ of the run directory"
LOST: Mapping[str, str] = {
    r"^(logging_|log_|report_to|run_name|wandb|trackio|num_completions_to_print|disable_tqdm|project$)": _LOG,
    r"^(push_to_hub|hub_)": _HUB,
    r"^output_dir$|^overwrite_output_dir$|^logging_dir$": "a run is in runs/NAME, or where --run says",
    r"^(eval_|evaluation_|dataset_test_split|num_generations_eval)": "nothing is evaluated there (eval_strategy); here what eval.sets name",
    r"^(max_length|max_seq_length|eos_token|packing)": "of another trainer of TRL's",
    r"^(config_file|accelerate_config)$": "not beside the file, so not read: --processes, learner.zero_stage",
    r"^(do_train|do_eval|do_predict)$": "the stage trains, and evaluates where there are eval.sets",
    r"^(vllm_server|vllm_group_port)": "engines are started by rayzero itself; there is no server to name",
    r"^vllm_(model_impl|enable_prefix|guided|structured|device|dtype)": "an argument of the engine where it has one: rollout.engine",
    r"^vllm_enable_sleep_mode$": "engines that share GPUs sleep by themselves: rollout.share_gpus",
    r"^(attn_implementation|model_init_kwargs|use_liger|cast_lm_head|torch_compile|model_revision|load_in_|bnb_|use_bnb)": (
        "models are opened in the learner's own way: packs without padding, a head by tiles, master weights in float32"
    ),
    r"^(use_reentrant|gradient_checkpointing_kwargs)": "without effect: learner.activation_checkpointing has no options",
    r"^(adam_epsilon|optim|optim_args)$": "AdamW with ε = 1e-8",
    r"^lr_scheduler_kwargs": "a cosine ends at 10 % of the peak",
    r"^(lora_|use_rslora|use_dora)": "adapters are plain LoRA: learner.lora_rank, learner.lora_alpha, learner.lora_targets",
    r"^env(\.|$)": "environment variables of the actors: cluster.env",
    r"^(sapo_|vespo_|top_entropy_quantile|off_policy_mask|entropy_(coef|target)_?)": "the loss has no such part",
    r"^(ds3_gather|deepspeed|zero3_|fsdp|mixed_precision|accelerator_config|distributed_type|num_machines|machine_rank)": (
        "ranks are placed by Ray: learner.ranks, learner.zero_stage, learner.offload_optimizer"
    ),
    r"^(compute_environment|debug|downcast_bf16|main_training|main_process|rdzv|same_network|tpu_|use_cpu|gpu_ids|enable_cpu_aff)": (
        "of accelerate's launcher; actors are placed by Ray"
    ),
    r"^(per_device_eval|eval_accumulation|eval_on_start|prediction_loss)": "evaluations need no batch size; they run before, during and after",
    r"^(dataloader_|remove_unused|dataset_num_proc|preprocessing|group_by_length|pad_to|dataset_streaming|ignore_bias)": (
        "rows are read whole and packed by length"
    ),
    r"^(resume_from|save_only|save_on|load_best|metric_for|greater_is)": "a run goes on from its last checkpoint when it is started again",
    r"^chat_template(_path)?$": "write the template into a Jinja file and name it: data.template",
    r"^(generation_kwargs|cache_implementation|use_transformers)": "completions are sampled by vLLM, from the whole distribution",
    r"^(max_tool_calling|tools|environment)": "there are no turns with tools",
    r"^(disable_dropout|full_determinism|data_seed|tf32|ddp_|neftune|auto_find|router_aux|concurrency|benchmarks|callbacks)": (
        "not there"
    ),
}
"""Regular expression of a name → what happens here instead."""
