"""Is B better than A, and how sure: figures of several sides with intervals, and paired tests against the first side.

A problem counts for a figure where every run of every side has a value. All sides draw the same problems (bootstrap.py), so what is
said of their difference is of the same questions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.results.bootstrap import Estimate, estimate, over_runs, resampled_means
from orchestrator.results.columns import Figure
from orchestrator.results.evaluated import Evaluated
from orchestrator.results.outcomes import figures_of, fingerprint_of, outcomes_of, samples_of, values_of
from orchestrator.results.paired import Difference, difference, is_binary
from orchestrator.results.sides import Side, sides_of
from rollout.errors import InputError, did_you_mean

OVER_SETS = "mean over sets"
FEW_PROBLEMS = 30
"""With fewer an interval is too narrow, for the problems that were drawn are all that it knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One figure of one set."""

    figure: Figure
    problems: int
    """Problems that every side has a value of."""
    estimates: tuple[Estimate, ...]
    """Mean and interval of every side."""
    differences: tuple[Difference, ...]
    """Tests of every side but the first, against the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetComparison:
    """The figures of one set, or the mean over sets."""

    name: str
    problems: int
    rows: tuple[Compared, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    sides: tuple[Side, ...]
    sets: tuple[SetComparison, ...]
    left_out: tuple[str, ...]
    """Sets that not every side was evaluated on."""

    @property
    def notes(self) -> list[str]:
        """What a reader has to know beside the figures."""
        return list(_notes(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """A figure of one set before it is put in words: values and resampled means of every side."""

    figure: Figure
    problems: int
    values: tuple[np.ndarray, ...]
    """[R, P] of every side."""
    means: tuple[np.ndarray, ...]
    """[B] of every side."""


def compare(evaluated: Sequence[Evaluated], only: Sequence[str] = ()) -> Comparison:
    """Compare evaluations, grouped to sides; the first side is what the others are compared with.

    Args:
        only: sets to compare; empty: all that every side was evaluated on.

    Raises:
        InputError: one is named twice, they have no set in common, or a set of the same name holds different problems.
    """
    twice = [one.named for place, one in enumerate(evaluated) if one.named in [e.named for e in evaluated[:place]]]
    if twice:
        raise InputError(f"{twice[0]}: is named twice; it would be compared with itself")
    sides = sides_of(evaluated)
    every = dict.fromkeys(name for one in evaluated for name in one.records)
    shared = [name for name in every if all(name in one.records for one in evaluated)]
    for name in only:
        if name not in shared:
            raise InputError(
                f"--set {name}: not a set of every run{did_you_mean(name, shared)}; all have: {', '.join(shared) or 'none'}"
            )
    if not shared:
        listed = "; ".join(f"{one.named}: {', '.join(one.records)}" for one in evaluated)
        raise InputError(
            f"no evaluation set in common ({listed}); `rayzero eval MODEL --set NAME=PATH` measures all on one"
        )
    chosen = [name for name in shared if not only or name in only]
    for name in chosen:
        _check_same(name, evaluated)
    drawn = {name: _draw(sides, name, seed) for seed, name in enumerate(chosen)}
    sets = [
        SetComparison(name=name, problems=_problems(sides[0], name), rows=tuple(map(_compared, rows)))
        for name, rows in drawn.items()
    ]
    if len(sets) > 1 and (rows := _over_sets(drawn)):
        sets.append(SetComparison(name=OVER_SETS, problems=sum(each.problems for each in sets), rows=tuple(rows)))
    return Comparison(
        sides=tuple(sides),
        sets=tuple(each for each in sets if each.rows),
        left_out=tuple(name for name in every if name not in shared),
    )


def _check_same(name: str, evaluated: Sequence[Evaluated]) -> None:
    """Raises InputError: the evaluations of a set kept nothing to compare by, or are of different problems."""
    first = evaluated[0]
    for one in evaluated:
        if not fingerprint_of(one.records[name]):
            raise InputError(
                f"{one.named}: its evaluation of {name!r} is of an earlier version, which kept nothing of each problem\n"
                "measure the model again with `rayzero eval … --out FILE` and compare the files"
            )
        if fingerprint_of(one.records[name]) != fingerprint_of(first.records[name]):
            counts = [f"{int(each.records[name].get('problems') or 0):,}" for each in (first, one)]
            raise InputError(
                f"{name!r} holds different problems in {first.named} ({counts[0]}) and {one.named} ({counts[1]}), so their figures "
                "cannot be compared\nname sets that agree with --set NAME, or measure both on one file with `rayzero eval`"
            )


def _problems(side: Side, name: str) -> int:
    return int(side.runs[0].records[name].get("problems") or 0)


def _draw(sides: Sequence[Side], name: str, seed: int) -> list[_Drawn]:
    """Every figure that all sides have, with means over the same resamples of the set's problems."""
    records = [run.records[name] for side in sides for run in side.runs]
    k = min(samples_of(record) for record in records)
    votes = all("votes" in outcomes_of(record) for record in records)
    runs = np.repeat(np.arange(len(sides)), [len(side.runs) for side in sides])
    kept: list[tuple[Figure, np.ndarray]] = []
    for figure in figures_of(k, votes=votes):
        columns = [values_of(record, figure.key) for record in records]
        known = [column for column in columns if column is not None]
        if len(known) < len(columns):
            continue
        values = np.array(known)
        values[:, np.isnan(values).any(axis=0)] = np.nan
        # Words that nobody says are no figure.
        if not np.isnan(values).all() and (figure.key != "reflections" or np.nansum(values)):
            kept.append((figure, values))
    if not kept:
        return []
    means = resampled_means(np.concatenate([values for _, values in kept]), seed).reshape(len(kept), len(records), -1)
    found = []
    for (figure, values), each in zip(kept, means, strict=True):
        found.append(
            _Drawn(
                figure=figure,
                problems=int((~np.isnan(values[0])).sum()),
                values=tuple(values[runs == side] for side in range(len(sides))),
                # Of every set the same runs are drawn.
                means=tuple(over_runs(each[runs == side], seed=side + 1) for side in range(len(sides))),
            )
        )
    return found


def _compared(drawn: _Drawn, *, problems: bool = True) -> Compared:
    """`problems`: the values are of problems, not means of sets."""
    pairs = list(zip(drawn.values, drawn.means, strict=True))
    (first, first_means), *others = pairs
    return Compared(
        figure=drawn.figure,
        problems=drawn.problems,
        estimates=tuple(estimate(float(np.nanmean(values)), means) for values, means in pairs),
        differences=tuple(
            difference(first, values, first_means, means, exact=problems and is_binary(first, values))
            for values, means in others
        ),
    )


def _over_sets(drawn: dict[str, list[_Drawn]]) -> list[Compared]:
    """Means over sets, in which every set counts the same, of the figures that all sets have."""
    by_set = [{each.figure.key: each for each in rows} for rows in drawn.values()]
    found = []
    for key, first in by_set[0].items():
        each = [rows[key] for rows in by_set if key in rows]
        if len(each) < len(by_set):
            continue
        sides = range(len(first.values))
        # One "problem" a set: values are the set's means, and the resamples those of its problems.
        values = tuple(np.array([[np.nanmean(one.values[side]) for one in each]]) for side in sides)
        means = tuple(np.mean([one.means[side] for one in each], axis=0) for side in sides)
        joined = _Drawn(figure=first.figure, problems=sum(one.problems for one in each), values=values, means=means)
        found.append(_compared(joined, problems=False))
    return found


def _notes(comparison: Comparison) -> Iterator[str]:
    sides = comparison.sides
    if len(sides) > 1 and any(len(side.runs) == 1 for side in sides):
        yield (
            "One run of a side says how good this one model is, not whether its recipe would do as well with another seed: "
            "give several seeds of each."
        )
    for side in sides:
        seeds = [run.seed for run in side.runs if run.seed is not None]
        if len(set(map(str, seeds))) < len(seeds):
            yield f"{side.letter} has a seed twice: the two runs are hardly two."
    tests = sum(len(row.differences) for each in comparison.sets for row in each.rows if row.figure.better)
    if tests > 1:
        yield f"Among {tests} tests one in twenty is below p = 0.05 by chance: decide before you look which figure counts."
    few = [each.name for each in comparison.sets if 0 < each.problems < FEW_PROBLEMS]
    if few:
        yield f"{', '.join(few)}: fewer than {FEW_PROBLEMS} problems; the intervals are too narrow rather than too wide."
    if comparison.left_out:
        yield f"Not of every run, and left out: {', '.join(comparison.left_out)}."
