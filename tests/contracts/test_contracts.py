"""Every call of ours into vLLM, Ray and DeepSpeed, compared with their source: vLLM's as GPU hosts install it, which is not
what is installed for the other tests, and as installed here. Nothing is imported and no GPU is needed."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan import machine
from tests.contracts.library import Library
from tests.contracts.usage import Reader, read
from tests.contracts.wheel import NoWheelError, gpu_source, pinned

ROOT = Path(__file__).parents[2]
OURS = ("rollout", "rewards", "learner", "orchestrator", "tests/bench")

SEEDS = {
    "llm": "vllm.v1.engine.async_llm:AsyncLLM",
    "_llm": "vllm.v1.engine.async_llm:AsyncLLM",
    "part": "vllm.outputs:CompletionOutput",
    "_end": "vllm.outputs:CompletionOutput",
}
"""Name of what is untyped in our source → its class in vLLM."""

CALLED = {
    "vllm": """
        engine.arg_utils.AsyncEngineArgs config.weight_transfer.WeightTransferConfig sampling_params.SamplingParams
        inputs.llm.TokensPrompt lora.request.LoRARequest outputs.CompletionOutput.weight_versions
        v1.engine.async_llm.AsyncLLM.generate v1.engine.async_llm.AsyncLLM.add_lora
        v1.engine.async_llm.AsyncLLM.sleep v1.engine.async_llm.AsyncLLM.wake_up
        v1.engine.async_llm.AsyncLLM.pause_generation v1.engine.async_llm.AsyncLLM.resume_generation
        v1.engine.async_llm.AsyncLLM.start_weight_update v1.engine.async_llm.AsyncLLM.update_weights
        v1.engine.async_llm.AsyncLLM.finish_weight_update v1.engine.async_llm.AsyncLLM.update_weight_version
        v1.engine.async_llm.AsyncLLM.get_weight_version v1.engine.async_llm.AsyncLLM.init_weight_transfer_engine
        distributed.weight_transfer.base.WeightTransferInitRequest
        distributed.weight_transfer.base.WeightTransferUpdateRequest
        distributed.weight_transfer.factory.WeightTransferEngineFactory.register_engine
        distributed.weight_transfer.nccl_common.trainer_init
        distributed.weight_transfer.packed_tensor.packed_nccl_broadcast_producer
    """,
    "ray": """
        _private.worker.init _private.worker.remote _private.worker.kill _private.worker.put
        util.placement_group.placement_group util.scheduling_strategies.PlacementGroupSchedulingStrategy
    """,
    "deepspeed": "initialize comm.comm.init_distributed runtime.zero.partition_parameters.GatheredParameters",
}
"""What must be among the calls that are compared: a reader that follows nothing finds no fault either."""

RECORDS = {
    "dtype_names": "vllm.distributed.weight_transfer.nccl_engine:NCCLWeightTransferUpdateInfo",
    "rank_offset": "vllm.distributed.weight_transfer.nccl_common:NCCLWeightTransferInitInfo",
}
"""A key by which a dict of ours is known → the class that vLLM's workers make of it."""


def site() -> Path:
    """Where packages are installed; found without importing them."""
    from importlib.util import find_spec

    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


@cache
def gpu_folder() -> Path | NoWheelError:
    """Asked once, also where there is no network."""
    try:
        return site() if machine.version_of("vllm") == pinned("vllm") else gpu_source("vllm")
    except NoWheelError as problem:
        return problem


def on_gpus() -> Library:
    folder = gpu_folder()
    if isinstance(folder, NoWheelError):
        pytest.skip(f"the wheel of the engine for GPUs cannot be had: {folder}")
    return Library("vllm", folder)


def libraries() -> Iterator[Any]:
    yield pytest.param(on_gpus, id="vllm-gpu")
    yield pytest.param(lambda: Library("vllm", site()), id="vllm-here")
    yield pytest.param(lambda: Library("ray", site()), id="ray")
    yield pytest.param(lambda: Library("deepspeed", site()), id="deepspeed")


def sources() -> list[Path]:
    return [path for folder in OURS for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources()}


def readers(library: Library) -> list[Reader]:
    seeds = {name: library.find(path) for name, path in SEEDS.items() if path.startswith(library.name)}
    return [read(library, ROOT, path, seeds) for path in sources()]


@pytest.mark.parametrize("library", libraries())
def test_every_call_is_one_that_the_library_takes(library: Callable[[], Library]) -> None:
    found = library()
    read_all = readers(found)
    problems = [problem for each in read_all for problem in each.problems]
    assert not problems, f"calls that {found.name} does not take:\n" + "\n".join(problems)
    seen = sum((each.seen for each in read_all), Counter())
    assert {f"{found.name}.{name}" for name in CALLED[found.name].split()} <= seen.keys()


@pytest.mark.parametrize("key", RECORDS)
def test_dicts_that_become_records_of_vllm_have_their_fields(key: str) -> None:
    record = on_gpus().called(on_gpus().find(RECORDS[key]))
    assert record is not None
    found = 0
    for path, tree in trees().items():
        for node in (each for each in ast.walk(tree) if isinstance(each, ast.Dict)):
            names = [each.value for each in node.keys if isinstance(each, ast.Constant)]
            if key in names:
                found += 1
                try:
                    record.signature.bind(**dict.fromkeys(names))
                except TypeError as problem:
                    pytest.fail(f"{path}:{node.lineno}: {RECORDS[key]}{record.signature}: {problem}")
    assert found


def test_environment_variables_of_vllm_exist() -> None:
    library = on_gpus()
    (table,) = (
        node.value
        for node in ast.walk(library.find("vllm.envs").node)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "environment_variables"
    )
    assert isinstance(table, ast.Dict)
    known = {key.value for key in table.keys if isinstance(key, ast.Constant)}
    ours = {
        (node.value, str(path.relative_to(ROOT)))
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch("VLLM_[A-Z0-9_]+", node.value)
    }
    assert ("VLLM_LOGGING_LEVEL", "rollout/engine.py") in ours
    assert not [each for each in ours if each[0] not in known]


def test_options_of_actors_are_those_of_ray() -> None:
    tree = Library("ray", site()).find("ray._common.ray_option_utils").node
    known = {
        key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }
    ours = [
        (keyword.arg, f"{path.relative_to(ROOT)}:{node.lineno}")
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "options"
        for keyword in node.keywords
        if keyword.arg  # none: a table that is laid out
    ]
    assert {"num_gpus", "runtime_env", "scheduling_strategy"} <= {name for name, _ in ours}
    assert not [each for each in ours if each[0] not in known]


@pytest.mark.parametrize("name", ["ray", "deepspeed"])
def test_what_is_installed_here_is_what_gpu_hosts_install(name: str) -> None:
    assert version(name) == pinned(name), f"tests run {name} {version(name)}; deploy/constraints-gpu.txt has another"
