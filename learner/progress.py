"""What a rank is at, for the message when the ranks cannot go on.

A rank notes what it is at: the verb, the part of it, the collective. The note is read by another thread of the same
process, so it can be asked for while the rank waits for a peer; a process that is stopped or gone does not answer, which
says something too. `diagnosis` puts the answers together.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLLECTIVES = (
    "all_reduce",
    "all_reduce_coalesced",
    "inference_all_reduce",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "broadcast",
    "broadcast_object_list",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_coalesced",
    "all_gather_object",
    "all_to_all_single",
    "all_to_all",
    "gather",
    "scatter",
    "barrier",
    "monitored_barrier",
)
"""Methods of DeepSpeed's communication backend in which ranks wait for each other."""


LEAST_BYTES = 16 << 20
"""Bytes read and written since somebody last asked that are progress; less is the chatter of an idle process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What one rank is at."""

    verb: str = ""
    """Name of the verb; empty: between two verbs."""
    part: str = ""
    """Part of the verb; empty: its beginning."""
    collective: str = ""
    """Name of the collective entered last in this part."""
    inside: bool = False
    """Whether the rank still waits in that collective."""
    count: int = 0
    """Parts and collectives entered since the verb began: all ranks go through the same ones, in one order."""
    since: float = 0.0
    """`time.monotonic()` of the last change."""

    def __str__(self) -> str:
        words = [self.part] if self.part else []
        if self.collective:
            words.append(f"{'in' if self.inside else 'after'} {self.collective} (number {self.count})")
        return ", ".join(words) or ("its beginning" if self.verb else "rest")


class Progress:
    """The note of one rank. Written by the thread that works, read by any."""

    def __init__(self) -> None:
        self._note = Note(since=time.monotonic())
        self._bytes, self._moved = _bytes_moved(), 0.0

    def read(self) -> tuple[Note, float]:
        """The note, and for how many seconds the rank has stood: its note did not change, and it read and wrote no files to speak
        of, as it does for long while it fetches a model or writes a checkpoint."""
        note, moved = self._note, _bytes_moved()
        if moved - self._bytes >= LEAST_BYTES:
            self._bytes, self._moved = moved, time.monotonic()
        return note, time.monotonic() - max(note.since, self._moved)

    @contextmanager
    def verb(self, name: str) -> Iterator[None]:
        """A verb that fails leaves its note where it failed."""
        self._note = Note(verb=name, since=time.monotonic())
        yield
        self._note = Note(since=time.monotonic())

    def at(self, part: str) -> None:
        """The next part of the verb begins."""
        before = self._note
        self._note = Note(verb=before.verb, part=part, count=before.count + 1, since=time.monotonic())

    def watch_collectives(self) -> None:
        """Note every collective that goes through DeepSpeed from now on."""
        from deepspeed.comm import comm

        for name in COLLECTIVES:
            if hasattr(comm.cdb, name):
                setattr(comm.cdb, name, self._watch(name, getattr(comm.cdb, name)))

    def _watch(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def collective(*args: Any, **kwargs: Any) -> Any:
            self._collective(name, inside=True)
            result = call(*args, **kwargs)
            self._collective(name, inside=False)
            return result

        return collective

    def _collective(self, name: str, inside: bool) -> None:
        before = self._note
        self._note = Note(
            verb=before.verb,
            part=before.part,
            collective=name,
            inside=inside,
            count=before.count + inside,
            since=time.monotonic(),
        )


def _bytes_moved() -> int:
    """Bytes that this process has read and written so far, from and to files and disks; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return sum(
        int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar", "read_bytes", "write_bytes"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankState:
    """One rank as the group sees it when a verb was not finished by all."""

    finished: bool = False
    """Whether it answered the verb."""
    died: str = ""
    """Why the rank's process ended; empty: it did not."""
    failed: str = ""
    """What the rank raised; empty: nothing."""
    note: Note | None = None
    """What the rank was at; None: it did not say."""
    seconds: float = 0.0
    """Seconds for which the note had not changed."""


def diagnosis(verb: str, ranks: Mapping[int, RankState], waited_s: float) -> str:
    """One line: which rank keeps the others from finishing `verb`, and what they are at.

    A rank that is gone explains the errors of its peers, so it is named before them; then one that raised something;
    then one that does not answer; then the one that got least far.
    """
    unfinished = {rank: state for rank, state in ranks.items() if not state.finished}
    died = {rank: state for rank, state in unfinished.items() if state.died}
    failed = {rank: state for rank, state in unfinished.items() if state.failed}
    silent = [rank for rank, state in unfinished.items() if state.note is None and not state.died]
    if died:
        text = "; ".join(f"rank {rank} died ({state.died})" for rank, state in died.items())
        causes = set(died)
    elif failed:
        rank = min(failed, key=lambda rank: _count(failed[rank]))
        text, causes = f"rank {rank} failed{_where(failed[rank])}: {failed[rank].failed}", {rank}
    elif silent:
        names = ", ".join(map(str, silent))
        text = f"waited {waited_s:.0f} s; rank {names} does not answer (stopped, starved, or its host is gone)"
        causes = set(silent)
    else:
        rank = min(unfinished, key=lambda rank: _count(unfinished[rank]))
        state = unfinished[rank]
        text = f"waited {waited_s:.0f} s; rank {rank} got least far{_where(state)} for {state.seconds:.0f} s"
        causes = {rank}
    return f"`{verb}` of {len(ranks)} learner ranks: {text}{_others(ranks, causes)}"


def _where(state: RankState) -> str:
    return f" at {state.note}" if state.note else ""


def _count(state: RankState) -> int:
    return state.note.count if state.note else 0


def _others(ranks: Mapping[int, RankState], causes: set[int]) -> str:
    """What the ranks are at that did not cause it; ranks at one place together."""
    places: dict[str, list[int]] = {}
    for rank, state in ranks.items():
        if rank not in causes:
            place = "finished" if state.finished else f"at {state.note}" if state.note else "without an answer"
            places.setdefault(place, []).append(rank)
    return "".join(
        f"; rank{'s' * (len(at) > 1)} {', '.join(map(str, at[:8]))}{' …' * (len(at) > 8)} {place}"
        for place, at in places.items()
    )
