"""What PyTorch's allocator of a GPU's memory is told before it is first used."""

from collections.abc import Mapping

VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Names that it reads its settings from; the second is the old one."""


def allocator_settings(environment: Mapping[str, str], *, shares_memory: bool) -> dict[str, str]:
    """Variables to be set beside those of the environment, whose own settings stand: segments that grow.

    Packs differ in size from one to the next. In segments of fixed sizes they leave gaps that none of the later ones fits
    into, until a GPU is full of memory that is reserved and not allocated.

    Args:
        shares_memory: whether other processes open tensors by CUDA IPC. A segment that grows has no handle of the plain kind.
    """
    if shares_memory or any(environment.get(name) for name in VARIABLES):
        return {}
    return {VARIABLES[0]: "expandable_segments:True"}
