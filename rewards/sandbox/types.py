"""What the sandbox takes and gives: limits, tests, runs, results, and what can go wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from rewards.types import Unavailable
from rollout.errors import InputError, ServiceError

Tier = Literal["A", "B", "weak"]
"""`A`: namespaces and seccomp; `B`: Landlock and seccomp; `weak`: less than that, only on demand."""

MEGABYTE = 1 << 20


class SandboxUnavailable(Unavailable):
    """No tier that was asked for works here; the message names what is missing and the way out."""


class SandboxFault(ServiceError):
    """The sandbox itself failed; it says nothing about the program."""


class BrokenPackage(InputError):
    """A package that programs are to have cannot be imported where they run."""


class BrokenTests(InputError):
    """The tests themselves are no Python, or none at all; it says nothing about the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one program."""

    test_s: float = 6.0
    """Wall time of one test, start of its process included."""
    total_s: float = 60.0
    """Wall time of all tests of a program together."""
    memory_mb: int = 512
    """Memory of all processes of the program together."""
    file_mb: int = 16
    """Size of the largest file, standard output included."""
    processes: int = 16
    """Processes and threads at any time (tier A; without namespaces there is one process)."""


class Tolerance(NamedTuple):
    """How far a number may be from one that a test expects, where either has a fraction: by the larger of the two parts."""

    relative: float = 1e-5
    """Share of the expected number. Not for a whole one: of it a share may be the next whole number."""
    absolute: float = 1e-8


RunOutcome = Literal["exited", "signal", "timeout", "memory", "output", "broken"]
"""How a run came to its end. `broken`: the text does not compile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a program on one input."""

    outcome: RunOutcome
    code: int = 0
    """Exit status of the program, or number of the signal that ended it."""
    stdout: bytes = b""
    reason: str = ""
    """Last line of standard error, or what the compiler said."""
    seconds: float = 0.0


TestOutcome = Literal["pass", "fail", "unsupported", "timeout", "memory", "missing"]
"""`missing`: the program asked for a package that is not in the sandbox. Not passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionResult:
    """How one assertion-style test ended."""

    outcome: TestOutcome
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertions:
    """Assertion-style tests of one program, as the cell that runs them takes them."""

    setup: str = ""
    """Code that runs before the tests, beside them. What it defines wins over names of the program's, but for `entry_point`."""
    entry_point: str = ""
    tests: Sequence[dict[str, Any]]
    """Tests, each `{"code": …}` or `{"function": name, "arguments": […], "expected": [any of these, …]}`. Arguments and
    expected values are those of JSON, where keys are text: where all keys of a dictionary are whole numbers, both are tried."""
    tolerance: Tolerance = field(default_factory=Tolerance)
    """How far the numbers that functions return may be off; assertions compare by themselves."""
    stop: bool = True
    """Whether to end at the first failure."""
