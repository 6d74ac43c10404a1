"""Whether a checkpoint is what was written: digests of its files, beside them, and what becomes of one that is not."""

import json
from collections.abc import Mapping
from pathlib import Path

from orchestrator.run.files import write_file

DIGESTS = "digests.json"
DAMAGED = ".damaged"
"""End of the name of what is left aside: no checkpoint and no step's file is called so."""


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Keep the digests of a folder's files, by path inside it."""
    write_file(folder / DIGESTS, json.dumps(dict(sorted(digests.items())), indent=1).encode())


def check_digests(folder: Path, found: Mapping[str, str]) -> str:
    """What is wrong with a folder whose files have the digests `found`; empty: nothing, or it was written without digests."""
    path = folder / DIGESTS
    if not path.is_file():
        return "" if (folder / "state.json").is_file() else f"{folder} holds no state.json"
    try:
        written: dict[str, str] = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        return f"{path} cannot be read: {problem}"
    for name in sorted(written.keys() | found.keys() - {DIGESTS}):
        if name not in found:
            return f"{folder / name} is missing"
        if name not in written:
            return f"{folder / name} does not belong there"
        if written[name] != found[name]:
            return f"{folder / name} is not what was written"
    return ""


def set_aside(path: Path) -> Path:
    """Rename what is damaged, so that nothing reads it and nobody loses it; returns the new name."""
    aside = path.with_name(path.name + DAMAGED)
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}{DAMAGED}-{number}")
    path.rename(aside)
    return aside
