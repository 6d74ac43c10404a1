"""What doctor says of GPUs, with an nvidia-smi and a torch that answer what the test wants."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.checks import gpus
from orchestrator.checks.cuda_answer import CudaAnswer
from orchestrator.checks.finding import Finding
from orchestrator.checks.gpus import ask_torch, driver_version, gpu_findings
from orchestrator.plan import machine

ROOT = Path(__file__).parents[3]

NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *name,memory.total*) printf '{cards}' ;;
  *driver_version*) printf '{drivers}' ;;
esac
"""
TORCH = """
import sys
from types import SimpleNamespace

class OutOfMemoryError(RuntimeError): ...

state = SimpleNamespace(**{state!r})
print("torch says hello")
version = SimpleNamespace(cuda=state.cuda)

def init():
    if state.fault == "dies":
        print("Fatal Python error", file=sys.stderr)
        sys.exit(134)
    if state.fault:
        raise RuntimeError(state.fault)

class Card:
    def __init__(self, index): self.index = index
    def add(self, _): return self
    def item(self):
        kind = state.cards[self.index]
        if kind == "full":
            raise OutOfMemoryError("CUDA out of memory")
        if kind:
            raise RuntimeError(kind + "\\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1")

def ones(count, device):
    return Card(int(device.removeprefix("cuda:")))

cuda = SimpleNamespace(
    init=init,
    is_available=lambda: True,
    device_count=lambda: len(state.cards),
    can_device_access_peer=lambda one, other: [one, other] not in state.apart,
    nccl=SimpleNamespace(version=lambda: tuple(state.nccl)),
)
"""


@dataclass(frozen=True)
class Torch:
    """A module `torch` for the child."""

    write: Callable[..., None]

    def __call__(self, **state: object) -> CudaAnswer:
        self.write(**state)
        return ask_torch()


@pytest.fixture
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Torch:
    def write(**state: object) -> None:
        whole: dict[str, object] = {"cuda": "13.0", "fault": "", "cards": ["", ""], "apart": [], "nccl": [2, 30, 7]}
        (tmp_path / "torch.py").write_text(TORCH.replace("{state!r}", repr(whole | state)))

    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    return Torch(write)


def as_read(answer: CudaAnswer) -> CudaAnswer:
    """An answer as it comes back through JSON."""
    return CudaAnswer(**json.loads(json.dumps({name: getattr(answer, name) for name in CudaAnswer.__slots__})))


WHOLE = CudaAnswer(cuda="13.0", devices=("", ""), nccl="2.30.7")


def test_the_child_tells_what_torch_sees(torch: Torch) -> None:
    assert torch() == as_read(WHOLE)


def test_the_child_tells_why_torch_reaches_no_gpu(torch: Torch) -> None:
    answer = torch(fault="The NVIDIA driver on your system is too old (found version 12040).\nPlease update")
    assert answer.fault == "The NVIDIA driver on your system is too old (found version 12040)."
    assert (answer.cuda, answer.nccl, answer.devices) == ("13.0", "2.30.7", [])


def test_the_child_computes_on_each_gpu(torch: Torch) -> None:
    assert torch(cards=["", "CUDA error: no kernel image", "full"]).devices == ["", "CUDA error: no kernel image", ""]


def test_a_pair_reads_each_other_only_in_both_directions(torch: Torch) -> None:
    assert torch(cards=["", "", ""], apart=[[2, 0], [1, 2]]).apart == [[0, 2], [1, 2]]


def test_a_child_that_dies_is_told(torch: Torch) -> None:
    answer = torch(fault="dies")
    assert answer.fault == "exit status 134: Fatal Python error"
    assert not answer.nccl


def test_a_child_that_hangs_is_not_waited_for(torch: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "ANSWER_S", 0.01)
    assert torch().fault == "no answer in 0.01 s"


@dataclass
class Host:
    """A machine with two GPUs, torch for them and a new driver, unless the test says otherwise."""

    folder: Path
    answer: CudaAnswer = WHOLE

    def smi(self, drivers: str = "580.95.05\\n580.95.05\\n", cards: str = "NVIDIA H100, 81559 MiB\\n" * 2) -> None:
        path = self.folder / "nvidia-smi"
        path.write_text(NVIDIA_SMI.replace("{cards}", cards).replace("{drivers}", drivers))
        path.chmod(0o755)

    def findings(self) -> dict[str, Finding]:
        return {finding.what: finding for finding in gpu_findings()}

    def missing(self) -> list[str]:
        return [finding.what for finding in gpu_findings() if finding.state == "missing"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    versions = {"torch": "2.14.0"}
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "version_of", lambda name: versions.get(name, ""))
    monkeypatch.setattr(gpus, "ask_torch", lambda: host.answer)
    host.smi()
    # Without its cache: what the fake says is not what later tests shall remember.
    monkeypatch.setattr(machine, "gpu_names", machine._gpus_seen.__wrapped__)
    return host


