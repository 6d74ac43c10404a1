"""The generated tasks by name.

A task is a function `(split, seed, limit, options) → iterator of TaskRow`. The split of a problem is a property of the
problem, so a held-out problem cannot occur in training, whatever the seed.
"""

from collections.abc import Callable, Iterator

from rollout.data.tasks.arithmetic import arithmetic_rows
from rollout.data.tasks.manners import manners_rows
from rollout.data.tasks.puzzles import puzzle_rows
from rollout.data.tasks.rows import TaskOptions, TaskRow
from rollout.errors import InputError

TASKS: dict[str, Callable[[str, int, int, TaskOptions], Iterator[TaskRow]]] = {
    "arithmetic": arithmetic_rows,
    "manners": manners_rows,
    "puzzles": puzzle_rows,
}


def task_rows(name: str, split: str, seed: int, limit: int, options: TaskOptions) -> Iterator[TaskRow]:
    """Rows of a generated task. Raises InputError for an unknown task, split or option."""
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}; tasks: {', '.join(sorted(TASKS))}")
    if split not in ("train", "held-out"):
        raise InputError(f"task {name!r} has no split {split!r}; splits: train, held-out")
    return TASKS[name](split, seed, limit, options)
