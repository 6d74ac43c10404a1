"""The figures of an evaluation record, in the order and the words in which people read them. Plain values, nothing heavy.

A record is what `EvalResult.record` gives; those of older runs lack some keys.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

ACCURACIES = ("greedy", "pass@1", "cons@k")
"""Keys that are shares of problems, the most telling first."""
SHARES = {**{key: f"{key} accuracy" for key in ACCURACIES}, "win_rate": "win rate"}
"""The same and the win rate, with their names beside a set's; without right answers a set has only the latter."""

Record = Mapping[str, Any]


def percent(value: object) -> str:
    number = _number(value)
    return "–" if number is None else f"{100 * number:.1f} %"


def decimal(value: object, digits: int = 1) -> str:
    number = _number(value)
    return "–" if number is None else f"{number:,.{digits}f}"


def cons_name(records: Iterable[Record]) -> str:
    """`cons@4` where every record has the same k, else `cons@k`."""
    ks = {int(k) for record in records if (k := _number(record.get("k")))}
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
class Column:
    """One figure of a table."""

    head: str
    cell: Callable[[Record], str]


def columns(records: Iterable[Record]) -> list[Column]:
    """What a table of such records shows."""
    records = list(records)
    compared = any(_number(record.get("win_rate")) is not None for record in records)
    shown = [
        Column("greedy", lambda record: percent(record.get("greedy"))),
        Column("pass@1", lambda record: percent(record.get("pass@1"))),
        Column(cons_name(records), lambda record: percent(record.get("cons@k"))),
        *([Column("win rate", lambda record: percent(record.get("win_rate")))] if compared else []),
        Column("format", lambda record: percent(record.get("format"))),
        Column("length", lambda record: decimal(record.get("length_mean"))),
    ]
    if any(record.get("truncated") for record in records):
        shown.append(Column("truncated", lambda record: percent(record.get("truncated"))))
    taken = {column.head for column in shown}
    for label in label_names(records):
        shown.append(Column(f"{label} (reward)" if label in taken else label, partial(_label, label)))
    if any(record.get("unscored") for record in records):
        shown.append(Column("unscored", lambda record: decimal(record.get("unscored"), 0)))
    return shown


def in_words(record: Record) -> list[str]:
    """`greedy 94.5 %`, `format 100.0 %`, …: what there is, for one line."""
    said = [(column.head, column.cell(record)) for column in columns([record])]
    return [f"{head} {cell}" for head, cell in said if cell != "–"]


def _label(label: str, record: Record) -> str:
    return decimal((record.get("labels") or {}).get(label), 3)


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]
