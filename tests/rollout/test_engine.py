"""What an engine is started with on a host with GPUs, where there are none."""

import asyncio
from typing import Any

import pytest

from rollout import engine
from rollout.engine import EngineSpec, VllmEngine

pytestmark = pytest.mark.engine


class StartedError(Exception):
    """Ends a start once vLLM has been given its arguments."""


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> Any:
    """(workers of an engine) → arguments that vLLM is given for it."""
    import vllm

    given: dict[str, Any] = {}

    def note(**asked: Any) -> None:
        given.update(asked)
        raise StartedError

    monkeypatch.setattr(vllm, "AsyncEngineArgs", note)
    monkeypatch.setattr(engine, "prepare", lambda _: None)
    monkeypatch.setattr(engine, "_gpu_arguments", lambda _: {})

    def start(workers: int) -> dict[str, Any]:
        spec = EngineSpec(
            dtype="bfloat16", trust_remote_code=False, max_tokens=64, max_sequences=4, tensor_parallel=workers,
            kv_cache_gb=1, gpu_memory=0.5, eager=True, backend="nccl", device="cuda",
        )  # fmt: skip
        with pytest.raises(StartedError):
            asyncio.run(VllmEngine.start(0, spec, "model"))
        return given

    return start


@pytest.mark.parametrize(("workers", "executor"), [(1, "uni"), (2, "mp")])
def test_workers_are_processes_of_their_engine(
    arguments: Any, monkeypatch: pytest.MonkeyPatch, workers: int, executor: str
) -> None:
    """Its actor is in a placement group, in which vLLM would look for Ray workers with GPUs that the actor itself holds."""
    from vllm.config import ParallelConfig
    from vllm.platforms import current_platform
    from vllm.v1.executor import ray_utils

    monkeypatch.setattr(type(current_platform), "is_cuda", lambda _: True)
    monkeypatch.setattr(type(current_platform), "device_count", classmethod(lambda _: workers), raising=False)
    monkeypatch.setattr(ray_utils, "ray_is_available", lambda: True)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.util.get_current_placement_group", object)
    alone = ParallelConfig(tensor_parallel_size=workers)
    assert alone.distributed_executor_backend == ("ray" if workers > 1 else "uni"), "what is to be prevented"
    asked = arguments(workers)
    assert asked["tensor_parallel_size"] == workers
    chosen = ParallelConfig(
        tensor_parallel_size=workers, distributed_executor_backend=asked["distributed_executor_backend"]
    )
    assert chosen.distributed_executor_backend == executor
