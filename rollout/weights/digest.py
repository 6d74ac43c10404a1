"""A digest of weights that is made where they are: on a GPU it costs one pass over its memory, where hashing on the host takes
seconds. It finds torn, mixed-up and missing tensors, not forgery.

Of one tensor it is Σ word_i · (2i + 1) · K modulo 2^64, over the words of its memory (of the size of an element, of four bytes
at most) in order, so that words that change places change it. Those of a set are hashed with the names and added up: tensors
may come in any order and in any parts.
"""

import hashlib

import torch
from torch import Tensor

CHUNK = 1 << 22
"""Words that are summed at a time: bounds the 64-bit copies that this makes."""
ODD = 0x9E3779B97F4A7C15 - (1 << 64)
"""K as a signed 64-bit integer: odd, so that no word of a tensor can be lost."""
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}
"""Bytes of an element → dtype that its memory is read as."""
BYTES = 8
"""Bytes of a digest."""


class Digest:
    """The digest of a set of named tensors."""

    def __init__(self) -> None:
        self._sums: list[tuple[str, Tensor]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Queue one tensor, on its device: nothing is waited for."""
        self._sums.append((name, _sum(tensor.detach())))

    def value(self) -> bytes:
        """The digest of all that was added. Waits for the devices, whatever streams the sums were made on."""
        if not self._sums:
            return bytes(BYTES)
        if self._sums[0][1].is_cuda:
            torch.cuda.synchronize()
        total = 0
        for (name, _), number in zip(self._sums, torch.stack([each for _, each in self._sums]).tolist(), strict=True):
            total += int.from_bytes(hashlib.blake2b(f"{name}\0{number}".encode(), digest_size=BYTES).digest(), "little")
        return (total % (1 << 8 * BYTES)).to_bytes(BYTES, "little")


def _sum(tensor: Tensor) -> Tensor:
    """[] int64."""
    words = tensor.contiguous().view(-1).view(WORDS[tensor.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for first in range(0, len(words), CHUNK):
        part = words[first : first + CHUNK].to(torch.int64)
        factors = torch.arange(first, first + len(part), dtype=torch.int64, device=tensor.device)
        total += part.mul_(factors.mul_(2).add_(1).mul_(ODD)).sum()
    return total
