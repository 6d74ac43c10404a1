"""deploy/install.sh on machines with and without GPUs: a copy of it, with a Python and an nvidia-smi that only write down
what they are asked."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = """#!/bin/sh
# An interpreter that can make environments, which hold a copy of it; it writes down what it is asked.
echo "$*" >>"$CALLS"
case "$*" in
  *sys.version_info*) echo "3.11.7 $0" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"-m pip "*" -e "*) cp "$0" "$(dirname "$0")/rayzero" ;;
  *"-m pip "* | *"import pip"*) ;;
  *libnuma*) [ -z "$NO_NUMA" ] ;;
  *torch.cuda.init*) if [ -n "$CUDA_FAULT" ]; then echo "Traceback" >&2; echo "$CUDA_FAULT" >&2; exit 1; fi ;;
  *"import torch"*) ;;
  *) exec {real} "$@" ;;
esac
"""
NVIDIA_SMI = """#!/bin/sh
[ -n "$DRIVER" ] || { echo "NVIDIA-SMI has failed because it could not communicate with the driver."; exit 9; }
case "$*" in
  -L) echo "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)" ;;
  *driver_version*) echo "$DRIVER"; echo "$DRIVER" ;;
esac
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    said: str
    """What the person reads."""
    calls: str
    """What Python was asked, one call a line."""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A checkout with little more than the script in it, and the two programs beside it."""
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has GPUs of its own")
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    (folder / "pyproject.toml").write_text("")
    for name, text in {"python": PYTHON, "nvidia-smi": NVIDIA_SMI}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("{real}", sys.executable))
        path.chmod(0o755)
    return tmp_path


def install(host: Path, **environment: str) -> Outcome:
    calls = host / "calls"
    calls.write_text("")
    given = {name: value for name, value in os.environ.items() if name != "ENGINE"}
    given |= {
        "PATH": f"{host / 'bin'}:{os.environ['PATH']}",
        "PYTHON": str(host / "bin" / "python"),
        "CALLS": str(calls),
    }
    answer = subprocess.run(
        ["bash", host / "checkout" / "deploy" / "install.sh"],
        env=given | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(answer.returncode, answer.stdout + answer.stderr, calls.read_text())


def test_a_host_with_gpus_gets_the_pinned_gpu_stack(host: Path) -> None:
    done = install(host, DRIVER="580.95.05")
    assert done.status == 0, done.said
    assert "engine gpu" in done.said
    assert "driver" not in done.said
    assert "-c deploy/constraints-gpu.txt -e .[gpu,dev]" in done.calls


def test_a_host_without_gets_the_pinned_cpu_stack(host: Path) -> None:
    done = install(host)
    assert done.status == 0, done.said
    assert "engine cpu" in done.said
    assert "-c deploy/constraints-cpu.txt -e .[cpu,dev]" in done.calls


def test_an_old_driver_is_refused_before_anything_is_installed(host: Path) -> None:
    done = install(host, DRIVER="570.86.15")
    assert done.status == 2
    for part in ("570.86.15", "580 or newer", "ENGINE=cpu", "ENGINE=gpu"):
        assert part in done.said
    assert "venv .venv" not in done.calls
    assert not (host / "checkout" / ".venv").exists()


def test_an_old_driver_is_taken_when_it_is_asked_for(host: Path) -> None:
    done = install(host, DRIVER="570.86.15", ENGINE="gpu")
    assert done.status == 0
    assert "570.86.15" in done.said
    assert "forward compatibility" in done.said
    again = install(host, DRIVER="570.86.15")
    assert (again.status, "up to date" in again.said) == (0, True)


def test_the_cpu_engine_may_be_asked_for_whatever_the_driver(host: Path) -> None:
    done = install(host, DRIVER="470.10", ENGINE="cpu")
    assert done.status == 0
    assert "-e .[cpu,dev]" in done.calls


def test_a_build_host_without_a_driver_is_told_what_the_others_need(host: Path) -> None:
    done = install(host, ENGINE="gpu")
    assert done.status == 0
    assert "no NVIDIA driver answers here" in done.said
    assert "torch.cuda" not in done.calls


def test_a_gpu_that_torch_does_not_reach_is_said_at_the_end(host: Path) -> None:
    done = install(host, DRIVER="580.95.05", CUDA_FAULT="RuntimeError: system not yet initialized")
    assert "torch does not reach the GPU: RuntimeError: system not yet initialized" in done.said
    assert "rayzero doctor" in done.said


def test_new_pins_are_installed(host: Path) -> None:
    install(host, DRIVER="580.95.05")
    assert "-e .[gpu,dev]" not in install(host, DRIVER="580.95.05").calls
    with (host / "checkout" / "deploy" / "constraints-gpu.txt").open("a") as file:
        file.write("vllm==0.33.1\n")
    assert "-e .[gpu,dev]" in install(host, DRIVER="580.95.05").calls


def test_the_cpu_engine_is_refused_without_the_library_that_it_is_linked_to(host: Path) -> None:
    """Slim container images lack it. The build for GPUs does without."""
    done = install(host, NO_NUMA="1")
    assert (done.status, "apt-get install libnuma1" in done.said) == (2, True)
    assert "venv .venv" not in done.calls
    assert install(host, NO_NUMA="1", DRIVER="580.95.05").status == 0
