"""What verl takes where a command says nothing, its old names, and what becomes of settings without a counterpart."""

from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, Any] = {
    "algorithm.adv_estimator": "gae",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.use_kl_in_reward": False,
    "algorithm.kl_penalty": "kl",
    "algorithm.kl_ctrl.type": "fixed",
    "algorithm.kl_ctrl.kl_coef": 0.001,
    "algorithm.gamma": 1.0,
    "algorithm.lam": 1.0,
    "algorithm.filter_groups.enable": False,
    "algorithm.rollout_correction.rollout_is": None,
    "algorithm.rollout_correction.rollout_is_threshold": 2.0,
    "algorithm.rollout_correction.rollout_rs": None,
    "data.prompt_key": "prompt",
    "data.train_batch_size": 1024,
    "data.max_prompt_length": 512,
    "data.max_response_length": 512,
    "data.train_max_samples": -1,
    "data.val_max_samples": -1,
    "data.shuffle": True,
    "data.seed": None,
    "actor_rollout_ref.model.trust_remote_code": False,
    "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    "actor_rollout_ref.model.lora_rank": 0,
    "actor_rollout_ref.model.lora_alpha": 16,
    "actor_rollout_ref.model.target_modules": "all-linear",
    "actor_rollout_ref.actor.strategy": "fsdp",
    "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.actor.use_dynamic_bsz": False,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 16384,
    "actor_rollout_ref.actor.clip_ratio": 0.2,
    "actor_rollout_ref.actor.clip_ratio_low": 0.2,
    "actor_rollout_ref.actor.clip_ratio_high": 0.2,
    "actor_rollout_ref.actor.clip_ratio_c": 3.0,
    "actor_rollout_ref.actor.policy_loss.loss_mode": "vanilla",
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.kl_loss_coef": 0.001,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "actor_rollout_ref.actor.grad_clip": 1.0,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
    "actor_rollout_ref.actor.optim.lr_warmup_steps": -1,
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": 0.0,
    "actor_rollout_ref.actor.optim.min_lr_ratio": 0.0,
    "actor_rollout_ref.actor.optim.weight_decay": 0.01,
    "actor_rollout_ref.actor.optim.betas": [0.9, 0.999],
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload": False,
    "actor_rollout_ref.rollout.n": 1,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.top_p": 1,
    "actor_rollout_ref.rollout.top_k": -1,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
    "actor_rollout_ref.rollout.gpu_memory_utilization": 0.5,
    "actor_rollout_ref.rollout.max_num_seqs": 256,
    "actor_rollout_ref.rollout.enforce_eager": False,
    "actor_rollout_ref.rollout.val_kwargs.n": 1,
    "actor_rollout_ref.rollout.val_kwargs.temperature": 0,
    "actor_rollout_ref.rollout.val_kwargs.top_p": 1.0,
    "actor_rollout_ref.rollout.val_kwargs.do_sample": False,
    "reward_model.enable": False,
    "custom_reward_function.name": "compute_score",
    "trainer.total_epochs": 30,
    "trainer.total_training_steps": None,
    "trainer.n_gpus_per_node": 8,
    "trainer.nnodes": 1,
    "trainer.save_freq": -1,
    "trainer.test_freq": -1,
    "trainer.max_actor_ckpt_to_keep": None,
}

RENAMED: Mapping[str, str] = {
    "actor_rollout_ref.rollout.rollout_batch_size": "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.actor.optim.warmup_style": "actor_rollout_ref.actor.optim.lr_scheduler_type",
    "actor_rollout_ref.actor.optim.clip_grad": "actor_rollout_ref.actor.grad_clip",
    "actor_rollout_ref.actor.ppo_micro_batch_size": "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
    "reward.custom_reward_function.path": "custom_reward_function.path",
    "reward.custom_reward_function.name": "custom_reward_function.name",
    "reward.reward_model.enable": "reward_model.enable",
    "reward.reward_model.model.path": "reward_model.model.path",
    "reward.reward_model.model_path": "reward_model.model.path",
    "reward_model.model_path": "reward_model.model.path",
    "actor_rollout_ref.model.lora.rank": "actor_rollout_ref.model.lora_rank",
    "actor_rollout_ref.model.lora.alpha": "actor_rollout_ref.model.lora_alpha",
    "reward_model.reward_kwargs.overlong_buffer_cfg.enable": "reward_model.overlong_buffer.enable",
    "reward_model.reward_kwargs.overlong_buffer_cfg.len": "reward_model.overlong_buffer.len",
    "reward_model.reward_kwargs.overlong_buffer_cfg.penalty_factor": "reward_model.overlong_buffer.penalty_factor",
    "reward.reward_kwargs.overlong_buffer_cfg.enable": "reward_model.overlong_buffer.enable",
    "reward.reward_kwargs.overlong_buffer_cfg.len": "reward_model.overlong_buffer.len",
    "reward.reward_kwargs.overlong_buffer_cfg.penalty_factor": "reward_model.overlong_buffer.penalty_factor",
}
"""Name of another version → name here."""

