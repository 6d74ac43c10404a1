"""Small generated tasks with known answers: problems for a first run that needs no download.

A task is a function `(split, seed, limit, options) → iterator of (problem id, question, answer, worked completion)`.
The split of a problem is a property of the problem, so a held-out problem cannot occur in training, whatever the seed.
"""

from collections.abc import Callable, Iterator, Mapping

from rollout.errors import InputError
from rollout.tasks.arithmetic import arithmetic_rows

TaskRow = tuple[str, str, str, str]
TaskOptions = Mapping[str, int | float | str | bool]

TASKS: dict[str, Callable[[str, int, int, TaskOptions], Iterator[TaskRow]]] = {"arithmetic": arithmetic_rows}


def task_rows(name: str, split: str, seed: int, limit: int, options: TaskOptions) -> Iterator[TaskRow]:
    """Rows of a generated task. Raises InputError for an unknown task, split or option."""
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}; tasks: {', '.join(sorted(TASKS))}")
    if split not in ("train", "held-out"):
        raise InputError(f"task {name!r} has no split {split!r}; splits: train, held-out")
    return TASKS[name](split, seed, limit, options)
