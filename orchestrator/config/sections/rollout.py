"""`[rollout]`: the engines and how they sample."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from orchestrator.config.sections.base import Names, Resources, Section
from orchestrator.config.sections.temperature import Temperature


def _choice(value: Any) -> Any:
    """One message for a value that is neither, in place of one for each of the two types."""
    if not (isinstance(value, bool) or value == "auto"):
        raise ValueError(f'{value!r} is neither true, false nor "auto"')
    return value


class RolloutSection(Section):
    replicas: Annotated[int, Field(ge=1)] = 1
    """Number of vLLM engines, each behind one Ray actor."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """Workers that one engine's model is divided over, each with a GPU on GPU hosts."""
    group_size: Annotated[int, Field(ge=1)] = 8
    """Completions sampled from a prompt: its group (G)."""
    temperature: Temperature = 1.0
    """Sampling temperature, 0.01 to 2; the learner divides its logits by the same."""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Longest completion, in tokens."""
    max_sequences: Annotated[int, Field(ge=1)] = 256
    """Sequences that one engine decodes at a time."""
    kv_cache_gb: Annotated[int, Field(ge=1)] = 1
    """Size of the key/value cache of one engine on a CPU host, in GiB."""
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Share of GPU memory that one engine takes; less where a rank on the same GPU leaves less."""
    eager: bool = False
    """Whether engines never compile or capture graphs (on a CPU they never do)."""
    engine: Annotated[dict[str, Any], Names("anything")] = {}
    """Further arguments of vLLM's engine by their own names, such as `{ quantization = "fp8" }`."""
    cpus: Annotated[float, Field(ge=0)] = 1
    """CPU cores reserved for each tensor-parallel worker of each engine."""
    gpus: Annotated[float, Field(gt=0.5, le=1)] = 1
    """Part of a GPU reserved for each engine, more than half of one; below 1 the rest is for reward models. Each worker of a
    tensor-parallel engine has a whole one: 1."""
    share_gpus: Annotated[bool | Literal["auto"], BeforeValidator(_choice)] = "auto"
    """Whether engine i and learner rank i take turns on one GPU: the engine sleeps while the rank trains, and weights
    travel by CUDA IPC. `auto`: where there are too few GPUs for both."""
    resources: Resources = {}
    """Custom resources of the cluster's nodes that each engine takes, such as `{ engines = 1 }`: where it may live (`ray start
    --resources`)."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Compute threads of an engine on a CPU host; 0: all cores of the host, or half of them where the learner trains
    meanwhile."""
    timeout_s: Annotated[float, Field(gt=0)] = 600
    """Longest time in which an engine that has work may sample no token, or not answer, in seconds; then it is started again, and its
    groups go to others. A group that waits its turn in a queue may take longer. Also the longest load of weights."""
