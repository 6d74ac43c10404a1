"""Facts about a machine, on whatever machine the test runs."""

import socket
from pathlib import Path

import pytest

from orchestrator.plan import machine


def test_a_port_in_use_is_told_from_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert machine.port_fault(port) == "the port is in use"
    assert machine.port_fault(port) == ""


@pytest.mark.parametrize(
    ("size", "text"), [(988e6, "988 MB"), (1.5e9, "1.5 GB"), (999.9e6, "1 GB"), (2e12, "2 TB"), (512, "0.512 kB")]
)
def test_sizes_are_readable(size: float, text: str) -> None:
    assert machine.in_units(size) == text


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
    assert len(machine._gpus_seen.__wrapped__()) == count
