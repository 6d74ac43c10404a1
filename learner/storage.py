"""Room for what the ranks write, asked for before they begin, and failures of writing with path and reason.

A write that fails half-way on one rank would leave its peers in a collective, and what libraries raise for a full disk is
often no OSError. So all ranks find out together that there is too little room, and whatever fails on a full disk is said to.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_FULL_BYTES = 1 << 20
"""Bytes that are left, at most, where a write has failed for lack of room."""


def check_room(folder: Path, needed: int, ranks: int, device: torch.device) -> None:
    """Raises OSError on all ranks where one of them sees less than `needed` bytes free. Collective.

    `needed`: bytes that all ranks together write there, 0 for a rank that writes nothing.
    """
    lacking = max(0, needed - _free(folder)) if needed else 0
    if ranks > 1:
        largest = torch.tensor(lacking, dtype=torch.int64, device=device)
        torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
        lacking = int(largest)
    if lacking:
        raise OSError(
            errno.ENOSPC, f"No space left on device: {lacking:,} bytes more than are free are needed", str(folder)
        )


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """A block that writes to a folder: its failures name the folder, and say so where it is full."""
    try:
        yield
    except OSError as problem:
        if problem.filename is None:
            problem.filename = str(folder)
        raise
    except Exception as problem:
        if _free(folder) > _FULL_BYTES:
            raise
        reason = " ".join(str(problem).split())
        raise OSError(errno.ENOSPC, f"No space left on device ({reason:.200})", str(folder)) from problem


def _free(folder: Path) -> int:
    """Free bytes where a folder lies or would lie; very many where its file system does not say."""
    place = next((each for each in (folder, *folder.parents) if each.is_dir()), Path("/"))
    usage = shutil.disk_usage(place)
    return usage.free if usage.total else 1 << 62
