"""Learning rate by optimizer step."""

import math
from typing import Literal


def learning_rate(
    step: int, *, peak: float, warmup_steps: int, total_steps: int, schedule: Literal["constant", "cosine"]
) -> float:
    """Rate of optimizer step `step` (from 0): linear warm-up to the peak, then constant or half a cosine to 10 %."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
