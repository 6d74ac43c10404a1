"""The small interface between a run and a tracker's library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestrator.config.sections.tracking import TrackingSection
from orchestrator.tracking.entries import Entry

Ending = Literal["finished", "stopped", "failed"]
"""How a run ended: by itself, by Ctrl-C, by an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """What a tracker is told of a run at the beginning."""

    id: str
    """As in `Mark`."""
    folder: Path
    project: str
    name: str
    config: Mapping[str, Any]
    """The recipe, without what may be secret."""
    settings: TrackingSection
    stages: Sequence[str]


class Tracker(Protocol):
    """A run at a tracker. Whatever a method raises is told once as a warning, and the tracker is opened and tried again later."""

    def open(self, run: TrackedRun) -> int | None:
        """Begin the run there, or continue it; also after a failure. Returns the number of lines of metrics.jsonl that it has by
        its own account; None where it cannot tell."""

    def send(self, entries: Sequence[Entry]) -> None:
        """Send entries; when it returns, they outlive this process."""

    def close(self, ending: Ending) -> None:
        """End the run there."""
