"""`[rollout]`: the engines and how they sample."""

from typing import Annotated

from pydantic import Field

from orchestrator.config.sections.base import Section


class RolloutSection(Section):
    replicas: Annotated[int, Field(ge=1)] = 1
    """vLLM engines, each behind one Ray actor."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """Workers (GPUs) of one engine."""
    group_size: Annotated[int, Field(ge=1)] = 8
    """Completions a prompt (G)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Sampling temperature; the learner divides its logits by the same."""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Longest completion."""
    max_sequences: Annotated[int, Field(ge=1)] = 256
    """Sequences that one engine decodes at a time."""
    kv_cache_gb: Annotated[int, Field(ge=1)] = 1
    """Key/value cache of one engine on a CPU host."""
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Share of GPU memory that one engine takes."""
    eager: bool = False
    """Never compile or capture graphs (always so on a CPU)."""
    cpus: Annotated[float, Field(ge=0)] = 1
    """CPU cores reserved per replica and tensor-parallel worker."""
    gpus: Annotated[float, Field(gt=0, le=1)] = 1
    """GPU reserved per tensor-parallel worker; below 1 it shares the GPU with a learner rank."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Compute threads of a CPU engine; 0: all cores of the host, or half of them where the learner trains meanwhile."""
    timeout_s: Annotated[float, Field(gt=0)] = 600
    """Longest wait for one group before the request is retried on another replica."""
