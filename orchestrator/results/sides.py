"""The sides of a comparison: evaluations of one recipe at the same place, whatever their seeds, are one side."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.keys import flat
from orchestrator.results.evaluated import Evaluated
from orchestrator.results.words import UNKNOWN
from orchestrator.run.resume import is_free

_ASIDE = ("seed", "description", "cluster", "track", "tracking", "faults")
"""Parts of a recipe that two runs of one side may differ in."""
_SHOWN = 60
"""Characters of a value that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Evaluations that count as one, such as seeds of a recipe."""

    letter: str
    """`A` for the first, which the others are compared with."""
    name: str
    runs: tuple[Evaluated, ...]

    @property
    def words(self) -> str:
        """Name and runs: `arithmetic (seeds 1, 2, 3)`."""
        seeds = [str(run.seed) for run in self.runs if run.seed is not None]
        if not seeds:
            return self.name
        return f"{self.name} ({'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)})"


def sides_of(evaluated: Sequence[Evaluated]) -> list[Side]:
    """The sides in the order in which they first occur."""
    groups: dict[str, list[Evaluated]] = {}
    for one in evaluated:
        groups.setdefault(_key(one), []).append(one)
    found = list(groups.values())
    names = next(names for names in _names(found) if len(set(names)) == len(names))
    return [
        Side(letter=_letter(place), name=name, runs=tuple(runs))
        for place, (name, runs) in enumerate(zip(names, found, strict=True))
    ]


def _key(one: Evaluated) -> str:
    """What evaluations of one side have in common."""
    if not one.recipe:
        return one.named
    kept = {name: value for name, value in settings(one).items() if not is_free(name.partition("/")[2])}
    return json.dumps([kept, one.stage, one.step], sort_keys=True, default=str)


def settings(one: Evaluated) -> dict[str, Any]:
    """The recipe as `STAGE/KEY`, and keys of no stage as `/KEY`, without what may differ between runs of one side."""
    whole = {f"/{name}": value for name, value in one.recipe.items() if name not in (*_ASIDE, "stages")}
    stages = [stage for stage in one.recipe.get("stages", ()) if isinstance(stage, dict)]
    return whole | {f"{stage.get('name')}/{key}": value for stage in stages for key, value in flat(stage).items()}


def _names(groups: Sequence[Sequence[Evaluated]]) -> Iterator[list[str]]:
    """Names for all sides, from short to certain."""
    firsts = [group[0] for group in groups]
    recipes = [str(one.recipe.get("name", one.named)) for one in firsts]
    yield recipes
    staged = [f"{name}/{one.stage}" if one.stage else name for name, one in zip(recipes, firsts, strict=True)]
    yield staged
    yield [name if one.step is None else f"{name}@{one.step}" for name, one in zip(staged, firsts, strict=True)]
    yield [Path(one.named).name for one in firsts]
    yield [one.named for one in firsts]
    yield [f"{one.named} ({place})" for place, one in enumerate(firsts, start=1)]


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"S{place + 1}"


def differences(a: Side, b: Side) -> list[str]:
    """Settings that differ: `learner.lr: 1e-05 → 3e-05`, those of several stages once; empty too where there is no recipe."""
    first, second = (settings(side.runs[0]) for side in (a, b))
    if not first or not second:
        return []
    stages = [{key.partition("/")[0] for key in each} for each in (first, second)]
    found: dict[str, None] = {}
    for key in dict.fromkeys((*first, *second)):
        stage, _, name = key.partition("/")
        if name == "name" or first.get(key) == second.get(key) or not all(stage in each for each in stages):
            continue
        found[f"{name}: {_shown(first, key)} → {_shown(second, key)}"] = None
    own, others = stages
    apart = [*((name, a) for name in sorted(own - others)), *((name, b) for name in sorted(others - own))]
    return [*found, *(f"stage {name}: only in {side.letter}" for name, side in apart)]


def _shown(values: dict[str, Any], key: str) -> str:
    text = json.dumps(values[key], ensure_ascii=False, default=str) if key in values else UNKNOWN
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
