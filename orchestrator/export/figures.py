"""The figures that a run has recorded of one model of a stage."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.config.sections.data import SourceSection
from orchestrator.export.best import LOSS
from orchestrator.export.chosen import Chosen
from orchestrator.results.columns import SHARES, columns
from orchestrator.results.words import as_finite, decimal, percent
from rollout.data.rows import HUB


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One figure of one set."""

    set: str
    dataset: str
    """Name of the set on the hub, or else of the set in the recipe."""
    of: str
    """What it is a figure of: `100 problems`."""
    metric: str
    words: str
    value: float
    """The figure; a share in per cent."""
    shown: str
    rated: bool = True
    """Whether it says how good the model is, as a length does not."""


def readings(chosen: Chosen) -> list[Reading]:
    """What its own stage has measured of the model that is meant."""
    return [*_of_problems(chosen), *_of_pairs(chosen), *_of_examples(chosen)]


def _of_problems(chosen: Chosen) -> Iterator[Reading]:
    for record in chosen.record.evals:
        if record["step"] != chosen.step or record.get("label") == "before":
            continue
        name, problems = str(record.get("set")), int(as_finite(record.get("problems")) or 0)
        for figure in columns([record]):
            value = figure.value(record)
            if value is None or (figure.better != "higher" and figure.key != "length_mean"):
                continue
            yield Reading(
                set=name,
                dataset=_dataset(chosen, name),
                of=f"{problems:,} problems",
                metric="accuracy" if figure.key == "greedy" else figure.key,
                words=SHARES.get(figure.key, figure.head) + (f" (k = {record['k']})" if figure.key == "cons@k" else ""),
                value=100 * value if figure.unit == "%" else value,
                shown=figure.show(value) + (" tokens" if figure.unit == "tokens" else ""),
                rated=figure.better == "higher",
            )


def _of_pairs(chosen: Chosen) -> Iterator[Reading]:
    for record in chosen.record.pair_evals:
        if record["step"] != chosen.step or record.get("label") == "before":
            continue
        name, pairs = str(record.get("set")), int(as_finite(record.get("pairs")) or 0)
        for key, words in (("accuracy", "share of pairs in order"), ("log_loss", "log-loss of a pair, nats")):
            if (value := as_finite(record.get(key))) is not None:
                share = key == "accuracy"
                yield Reading(
                    set=name,
                    dataset=_dataset(chosen, name),
                    of=f"{pairs:,} pairs",
                    metric=key,
                    words=words,
                    value=100 * value if share else value,
                    shown=percent(value) if share else decimal(value, 3),
                )


def _of_examples(chosen: Chosen) -> Iterator[Reading]:
    for record in chosen.record.steps:
        if record["step"] != chosen.step:
            continue
        for key in record:
            if key.startswith(LOSS) and (value := as_finite(record[key])) is not None:
                name = key.removeprefix(LOSS)
                yield Reading(
                    set=name,
                    dataset=_dataset(chosen, name),
                    of="worked examples",
                    metric="loss",
                    words="held-out loss of a token, nats",
                    value=value,
                    shown=decimal(value, 3),
                )


def hub_set(source: SourceSection) -> str:
    """Name of a data set on the hub; empty for any other source."""
    return source.path.removeprefix(HUB) if source.path.startswith(HUB) else ""


def _dataset(chosen: Chosen, name: str) -> str:
    section = chosen.stage.eval.sets.get(name)
    return (hub_set(section) if section else "") or re.sub(r"[^\w.-]+", "-", name)
