"""How numbers are put in words, wherever a run is shown: shares, times, sizes."""

import math

from orchestrator.run.record import as_number

UNKNOWN = "–"
"""What stands for a number that is not known."""


def as_finite(value: object) -> float | None:
    """The value as a float; None where it is no finite number."""
    number = as_number(value)
    return number if number is not None and math.isfinite(number) else None


def percent(value: object, digits: int = 1) -> str:
    """A share between 0 and 1: `71.2 %`."""
    number = as_finite(value)
    return UNKNOWN if number is None else f"{100 * number:.{digits}f} %"


def decimal(value: object, digits: int = 1) -> str:
    """A number with so many digits behind the point: `1,250.5`."""
    number = as_finite(value)
    return UNKNOWN if number is None else f"{number:,.{digits}f}"


def duration(seconds: float) -> str:
    """How long something took: `4.2 s`, `34 s`, `2 min 05 s`, `3 h 07 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 9.95 or not seconds else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def age(seconds: float) -> str:
    """How long ago something was, in one unit: `90 s`, `45 min`, `3 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def parameter_words(count: int) -> str:
    """The size of a model: `494 million parameters`; empty for 0, which stands for a size that is not known."""
    if count < 1_000_000:
        return f"{count:,} parameters" if count else ""
    size, word = (count / 1e9, "billion") if count >= 1e9 else (count / 1e6, "million")
    return f"{size:.3g} {word} parameters"
