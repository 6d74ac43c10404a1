"""The figures of an evaluation record, in the order and the words in which people read them. Plain values, nothing heavy.

A record is what `EvalResult.record` gives; those of older runs lack some keys.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from orchestrator.results.words import UNKNOWN, as_finite, decimal, percent

ACCURACIES = ("greedy", "pass@1", "cons@k")
"""Keys that are shares of problems, the most telling first."""
SHARES = {**{key: f"{key} accuracy" for key in ACCURACIES}, "win_rate": "win rate"}
"""Accuracies and the win rate → their names beside that of a set; a set without right answers has only a win rate."""

Record = Mapping[str, Any]

NO_FIGURES = {"step", "time", "problems", "k", "compared"}
"""Keys of an evaluation record whose numbers say what its figures were measured on, and are none themselves."""


def shares(record: Record) -> dict[str, float]:
    """Those of `SHARES` that an evaluation record has."""
    return {key: value for key in SHARES if (value := as_finite(record.get(key))) is not None}


def cons_name(records: Iterable[Record]) -> str:
    """`cons@4` where every record has the same k, else `cons@k`."""
    ks = {int(k) for record in records if (k := as_finite(record.get("k")))}
    return f"cons@{ks.pop()}" if len(ks) == 1 else "cons@k"


def label_names(records: Iterable[Record]) -> list[str]:
    """Reward functions that no other column shows, in order."""
    names: dict[str, None] = {}
    for record in records:
        for label in record.get("labels") or ():
            if label != record.get("correct") and label != "format":
                names[str(label)] = None
    return list(names)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a table: how it is read from a record, and how it is shown."""

    key: str
    """Name of the figure for programs; `labels.<label>` for the mean of a reward function."""
    head: str
    read: Callable[[Record], object]
    unit: Literal["%", "tokens", ""] = ""
    """`%`: the record holds a share between 0 and 1."""
    places: int = 3
    better: Literal["higher", ""] = ""
    """Direction in which the figure is better; empty: neither is better in itself, as for a length."""
    adds_up: bool = False
    """Over several sets the figure is a sum, not a mean."""

    def value(self, record: Record) -> float | None:
        """The figure in a record; None where it has none."""
        return as_finite(self.read(record))

    def cell(self, record: Record) -> str:
        """The figure in a record as text."""
        return self.show(self.value(record))

    def show(self, value: float | None) -> str:
        """The value as text, a share with its unit."""
        return percent(value) if self.unit == "%" else decimal(value, self.places)

    def bare(self, value: float | None) -> str:
        """The value as text without a unit, for a column whose head says it."""
        return self.show(value).removesuffix(" %")

    def change(self, difference: float) -> str:
        """A difference of two values as text with its sign, such as `+3.1`; percentage points for shares."""
        text = self.bare(abs(difference))
        return "±0" if not float(text.replace(",", "")) else f"{'+' if difference > 0 else '−'}{text}"


def columns(records: Iterable[Record]) -> list[Figure]:
    """Figures that a table of these evaluation records shows: those of every table, then those that some record has."""
    records = list(records)
    shown = [
        Figure("greedy", "greedy", _item("greedy"), "%", 1, "higher"),
        Figure("pass@1", "pass@1", _item("pass@1"), "%", 1, "higher"),
        Figure("cons@k", cons_name(records), _item("cons@k"), "%", 1, "higher"),
    ]
    if _measured(records, "win_rate"):
        shown.append(Figure("win_rate", "win rate", _item("win_rate"), "%", 1, "higher"))
    shown += [
        Figure("format", "format", _item("format"), "%", 1, "higher"),
        Figure("length_mean", "length", _item("length_mean"), "tokens", 1),
    ]
    taken = {figure.head for figure in shown}
    for label in label_names(records):
        shown.append(_label(label, taken))
    if any(record.get("reflection") for record in records):
        shown.append(Figure("reflection", "re-checks", _item("reflection"), "%", 1))
    if any(record.get("truncated") for record in records):
        shown.append(Figure("truncated", "truncated", _item("truncated"), "%", 1))
    if any(record.get("unscored") for record in records):
        shown.append(Figure("unscored", "unscored", _item("unscored"), places=0, adds_up=True))
    known = (
        {figure.key for figure in shown} | NO_FIGURES | {"truncated", "unscored", "reward", "reflection", "reflections"}
    )
    others = dict.fromkeys(str(key) for record in records for key in record if str(key) not in known)
    for key in others:
        if _measured(records, key):
            shown.append(Figure(key, key.replace("_", " "), _item(key)))
    return shown


def further_columns(records: Iterable[Record]) -> list[Figure]:
    """Figures that only a table of one set has room for: the mean of the whole rubric, and what its functions report."""
    records = list(records)
    shown = []
    if _measured(records, "reward"):
        shown.append(Figure("reward", "reward", _item("reward")))
    if any(record.get("reflections") for record in records):
        shown.append(Figure("reflections", "re-checks a thought", _item("reflections"), places=2))
    names = dict.fromkeys(str(name) for record in records for name in record.get("metrics") or ())
    shown += [Figure(f"metrics.{name}", name, partial(_inside, "metrics", name)) for name in names]
    return shown


def in_words(record: Record) -> list[str]:
    """The figures of a record for one line: `greedy 94.5 %`, `format 100.0 %`, …"""
    said = [(figure.head, figure.cell(record)) for figure in columns([record])]
    return [f"{head} {cell}" for head, cell in said if cell != UNKNOWN]


def _item(key: str) -> Callable[[Record], object]:
    return lambda record: record.get(key)


def _label(label: str, taken: set[str]) -> Figure:
    """The mean of a reward function; for `language_consistency` a share of words."""
    read = partial(_inside, "labels", label)
    if label == "language_consistency":
        return Figure(f"labels.{label}", "language", read, "%", 1, "higher")
    return Figure(f"labels.{label}", f"{label} (reward)" if label in taken else label, read, better="higher")


def _inside(table: str, name: str, record: Record) -> object:
    return (record.get(table) or {}).get(name)


def _measured(records: Iterable[Record], key: str) -> bool:
    return any(as_finite(record.get(key)) is not None for record in records)
