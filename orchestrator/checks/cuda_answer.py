"""What torch says of the GPUs, in a process of its own: `python -m orchestrator.checks.cuda_answer` prints it as JSON.

CUDA may hang, crash, or keep memory of a GPU for as long as a process lives, so nobody asks in theirs.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaAnswer:
    """What came out of it; all empty where torch could not be asked."""

    cuda: str = ""
    """Version of the CUDA that torch comes with; empty where torch is built without."""
    fault: str = ""
    """Why torch reaches no GPU."""
    devices: tuple[str, ...] = ()
    """Why nothing can be computed on each GPU that torch sees; empty where it can."""
    nccl: str = ""
    """Version of NCCL."""
    nccl_fault: str = ""
    """Why torch has no NCCL."""
    apart: tuple[tuple[int, int], ...] = ()
    """Pairs of GPUs of which one cannot read the other's memory."""


def main() -> None:
    import torch

    fault, devices, apart = "", [], []
    try:
        torch.cuda.init()
        if not torch.cuda.is_available():
            fault = "torch.cuda.is_available() is False"
    except (RuntimeError, AssertionError, OSError) as problem:
        fault = _line(problem)
    if not fault:
        count = torch.cuda.device_count()
        devices = [_computes(torch, index) for index in range(count)]
        pairs = [(one, other) for other in range(count) for one in range(other)]
        apart = [pair for pair in pairs if not (_reads(torch, *pair) and _reads(torch, *pair[::-1]))]
    nccl, nccl_fault = "", ""
    try:
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    except (RuntimeError, AttributeError, OSError) as problem:
        nccl_fault = _line(problem)
    answer = CudaAnswer(
        cuda=torch.version.cuda or "",
        fault=fault,
        devices=tuple(devices),
        nccl=nccl,
        nccl_fault=nccl_fault,
        apart=tuple(apart),
    )
    print(json.dumps(asdict(answer)))


def _computes(torch: Any, index: int) -> str:
    """Why a GPU cannot add two numbers; empty where it can, or could if others left it memory."""
    try:
        torch.ones(1, device=f"cuda:{index}").add(1).item()
    except torch.OutOfMemoryError:
        return ""
    except RuntimeError as problem:
        return _line(problem)
    return ""


def _reads(torch: Any, one: int, other: int) -> bool:
    return bool(torch.cuda.can_device_access_peer(one, other))


def _line(problem: BaseException) -> str:
    """The first line of a failure: CUDA adds paragraphs of advice."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0] if lines else type(problem).__name__


if __name__ == "__main__":
    main()
