"""Selection of rejection sampling: which samples of a model are kept to learn from, and why the others are dropped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from orchestrator.config.sections.kinds import RejectSection
from orchestrator.data.similarity import near_duplicates

SampledRow = dict[str, Any]
"""One sample of rejection sampling and what is known of it (columns: orchestrator/run/sampled_rows.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The samples that are kept, and how many were dropped for which reason."""

    kept: list[SampledRow]
    """In the order of the samples."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason → samples; with what is kept they are all samples."""
    prompts: int = 0
    prompts_kept: int = 0
    """Prompts of which at least one sample is kept."""


def select(samples: Sequence[SampledRow], settings: RejectSection) -> Selection:
    """Filter, keep by rule, drop near-duplicates; in this order, each sample for the first reason that holds.

        truncated        cut at the token limit
        empty            says nothing, or nothing without the thought that its source does not keep
        wrong            not right, where the rule asks for it
        <flag>           one of `settings.filters`, raised by the readability reward (rewards/text/readability.py)
        surplus          the rule keeps others of its prompt
        near_duplicate   says nearly what a sample says that is kept

    `samples`: those of a prompt next to each other.
    """
    dropped: Counter[str] = Counter()
    kept: list[SampledRow] = []
    prompts = 0
    for _, group in groupby(samples, key=lambda row: row["prompt_id"]):
        prompts += 1
        fit = []
        for row in group:
            reason = _reason_to_drop(row, settings)
            if reason:
                dropped[reason] += 1
            else:
                fit.append(row)
        chosen = _choose(fit, settings)
        dropped["surplus"] += len(fit) - len(chosen)
        kept += chosen
    doubles = near_duplicates([f"{row['prompt']}\n{row['completion']}" for row in kept], settings.near_duplicate)
    dropped["near_duplicate"] += sum(doubles)
    kept = [row for row, double in zip(kept, doubles, strict=True) if not double]
    return Selection(kept=kept, dropped=+dropped, prompts=prompts, prompts_kept=len({row["prompt_id"] for row in kept}))


def _reason_to_drop(row: SampledRow, settings: RejectSection) -> str:
    """The first reason that holds for a sample by itself; empty: none."""
    if row["finish_reason"] == "length":
        return "truncated"
    if not row["completion"].strip():
        return "empty"
    if settings.keep != "best" and not row["right"]:
        return "wrong"
    return next((flag for flag in settings.filters if flag in row["flags"]), "")


def _choose(fit: list[SampledRow], settings: RejectSection) -> list[SampledRow]:
    """The samples of a prompt that the rule keeps; ties go to the earlier one."""
    match settings.keep:
        case "right":
            ranked = list(range(len(fit)))
        case "best":
            ranked = sorted(range(len(fit)), key=lambda i: -fit[i]["reward"])
        case "shortest":
            ranked = sorted(range(len(fit)), key=lambda i: fit[i]["num_tokens"])
    return [fit[i] for i in sorted(ranked[: settings.keep_at_most])]
