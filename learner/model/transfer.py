"""Arrays on their way from the host to the device of a rank."""

import numpy as np
import torch
from torch import Tensor


def moved(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of an array on the device. To a GPU it goes from pinned memory, beside what is queued there."""
    # Arrays that came through Ray's object store are read-only; torch wants to own what it may write.
    tensor = torch.tensor(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
