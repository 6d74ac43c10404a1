"""One line of what `rayzero doctor` says."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about this machine or its environment."""

    what: str
    state: State
    """`note`: works without, or only matters to some; `missing`: nothing trains before it is put right."""
    value: str
    way_out: str = ""
