"""What a generated task yields, and how its options are read."""

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rollout.errors import InputError, did_you_mean

TaskOption = int | float | str | bool
TaskOptions = Mapping[str, TaskOption]

HELD_OUT_SHARE = 10
"""One problem in so many is held out."""


class TaskRow(NamedTuple):
    problem_id: str
    """Name of the problem, the same whatever its wording."""
    question: str
    answer: str
    """The right answer; empty where the task has none."""
    completion: str
    """A worked completion."""
    chosen: str = ""
    """The better of two responses; empty where the task makes no preference pairs."""
    rejected: str = ""
    """The worse of two responses; empty where the task makes no preference pairs."""


def is_held_out(problem: str) -> bool:
    """Whether a problem, written in a way that does not depend on its wording, is held out."""
    return zlib.crc32(problem.encode()) % HELD_OUT_SHARE == 0


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one task. Every reader raises InputError that names task, option, value and what it may be."""

    task: str
    given: TaskOptions

    def check_names(self, *names: str) -> None:
        for name in self.given:
            if name not in names:
                raise InputError(
                    f"task {self.task!r} has no option {name!r}{did_you_mean(name, names)}; options: {', '.join(sorted(names))}"
                )

    def whole(self, name: str, default: int, low: int, high: int | None = None) -> int:
        value = self.given.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
            span = f"from {low} to {high}" if high is not None else f"from {low}"
            raise InputError(f"task {self.task!r}: {name} = {value!r}; give a whole number {span}")
        return value

    def share(self, name: str, default: float) -> float:
        value = self.given.get(name, default)
        if isinstance(value, str | bool) or not 0 <= value <= 1:
            raise InputError(f"task {self.task!r}: {name} = {value!r}; give a share between 0 and 1")
        return float(value)

    def one_of(self, name: str, default: str, choices: Collection[str]) -> str:
        value = self.given.get(name, default)
        if value not in choices:
            quoted = " or ".join(f"'{choice}'" for choice in choices)
            raise InputError(f"task {self.task!r}: {name} = {value!r}; give {quoted}")
        return str(value)
