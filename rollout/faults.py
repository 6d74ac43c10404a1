"""Faults on purpose: at a named point of a run a process kills itself, stops, is slow, fails, or damages a file.

    RAYZERO_FAULTS='["rank.optimizer:kill:3", "step.renamed:damage:2"]'

For tests, and for whoever rehearses a failure before it comes by itself (`faults.at` of a recipe). Without the variable a point
is a look at an empty tuple. Each fault strikes once a run, whatever processes come back: a mark in `RAYZERO_FAULT_MARKS`, a
folder that all of them see, says that it has.
"""

import errno
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rollout.errors import InputError

PLAN, MARKS = "RAYZERO_FAULTS", "RAYZERO_FAULT_MARKS"
Action = Literal["kill", "freeze", "slow", "raise", "full", "damage"]
"""`kill`: as kill -9; `freeze`: as kill -STOP; `slow`: sleep; `raise`: an exception of no kind that anybody expects; `full`: as a
disk without room; `damage`: one bit of the file that the point is about."""
FORM = re.compile(
    r"(?P<point>[a-z][a-z._ -]*):(?P<action>[a-z]+)(?::(?P<time>\d+))?(?:~(?P<seconds>[\d.]+))?(?:@(?P<who>\S+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens where."""

    text: str
    """As it was given."""
    point: str
    action: Action
    time: int
    """At which time, counted from 1, that a process comes to the point."""
    seconds: float
    """How long `slow` sleeps."""
    who: str
    """Name of the process that it befalls, such as `learner-1`; empty: whichever comes first."""


def parse_fault(text: str) -> Fault:
    """`POINT:ACTION[:TIME][~SECONDS][@PROCESS]`. Raises InputError when it is none."""
    found = FORM.fullmatch(text)
    if found is None:
        raise InputError(
            f"fault {text!r}: write POINT:ACTION[:TIME][~SECONDS][@PROCESS], such as rank.optimizer:kill:3"
        )
    if found["action"] not in get_args(Action):
        raise InputError(
            f"fault {text!r}: no action is called {found['action']!r}; there is: {', '.join(get_args(Action))}"
        )
    return Fault(
        text=text,
        point=found["point"],
        action=found["action"],  # type: ignore[arg-type]  # checked above
        time=int(found["time"] or 1),
        seconds=float(found["seconds"] or 1),
        who=found["who"] or "",
    )


def environment(plan: Sequence[str], marks: Path) -> dict[str, str]:
    """Variables of the processes that a plan is for; `marks`: a folder that all of them see."""
    return {PLAN: json.dumps(list(plan)), MARKS: str(marks)} if plan else {}


def reach(point: str, path: Path | None = None, who: str = "driver") -> None:
    """This process comes to a point. `path`: the file or folder that it is about.

    Raises:
        RuntimeError, OSError: the fault that is due here.
    """
    for fault in _due(point, who):
        _strike(fault, path)


def _due(point: str, who: str) -> list[Fault]:
    plan = os.environ.get(PLAN)
    if not plan:
        return []
    _reached[point] += 1
    return [
        fault
        for fault in map(parse_fault, json.loads(plan))
        if fault.point == point and fault.who in ("", who) and fault.time == _reached[point] and _first(fault)
    ]


_reached: Counter[str] = Counter()


def _first(fault: Fault) -> bool:
    """Whether it has not struck yet. It has, from here on."""
    folder = Path(os.environ.get(MARKS) or "/tmp")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / re.sub(r"[^\w.-]", "_", fault.text)).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _strike(fault: Fault, path: Path | None) -> None:
    match fault.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "slow":
            time.sleep(fault.seconds)
        case "raise":
            raise RuntimeError(f"fault on purpose: {fault.text}")
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path or fault.point))
        case "damage":
            assert path is not None, f"{fault.text}: nothing is written at this point"
            damage(path)


def damage(path: Path) -> None:
    """Turn one bit in the middle of a file, or of the largest file of a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    file = max(files, key=lambda each: (each.stat().st_size, str(each)))
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 0x10]))