def test_a_whole_gpu_host(host: Host) -> None:
    found = host.findings()
    assert {what: finding.value for what, finding in found.items()} == {
        "GPU": "2 × NVIDIA H100, 81559 MiB",
        "NVIDIA driver": "580.95.05",
        "torch's CUDA": "13.0, computes on 2 of 2",
        "NCCL": "2.30.7",
        "GPU to GPU": "each reads the memory of all others",
    }
    assert {finding.state for finding in found.values()} == {"ok"}


def test_cards_of_two_kinds_are_both_named(host: Host) -> None:
    host.smi(cards="NVIDIA H100, 81559 MiB\\nNVIDIA L4, 23034 MiB\\n")
    assert host.findings()["GPU"].value == "1 × NVIDIA H100, 81559 MiB and 1 × NVIDIA L4, 23034 MiB"


def test_an_old_driver_is_missing_and_names_the_one_that_serves(host: Host) -> None:
    host.smi(drivers="570.86.15\\n")
    host.answer = CudaAnswer(cuda="13.0", fault="The NVIDIA driver on your system is too old", nccl="2.30.7")
    driver = host.findings()["NVIDIA driver"]
    assert driver.state == "missing"
    assert "570.86.15" in driver.value
    assert "580 or newer" in driver.way_out
    assert "too old" in host.findings()["torch's CUDA"].value
    assert host.missing() == ["NVIDIA driver", "torch's CUDA"]


def test_an_old_driver_that_serves_all_the_same_is_a_note(host: Host) -> None:
    host.smi(drivers="570.86.15\\n")
    assert host.findings()["NVIDIA driver"].state == "note"
    assert host.missing() == []


def test_torch_of_an_older_cuda_asks_for_less(host: Host) -> None:
    host.smi(drivers="570.86.15\\n")
    host.answer = replace(WHOLE, cuda="12.8")
    assert host.findings()["NVIDIA driver"].state == "ok"


@pytest.mark.parametrize("drivers", ["", "[Unknown Error]\\n", "N/A\\n"])
def test_a_driver_that_is_not_told_is_a_note(host: Host, drivers: str) -> None:
    host.smi(drivers=drivers)
    assert host.findings()["NVIDIA driver"].state == "note"


def test_no_nvidia_smi_no_driver(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert driver_version() == "580.95.05"
    (host.folder / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert driver_version() == ""


def test_an_ill_card_is_named(host: Host) -> None:
    host.answer = replace(WHOLE, devices=("", "CUDA error: uncorrectable ECC error"))
    finding = host.findings()["torch's CUDA"]
    assert finding.state == "missing"
    assert "GPU 1: CUDA error: uncorrectable ECC error" in finding.value
    assert "GPU 0" not in finding.value


def test_a_card_that_torch_does_not_see_is_missing(host: Host) -> None:
    host.answer = replace(WHOLE, devices=("",))
    assert "1 of 2" in host.findings()["torch's CUDA"].value
    assert host.missing() == ["torch's CUDA"]


def test_no_nccl_is_missing(host: Host) -> None:
    host.answer = replace(WHOLE, nccl="", nccl_fault="libnccl.so.2: cannot open shared object file")
    assert host.missing() == ["NCCL"]
    assert "libnccl" in host.findings()["NCCL"].value


def test_cards_that_do_not_read_each_other_are_a_note(host: Host) -> None:
    host.answer = replace(WHOLE, apart=((0, 1),))
    assert host.findings()["GPU to GPU"].value == "none reads another's memory"
    host.answer = replace(WHOLE, devices=("",) * 4, apart=((0, 2),))
    assert "1 of 6 pairs" in host.findings()["GPU to GPU"].value
    assert host.findings()["GPU to GPU"].way_out
    assert host.missing() == []


def test_hidden_cards_are_not_asked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "ask_torch", lambda: pytest.fail("asked"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = gpu_findings()
    assert "CUDA_VISIBLE_DEVICES" in finding.value


def test_a_torch_without_cuda_is_not_asked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "ask_torch", lambda: pytest.fail("asked"))
    monkeypatch.setattr(machine, "version_of", lambda _: "2.13.0+cpu")
    assert list(host.findings()) == ["GPU", "NVIDIA driver"]


def test_the_driver_that_make_install_asks_for_is_that_of_the_pinned_cuda() -> None:
    script = (ROOT / "deploy" / "install.sh").read_text()
    pins = (ROOT / "deploy" / "constraints-gpu.txt").read_text()
    (cuda,) = (line.split("==")[1] for line in pins.splitlines() if line.startswith("nvidia-cuda-runtime=="))
    assert f"oldest_driver={gpus.OLDEST_DRIVER[int(cuda.split('.')[0])]}\n" in script
