"""What `rayzero doctor` says of a machine's GPUs: whether driver, CUDA, NCCL and the cards themselves serve torch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from orchestrator.checks.cuda_answer import CudaAnswer
from orchestrator.checks.finding import Finding
from orchestrator.plan import machine

OLDEST_DRIVER = {12: 525, 13: 580}
"""Major version of CUDA → that of the oldest driver that serves it (NVIDIA's compatibility guide)."""
ANSWER_S = 120
"""Seconds that torch has to be imported and to say what it sees."""


def gpu_findings() -> Iterator[Finding]:
    """The cards and, where there are any and torch is built for them, all that stands between them and torch."""
    names = machine.gpu_names()
    if not names:
        yield _none()
        return
    kinds = dict.fromkeys(names)
    yield Finding(what="GPU", state="ok", value=" and ".join(f"{names.count(name)} × {name}" for name in kinds))
    torch = machine.version_of("torch")
    if not torch or torch.endswith("+cpu"):
        yield _driver(driver_version(), CudaAnswer())
        return
    answer = ask_torch()
    yield _driver(driver_version(), answer)
    yield _cuda(answer, len(names))
    yield _nccl(answer)
    if len(answer.devices) > 1:
        yield _peers(answer)


def driver_version() -> str:
    """Version of NVIDIA's driver, such as `580.95.05`; empty when nvidia-smi does not say."""
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next((line.strip() for line in answer.stdout.splitlines() if line.strip()), "")


def ask_torch() -> CudaAnswer:
    """What torch says in a process of its own."""
    command = [sys.executable, "-P", "-m", "orchestrator.checks.cuda_answer"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        return CudaAnswer(fault=f"no answer in {ANSWER_S} s", nccl_fault="torch gave no answer")
    said = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and said:
        return CudaAnswer(**json.loads(said[-1]))
    last = next(reversed((done.stdout + done.stderr).strip().splitlines()), "it says nothing")
    return CudaAnswer(fault=f"exit status {done.returncode}: {last}", nccl_fault="torch gave no answer")


def _none() -> Finding:
    value = "none seen"
    way_out = "runs on the CPU: fit for small models"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        value = "none seen: CUDA_VISIBLE_DEVICES hides all"
    elif any(Path("/dev").glob("nvidia[0-9]*")):
        value = "none seen: a device of NVIDIA is in /dev, but nvidia-smi does not answer"
        way_out = "mend the driver, or give the container its tools: NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    return Finding(what="GPU", state="note", value=value, way_out=way_out)


def _driver(version: str, answer: CudaAnswer) -> Finding:
    what = "NVIDIA driver"
    major, cuda = version.partition(".")[0], answer.cuda.partition(".")[0]
    oldest = OLDEST_DRIVER.get(int(cuda), 0) if cuda else 0
    if not major.isdigit():
        return Finding(what=what, state="note", value="nvidia-smi does not say its version")
    if int(major) >= oldest:
        return Finding(what=what, state="ok", value=version)
    value = f"{version}, older than the {oldest} of CUDA {answer.cuda}, which torch comes with"
    if not answer.fault:
        return Finding(what=what, state="note", value=f"{value}; forward compatibility serves it")
    way_out = f"update it to {oldest} or newer; on a data-centre card CUDA's forward compatibility package serves too"
    return Finding(what=what, state="missing", value=value, way_out=way_out)


def _cuda(answer: CudaAnswer, count: int) -> Finding:
    what, version = "torch's CUDA", answer.cuda or "unknown"
    if answer.fault:
        return Finding(
            what=what,
            state="missing",
            value=f"{version}, and torch reaches no GPU: {answer.fault}",
            way_out="a driver as above; in a container --gpus all and NVIDIA_DRIVER_CAPABILITIES=compute,utility; "
            "a reboot after a driver was updated",
        )
    faults = [f"GPU {index}: {fault}" for index, fault in enumerate(answer.devices) if fault]
    if faults:
        way_out = "leave it out (CUDA_VISIBLE_DEVICES), or see what holds or ails it: nvidia-smi"
        return Finding(what=what, state="missing", value=f"{version}; {'; '.join(faults)}", way_out=way_out)
    if len(answer.devices) < count:
        value = f"{version}; torch sees {len(answer.devices)} of {count} GPUs"
        return Finding(what=what, state="missing", value=value, way_out="is one of them ill? nvidia-smi; dmesg")
    return Finding(what=what, state="ok", value=f"{version}, computes on {len(answer.devices)} of {count}")


def _nccl(answer: CudaAnswer) -> Finding:
    if answer.nccl_fault:
        return Finding(what="NCCL", state="missing", value=answer.nccl_fault, way_out="make install ENGINE=gpu")
    return Finding(what="NCCL", state="ok", value=answer.nccl)


def _peers(answer: CudaAnswer) -> Finding:
    what, count = "GPU to GPU", len(answer.devices)
    if not answer.apart:
        return Finding(what=what, state="ok", value="each reads the memory of all others")
    pairs = count * (count - 1) // 2
    value = (
        "none reads another's memory"
        if len(answer.apart) == pairs
        else f"{len(answer.apart)} of {pairs} pairs do not read each other's memory, such as "
        f"{answer.apart[0][0]} and {answer.apart[0][1]}"
    )
    way_out = (
        "works through the host's memory, slower; NVLink or PCIe peer access may be off (IOMMU, ACS, a virtual machine)"
    )
    return Finding(what=what, state="note", value=value, way_out=way_out)
