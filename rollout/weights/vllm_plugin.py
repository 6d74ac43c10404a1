"""Makes what serves CPU hosts known to vLLM, in the actor and in each of vLLM's own worker processes.

Found by vLLM through the `vllm.general_plugins` entry point of this distribution.
"""

from rollout.weights.manifest import Backend

ENGINES: dict[Backend, tuple[str, str]] = {
    "shm": ("rollout.weights.shared_memory", "ShmWeightTransferEngine"),
    "nccl": ("rollout.weights.gpu", "VerifiedNcclEngine"),
    "ipc": ("rollout.weights.gpu", "HandlesEngine"),
}
"""Transport → module and class of its worker side."""


def vllm_name(backend: Backend) -> str:
    """Name of a transport in vLLM, which has backends of its own that are called `nccl` and `ipc`."""
    return f"rayzero_{backend}"


def register() -> None:
    """Register the worker sides of the transports and, on CPU hosts, the way adapters are applied; again changes nothing."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    from vllm.platforms import current_platform

    for backend, (module, name) in ENGINES.items():
        if vllm_name(backend) not in WeightTransferEngineFactory._registry:
            WeightTransferEngineFactory.register_engine(vllm_name(backend), module, name)
    if current_platform.is_cpu():
        type(current_platform).get_punica_wrapper = classmethod(lambda _: "rollout.weights.lora_cpu.SingleAdapter")
