"""Makes the shared-memory backend known to vLLM, in the actor and in each of vLLM's own worker processes.

Found by vLLM through the `vllm.general_plugins` entry point of this distribution.
"""


def register() -> None:
    """Register weight-transfer backend `shm`; calling it again changes nothing."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if "shm" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("shm", "rollout.shm_engine", "ShmWeightTransferEngine")
