"""`rollout.engine`: whether the installed vLLM knows these arguments. Its source is read, not imported, which takes seconds."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from orchestrator.checks.naming import key_in
from orchestrator.config.recipe import Recipe, Stage
from rollout.errors import InputError, did_you_mean

OURS = {
    "model": "model.path",
    "tokenizer": "model.path",
    "trust_remote_code": "model.trust_remote_code",
    "dtype": "model.dtype",
    "max_model_len": "model.max_tokens",
    "max_num_seqs": "rollout.max_sequences",
    "tensor_parallel_size": "rollout.tensor_parallel",
    "gpu_memory_utilization": "rollout.gpu_memory",
    "enforce_eager": "rollout.eager",
    "enable_sleep_mode": "rollout.share_gpus",
    "enable_lora": "learner.lora_rank",
    "max_lora_rank": "learner.lora_rank",
    "lora_target_modules": "learner.lora_targets",
}
"""Arguments of vLLM's that keys of a recipe stand for."""
FIXED = {
    "distributed_executor_backend": "follows from rollout.tensor_parallel",
    "data_parallel_size": "is rollout.replicas here, each an engine of its own",
    "logprobs_mode": "must be that of the distribution that tokens are drawn from",
    "weight_transfer_config": "follows from where engines and ranks are",
    "stream_interval": "follows from how completions are collected",
    "max_loras": "is 1: there is one policy",
    "disable_log_stats": "is set: figures come from the loop",
}
"""Arguments of vLLM's that are not to be chosen, and why."""


def check_engine_options(recipe: Recipe, stage: Stage) -> None:
    """Raises InputError for an argument that vLLM does not know, or that is not the recipe's to give."""
    known = engine_arguments()
    for name, value in stage.rollout.engine.items():
        said = f"{key_in(recipe, stage, f'rollout.engine.{name}')} = {value!r}"
        if name in OURS:
            raise InputError(f"{said}: set {OURS[name]} in its place")
        if name in FIXED:
            raise InputError(f"{said}: it {FIXED[name]}; leave it out")
        if known and name not in known:
            raise InputError(f"{said}: vLLM has no such engine argument{did_you_mean(name, known)}")


@cache
def engine_arguments() -> frozenset[str]:
    """Names of the arguments of the installed vLLM's `AsyncEngineArgs`; empty where there is none."""
    spec = find_spec("vllm")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(roots[0], "engine", "arg_utils.py") if roots else None
    if file is None or not file.is_file():
        return frozenset()
    classes = {node.name: node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}
    return frozenset(
        field.target.id
        for name in ("EngineArgs", "AsyncEngineArgs")
        for field in (classes[name].body if name in classes else ())
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )
