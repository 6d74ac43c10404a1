"""Makes what serves CPU hosts known to vLLM, in the actor and in each of vLLM's own worker processes.

Found by vLLM through the `vllm.general_plugins` entry point of this distribution.
"""


def register() -> None:
    """Register weight-transfer backend `shm` and, on CPU hosts, the way adapters are applied; again changes nothing."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    from vllm.platforms import current_platform

    if "shm" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("shm", "rollout.weights.shared_memory", "ShmWeightTransferEngine")
    if current_platform.is_cpu():
        type(current_platform).get_punica_wrapper = classmethod(lambda _: "rollout.weights.lora_cpu.SingleAdapter")
