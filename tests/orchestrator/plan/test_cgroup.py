"""What control groups leave a process, read from trees as containers, Slurm and systemd make them."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.plan import cgroup, machine

Tree = dict[str, str]
Grow = Callable[[Tree, str], None]


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grow:
    """Call it with the files of the tree, path → text, and what /proc/self/cgroup says."""

    def grow(files: Tree, own: str) -> None:
        for name, text in files.items():
            file = tmp_path / "fs" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (tmp_path / "own").write_text(own)
        monkeypatch.setattr(cgroup, "MOUNT", tmp_path / "fs")
        monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")

    return grow


SLICE = "system.slice/slurmstepd.scope/job_7/step_0"


@pytest.mark.parametrize(
    ("files", "own", "cores", "of_ray"),
    [
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2, 2),
        ({"cpu.max": "max 100000\n"}, "0::/\n", math.inf, math.inf),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5, 1.5),
        ({}, "0::/user.slice\n", math.inf, math.inf),
        ({f"{SLICE}/cpu.max": "max 100000\n"}, f"0::/{SLICE}\n", math.inf, math.inf),
        ({f"{SLICE}/cpu.max": "400000 100000\n"}, f"0::/{SLICE}\n", 4, math.inf),
        ({"system.slice/cpu.max": "300000 100000\n", f"{SLICE}/cpu.max": "max 1\n"}, f"0::/{SLICE}\n", 3, math.inf),
        ({"cpu.max": "100000 50000\n"}, "0::/../../outside\n", 2, 2),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/docker/ab\n", 2.5, 2.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", math.inf, math.inf),
        ({"cpu/a/cpu.cfs_quota_us": "1000\n", "cpu/a/cpu.cfs_period_us": "1000\n"}, "1:cpu:/a\n0::/\n", 1, math.inf),
        ({"cpu.max": "broken\n"}, "0::/\n", math.inf, math.inf),
    ],
)  # fmt: skip
def test_the_smallest_quota_on_the_way_up_counts(
    groups: Grow, files: Tree, own: str, cores: float, of_ray: float
) -> None:
    groups(files, own)
    assert cgroup.cpu_quota() == cores
    assert cgroup.cpu_quota(top_alone=True) == of_ray


@pytest.mark.parametrize(
    ("files", "own", "limit"),
    [
        ({"memory.max": "4294967296\n"}, "0::/\n", 4 << 30),
        ({"memory.max": "max\n"}, "0::/\n", math.inf),
        ({f"{SLICE}/memory.max": "1024\n", "system.slice/memory.max": "2048\n"}, f"0::/{SLICE}\n", 1024),
        ({"memory/memory.limit_in_bytes": "1024\n"}, "4:memory:/docker/ab\n", 1024),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "4:memory:/\n", math.inf),
    ],
)
def test_the_smallest_memory_on_the_way_up_counts(groups: Grow, files: Tree, own: str, limit: float) -> None:
    groups(files, own)
    assert cgroup.memory_limit() == limit


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1), ("50000 100000", 1), ("9900000 100000", 4)])
def test_cores_are_whole_at_least_one_and_at_most_those_of_the_set(
    groups: Grow, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2, 5})
    groups({"cpu.max": quota}, "0::/\n")
    assert machine.cpu_count() == cores


def test_what_ray_takes_for_the_machine_is_the_top_group_alone(groups: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)))
    groups({f"{SLICE}/cpu.max": "400000 100000", f"{SLICE}/memory.max": "1048576"}, f"0::/{SLICE}\n")
    assert (machine.cpu_count(), machine.cpus_of_ray()) == (4, 8)
    assert machine.memory_bytes() == 1 << 20 < machine.memory_of_ray()


def test_ray_reads_the_same_of_the_top_group(groups: Grow, tmp_path: Path) -> None:
    """The file of version 2 that Ray reads, by Ray's own function."""
    utils = pytest.importorskip("ray._private.utils")
    groups({"cpu.max": "250000 100000\n", "memory.max": "1048576\n"}, "0::/\n")
    top, none = tmp_path / "fs", str(tmp_path / "none")
    told = utils._get_docker_cpus(none, none, none, str(top / "cpu.max"))
    assert int(told) == int(cgroup.cpu_quota(top_alone=True)) == 2
    assert utils.get_system_memory(none, str(top / "memory.max")) == cgroup.memory_limit(top_alone=True)
