"""Whole specs for tests: every value can be set, every default is valid."""

from typing import Any

from learner.model.small import BuildSpec
from learner.spec import LearnerSpec


def learner_spec(folder: str, **changes: Any) -> LearnerSpec:
    settings: dict[str, Any] = {
        "model_path": folder,
        "reference_path": "",
        "dtype": "float32",
        "trust_remote_code": False,
        "zero_stage": 0,
        "offload_optimizer": False,
        "seed": 1,
        "lr": 1e-2,
        "schedule": "constant",
        "warmup_steps": 0,
        "total_steps": 10,
        "beta1": 0.9,
        "beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "activation_checkpointing": False,
        "logit_chunk_tokens": 64,
        "policy_loss": "clip",
        "clip_low": 0.2,
        "clip_high": 0.2,
        "dual_clip": 0.0,
        "kl_coef": 0.0,
        "kl_in": "loss",
        "kl_estimator": "k3",
        "reference_refresh_steps": 0,
        "entropy_coef": 0.0,
        "importance_cap": 2.0,
        "importance_mode": "truncate",
        "importance_floor": 0.5,
        "importance_level": "token",
    }
    return LearnerSpec(**(settings | changes))


def build_spec(**changes: Any) -> BuildSpec:
    """A model of a few thousand parameters, too narrow for an engine."""
    settings: dict[str, Any] = {
        "tokenizer": "characters",
        "vocab_size": 0,
        "layers": 1,
        "hidden": 32,
        "heads": 1,
        "kv_heads": 1,
        "intermediate": 32,
        "tied": False,
        "max_tokens": 64,
        "seed": 1,
    }
    return BuildSpec(**(settings | changes))
