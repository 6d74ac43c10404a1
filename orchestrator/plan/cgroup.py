"""What the control groups of this process leave it of the machine: a container, a Slurm job or a systemd slice has less than
`os.cpu_count()` and the size of the RAM say.

Version 2 and version 1. Inside a container a process often sees its group as the top of the tree and its path in
`/proc/self/cgroup` leads nowhere there: then the top counts. A limit of any group above counts too.
"""

import math
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def cpu_quota(*, top_alone: bool = False) -> float:
    """Cores' worth of time that this process gets; infinite: no limit.

    Args:
        top_alone: read the top of the tree and nothing below it, as Ray does.
    """
    quotas = [_quota(folder) for folder in _groups("cpu", top_alone)]
    return min(quotas, default=math.inf)


def memory_limit(*, top_alone: bool = False) -> float:
    """Bytes that this process's group may have; infinite: no limit."""
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [_number(folder / name) for folder in _groups("memory", top_alone) for name in names]
    # Version 1 writes a limit that is none as the largest number of pages.
    return min((limit for limit in limits if limit < 1 << 62), default=math.inf)


def process_limit() -> float:
    """Threads and processes that this process's group may have; infinite: no limit."""
    return min((_number(folder / "pids.max") for folder in _groups("pids", False)), default=math.inf)


def _quota(folder: Path) -> float:
    try:
        limit, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no group of version 2, so its quota is where version 1 has it
    period_us = _number(folder / "cpu.cfs_period_us")
    quota_us = _number(folder / "cpu.cfs_quota_us")  # -1: no limit
    return quota_us / period_us if 0 < quota_us < math.inf and 0 < period_us < math.inf else math.inf


def _number(file: Path) -> float:
    """The number in a file; infinite where it says `max`, or is not there."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return math.inf


def _groups(controller: str, top_alone: bool) -> Iterator[Path]:
    """Folders of this process's group and those above it, of version 2 and of a controller of version 1."""
    tops = [MOUNT, MOUNT / controller]
    yield from tops
    if top_alone:
        return
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            top = MOUNT
        elif controller in controllers.split(","):
            top = MOUNT / controller
        else:
            continue
        group = Path(path.lstrip("/"))
        yield from (top / each for each in (group, *group.parents) if ".." not in each.parts)
