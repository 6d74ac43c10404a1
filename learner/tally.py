"""Figures of packs and ranks put together."""

from collections.abc import Iterable, Mapping


def merged(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """`*_min` the smallest, `*_max` the largest, everything else summed."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            if name not in total:
                total[name] = value
            elif is_extreme(name):
                total[name] = (min if name.endswith("_min") else max)(total[name], value)
            else:
                total[name] += value
    return total


def is_extreme(name: str) -> bool:
    return name.endswith(("_min", "_max"))