_KL = "low_var_kl"
KL: Mapping[str, tuple[str, str]] = {
    "kl": ("k1", ""),
    "k1": ("k1", ""),
    "mse": ("k2", ""),
    "k2": ("k2", ""),
    _KL: ("k3", ""),
    "k3": ("k3", ""),
    "abs": ("k2", "|log r| is not there: half of its square"),
    "full": ("k3", "the divergence of the whole distribution is not there: its estimate"),
}
"""Estimator of verl → (ours, what differs). With `+` verl takes the gradient of k2."""

_LOG = "figures are in metrics.jsonl, TensorBoard and the report of the run directory; `track` sends them on"
LOST: Mapping[str, str] = {
    r"profiler": "the times of all parts are in metrics.jsonl and the report",
    r"^(critic|algorithm\.(gamma|lam|horizon))\b": "there is no value network, and a reward is of the whole completion",
    r"^trainer\.critic_warmup": "there is no value network",
    r"^trainer\.(logger|project_name|experiment_name|log_|rollout_data_dir|validation_data_dir)": _LOG,
    r"^trainer\.(default_local_dir|default_hdfs_dir|resume|del_local|max_critic)": (
        "a run is in runs/NAME, or where --run says, and goes on from its last checkpoint when it is started again"
    ),
    r"^trainer\.val_(before|only)": "evaluations run before and after the stage, and every loop.eval_every batches; `rayzero eval` alone",
    r"^trainer\.(balance_batch|use_legacy|device|ray_wait|esi)": "packs are balanced over the ranks by themselves",
    r"micro_batch_size|max_token_len_per_gpu|use_dynamic_bsz|forward_micro": (
        "one budget for all forward passes: learner.micro_batch_tokens"
    ),
    r"use_remove_padding|use_fused_kernels|fused_kernel|use_liger|entropy_from_logits|entropy_checkpointing|use_torch_compile": (
        "packs have no padding, and the head is computed by tiles, always"
    ),
    r"ulysses|context_parallel": "that of the actor holds for all that the ranks compute: learner.sequence_parallel",
    r"megatron|pipeline_model_parallel|expert_(model_|tensor_)?parallel": "the learner divides by ZeRO (learner.zero_stage), not by Megatron",
    r"(param_offload|offload_policy|activation_offload|wrap_policy|fsdp_size|reshard|forward_prefetch|fsdp_config|strategy)": (
        "parameters stay on the GPU: learner.zero_stage = 3 divides them, learner.offload_optimizer moves the optimizer's state"
    ),
    r"rollout\.(name|mode|load_format|layered_summon|free_cache_engine|dtype|multi_stage_wake)": (
        "vLLM samples; engines that share GPUs sleep by themselves (rollout.share_gpus)"
    ),
    r"rollout\.(max_model_len|max_num_batched|enable_chunked|enable_prefix|disable_log|engine_kwargs|cudagraph|swap_space|"
    r"limit_images|data_parallel_size|quantization)": "an argument of vLLM's engine where it has one: rollout.engine",
    r"rollout\.(multi_turn|agent)|tool_config|agent_loop": "there are no turns with tools",
    r"rollout\.(calculate_log_probs|log_prob|ignore_eos|do_sample|seed|prompt_length|response_length)": "sampled log-probabilities are always kept",
    r"^data\.(filter_overlong|truncation)": "a prompt that is too long is left out and counted, never cut (data.max_prompt_tokens)",
    r"^data\.(image|video|return_|dataloader|tokenizer|use_shm|custom_cls|sampler|datagen|validation_shuffle|val_batch|reward_fn_key|gen_batch|apply_chat)": (
        "rows are read by data.sources, and asked under the model's chat template"
    ),
    r"^algorithm\.filter_groups": "groups are replaced until the batch is whole; there is no bound on how often",
    r"^algorithm\.(rollout_correction|pf_ppo|use_pf_ppo|kl_ctrl)": "the correction is an importance weight: learner.importance_cap and its neighbours",
    r"^reward_model\.|^reward_manager|^reward\.|^custom_reward": "scores come from rewards.rubrics, in processes of their own",
    r"optim\.|optimizer": "AdamW with ε = 1e-8",
    r"^ray_(kwargs|init)|^transfer_queue|nccl_timeout|hybrid_engine|checkpoint|trace|prometheus|skip_rollout": "places and connections are Ray's",
    r"actor\.(shuffle|data_loader_seed)": "groups are cut into optimizer steps by the seed",
    r"(_target_|^defaults|^hydra)": "of verl's own set-up",
}
"""Regular expression of a name → what happens here instead."""
