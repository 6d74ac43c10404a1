"""What a step costs: model FLOPs and peak memory.

Model FLOPs are those that the mathematics needs, whatever the implementation computes again or pads: 2 a weight and token
in every linear layer, the scores and sums of causal attention, the head at targets only; a backward pass costs two forward
passes (Kaplan et al., arXiv:2001.08361, section 2.1; PaLM, arXiv:2204.02311, appendix B, there without the causal half).
By hand: DeepSpeed's profiler counts what runs, padding and repeated prompts included.
Utilisation (MFU) is model FLOPs a second over the peak (learner/peak.py), all forward passes that the objective asks for included.
"""

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from learner.batch import Pack

TRAIN = 3
"""Cost of a forward and a backward pass in forward passes."""

_RESET_PEAK = "5"
"""Text for /proc/self/clear_refs, after which VmHWM starts again from what is resident (proc(5))."""


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Sizes of a dense decoder that its FLOPs follow from."""

    linear: int
    """Weights of the linear layers before the head."""
    attention: int
    """Σ over layers of heads × head size."""
    head: int
    """Weights of the head."""

    @classmethod
    def of(cls, model: Any) -> "ModelCost":
        """Sizes of a `transformers` model, sharded by ZeRO-3 or not."""
        config = model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        head = model.get_output_embeddings() or getattr(model, "score", None)
        return cls(
            linear=sum(_size(m.weight) for m in model.base_model.modules() if isinstance(m, nn.Linear)),
            attention=config.num_hidden_layers * config.num_attention_heads * size,
            head=_size(head.weight) if head is not None else 0,
        )

    def forward_flops(self, packs: Iterable[Pack]) -> float:
        """FLOPs of one forward pass over packs: a shared prompt counts once, an empty pack of a rank without work nothing."""
        total = 0.0
        for pack in packs:
            if pack.weights.any():
                before = np.where(pack.prefixes < 0, 0, pack.lengths[pack.prefixes]).astype(float)
                # A span of L tokens after P others: each token sees P and, on average, half of L.
                seen = float((pack.lengths * (2 * before + pack.lengths)).sum())
                total += 2 * (self.linear * len(pack.token_ids) + self.attention * seen + self.head * len(pack.targets))
        return total


def _size(weight: Any) -> int:
    return int(getattr(weight, "ds_numel", weight.numel()))


def reset_memory_peak(device: torch.device) -> None:
    """Begin the peak of `memory_peak` anew. Where the kernel refuses, it stays that since the process began."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write(_RESET_PEAK)
    except OSError:
        return


def memory_peak(device: torch.device) -> int:
    """Bytes: on a GPU what was allocated at most, on a CPU the largest resident size of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
