"""What a device could do, which utilisation is a share of: the highest rate of matrix products that was ever seen on it.

A rank can measure only beside whatever else computes just then, such as engines that start on the same cores, and nothing makes a
product faster than the device is. So the best counts, of several products, of all processes of this machine (a file in the
cache folder), and of the steps themselves: one that did more is the better measurement. Utilisation is at most 1.
"""

import contextlib
import functools
import json
import math
import os
import platform
import tempfile
import time
from pathlib import Path

import torch

SIZES = {"cpu": (1024, 2048), "cuda": (8192,)}
"""Rows and columns of the matrices."""
PRODUCTS = 6
"""Products of each size, at least."""
PATIENCE_S = 2.0
"""Longest search for a moment in which nothing else computes on the cores."""
_OWN_SHARE = 0.95
"""Share of its threads' time that a process computes where nothing else does."""


class Peak:
    """FLOPs a second that matrix products of one dtype reach on a device, with the threads that this process has now."""

    def __init__(self, device: torch.device, dtype: torch.dtype, file: Path) -> None:
        """
        Args:
            file: where the machine's best is kept; one that cannot be read or written is as good as none.
        """
        self._file = file
        self._key = _key(device, dtype)
        self._best = max(_kept(file).get(self._key, 0.0), 1.0)
        self.raise_to(measure(device, dtype))

    @property
    def flops(self) -> float:
        """FLOPs a second, the highest seen so far."""
        return self._best

    def raise_to(self, rate: float) -> float:
        """The peak, now that `rate` FLOPs a second were seen."""
        if rate > self._best and math.isfinite(rate):
            self._best = rate
            _keep(self._file, self._key, rate)
        return self._best


@functools.cache
def peak_of(device: torch.device, dtype: torch.dtype) -> Peak:
    """The one of this process and machine; measured at the first call."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Peak(device, dtype, Path(cache) / "rayzero" / "matmul-peaks.json")


def measure(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the best of several square matrix products.

    On a CPU they go on, for `PATIENCE_S` at most, until the process had its cores for itself during one.
    """
    best, began = 0.0, time.perf_counter()
    draws = torch.Generator(device).manual_seed(0)  # its own: those of the model stay as they are
    for size in SIZES["cuda" if device.type == "cuda" else "cpu"]:
        left, right = (torch.randn(size, size, device=device, generator=draws).to(dtype) for _ in range(2))
        done, alone = 0, False
        while done < PRODUCTS or not (alone or time.perf_counter() - began > PATIENCE_S):
            seconds, share = _product(device, left, right)
            best = max(best, 2.0 * size**3 / seconds)
            alone |= device.type == "cuda" or share >= _OWN_SHARE
            done += 1
    return best


def _product(device: torch.device, left: torch.Tensor, right: torch.Tensor) -> tuple[float, float]:
    """(seconds that a product took, share of its threads' time that they computed)."""
    _wait(device)
    began, computed = time.perf_counter(), time.process_time()
    torch.mm(left, right)
    _wait(device)
    seconds = time.perf_counter() - began
    return seconds, (time.process_time() - computed) / (seconds * torch.get_num_threads())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _key(device: torch.device, dtype: torch.dtype) -> str:
    """What one measurement stands for: a home folder may be that of many machines."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{platform.node()}, {kind}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}"


def _kept(file: Path) -> dict[str, float]:
    try:
        known = json.loads(file.read_text())
        return {key: float(rate) for key, rate in known.items() if math.isfinite(rate) and rate > 0}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _keep(file: Path, key: str, rate: float) -> None:
    """Add to the file, whole or not at all. Of two that write at once one may be lost, and is found again."""
    known = _kept(file)
    known[key] = max(rate, known.get(key, 0.0))
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=file.name, delete=False) as aside:
            json.dump(known, aside, indent=1)
        os.replace(aside.name, file)
