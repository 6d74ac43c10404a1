"""Batches of another trainer in ours: completions a batch, groups, optimizer steps.

Everybody counts otherwise: TRL in completions of a device, verl in prompts, OpenRLHF in prompts for a batch and in
completions for an optimizer step. Here a batch is groups × completions of each, and is cut into optimizer steps by groups.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.convert.beside import find_beside

REGROUPED = (8, 4, 2)
"""Sizes of the groups that completions of one prompt each are put into, the first that divides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How a stage learns, in the keys of a recipe."""

    groups: int
    """`loop.groups_per_step`."""
    group_size: int
    """`rollout.group_size`."""
    mini_batches: int
    """`learner.mini_batches`: optimizer steps of a batch."""
    steps: int
    """`loop.steps`: batches; 0: not known."""
    notes: tuple[str, ...] = ()
    """What differs from the batches that were asked for."""

    @property
    def completions(self) -> int:
        """Completions of a batch."""
        return self.groups * self.group_size


def batches_of(*, prompts: int, samples: int, per_step: int, optimizer_steps: int) -> Batches:
    """The batches that compute what another trainer's do.

    Args:
        prompts: of a batch, each sampled `samples` times.
        samples: completions of a prompt.
        per_step: completions of an optimizer step.
        optimizer_steps: of the whole training; 0: not known.
    """
    notes = []
    if samples < 2:
        size = next((size for size in REGROUPED if prompts % size == 0 and per_step % size == 0), 2)
        notes.append(
            f"one completion a prompt has no group to be compared with: groups of {size}, and so many fewer prompts in a "
            "batch; completions are as many"
        )
        prompts, samples = max(1, prompts // size), size
    wanted = prompts * samples / per_step
    parts = min(max(1, math.ceil(wanted)), prompts)
    if parts != wanted:
        notes.append(
            f"an optimizer step is made of {prompts * samples / parts:,.6g} completions, not of {per_step:,}: a batch of "
            f"{prompts:,} groups of {samples:,} is cut between groups"
        )
    elif prompts % parts:
        notes.append(f"{prompts:,} groups are cut into {parts:,} optimizer steps, not all of one size")
    steps = math.ceil(optimizer_steps / parts)
    if steps * parts != optimizer_steps:
        notes.append(f"{steps * parts:,} optimizer steps in place of {optimizer_steps:,}: batches are whole")
    return Batches(groups=prompts, group_size=samples, mini_batches=parts, steps=steps, notes=tuple(notes))


PUBLISHED_ROWS = {"gsm8k": 7473}
"""Name that is a part of a path or hub id → rows of its training split, as published."""


def rows_here(paths: Sequence[str], folder: Path) -> int:
    """Rows of files that are on this machine; 0: at least one is not, or cannot be read.

    Args:
        paths: as they are written, relative to `folder` or to where the command runs.
        folder: of the file that names them.
    """
    # Only here: brings pyarrow.
    from rollout.data.readers import reader_of

    total = 0
    for path in paths:
        file = find_beside(folder, [path])
        reader = reader_of(file) if file else None
        if file is None or reader is None:
            return 0
        try:
            total += sum(1 for _ in reader(file))
        except (ValueError, OSError):
            # The check of the recipe tells what is wrong with it.
            return 0
    return total


def published_rows(paths: Sequence[str]) -> int:
    """Rows of published training splits, told by their names; 0: at least one is not known."""
    sizes = [next(_sizes(path), 0) for path in paths]
    return sum(sizes) if all(sizes) else 0


def _sizes(path: str) -> Iterator[int]:
    parts = [part.lower() for part in Path(path).parts]
    return (size for name, size in PUBLISHED_ROWS.items() if name in parts)
