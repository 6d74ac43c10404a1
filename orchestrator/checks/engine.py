"""`rollout.engine`: whether the installed vLLM knows these arguments. Its source is read, not imported, which takes seconds."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from orchestrator.checks.naming import key_in
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.stage_kinds import kind_of
from orchestrator.plan.machine import on_gpus
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


ROUNDED_AS_THEY_COME = (
    "fp8",
    "fp8_per_tensor",
    "fp8_per_block",
    "fp8_per_channel",
    "int8_per_channel_weight_only",
    "mxfp8",
    "nvfp4_per_token",
)
"""Values of vLLM's `quantization` with which an engine rounds plain weights itself, at its start and at every publish."""
WHOLE_CACHE = ("auto", "bfloat16", "float16")
"""Values of vLLM's `kv_cache_dtype` that round no more than the model does."""


def check_engine_options(recipe: Recipe, stage: Stage) -> list[str]:
    """Notes about engines that sample from rounded weights or a rounded cache.

    Raises:
        InputError: an argument that vLLM does not know, or that is not the recipe's to give, or a value that no publish serves.
    """
    known = engine_arguments()
    for name, value in stage.rollout.engine.items():
        said = f"{key_in(recipe, stage, f'rollout.engine.{name}')} = {value!r}"
        if name in OURS:
            raise InputError(f"{said}: set {OURS[name]} in its place")
        if name in FIXED:
            raise InputError(f"{said}: it {FIXED[name]}; leave it out")
        if known and name not in known:
            raise InputError(f"{said}: vLLM has no such engine argument{did_you_mean(name, known)}")
    return list(_rounding(recipe, stage))


def _rounding(recipe: Recipe, stage: Stage) -> Iterator[str]:
    options = stage.rollout.engine
    method, cache = options.get("quantization"), options.get("kv_cache_dtype", "auto")
    said = key_in(recipe, stage, "rollout.engine.quantization") + f" = {method!r}"
    if method is not None and method not in ROUNDED_AS_THEY_COME:
        raise InputError(
            f"{said} reads weights that were quantised before, and a publish sends whole ones; give one of "
            f"{', '.join(ROUNDED_AS_THEY_COME)}{did_you_mean(str(method), ROUNDED_AS_THEY_COME)}"
        )
    if method is not None and not recipe.cluster.address and not on_gpus():
        raise InputError(f"{said} is for engines on GPUs, and none is seen here; leave it out")
    if cache not in WHOLE_CACHE:
        said = key_in(recipe, stage, "rollout.engine.kv_cache_dtype") + f" = {cache!r}"
    elif method is None:
        return
    if kind_of(stage).is_rl and stage.loop.audit_every and not stage.loop.audit_tolerance:
        yield (
            f"{said}: engines compute with rounded numbers, so an audit finds them further from the learner than it takes for "
            "rounding; set loop.audit_tolerance, such as 0.1, from what audit/mean_diff says"
        )
    if kind_of(stage).is_rl and not stage.learner.importance_cap:
        yield f"{said}: nothing corrects for an engine that samples otherwise than the learner; set learner.importance_cap=2"


@cache
def cpu_head_sizes() -> tuple[int, ...]:
    """Sizes of attention heads that the installed vLLM serves on a CPU; empty: not known. With others it dies at its first request."""
    for node in ast.walk(_source("v1", "attention", "backends", "cpu_attn.py")):
        if isinstance(node, ast.FunctionDef) and node.name == "get_supported_head_sizes":
            lists = [each.value for each in node.body if isinstance(each, ast.Return)]
            return tuple(ast.literal_eval(lists[0])) if lists and isinstance(lists[0], ast.List) else ()
    return ()


def _source(*path: str) -> ast.Module:
    """A file of the installed vLLM; an empty one where there is none."""
    spec = find_spec("vllm")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(roots[0], *path) if roots else None
    return ast.parse(file.read_text("utf-8") if file and file.is_file() else "")


@cache
def engine_arguments() -> frozenset[str]:
    """Names of the arguments of the installed vLLM's `AsyncEngineArgs`; empty where there is none."""
    body = _source("engine", "arg_utils.py").body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    return frozenset(
        field.target.id
        for name in ("EngineArgs", "AsyncEngineArgs")
        for field in (classes[name].body if name in classes else ())
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )
