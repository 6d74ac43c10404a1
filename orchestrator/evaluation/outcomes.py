"""What an evaluation keeps of every problem, so that intervals and paired tests can be made from a run's files alone.

30 bytes a problem with 4 samples, 70 with 64: counts, not texts. Which problems they were is one digest: only runs with the same can be compared.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewards.math.exact import groups_of_equals
from rewards.types import ScoredGroup
from rollout.types import Prompt

DIGITS = 4
"""Decimals that are kept of means of a problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """How the samples of one problem voted. Answers of equal value are one; no answer is no vote."""

    right: int
    """Votes for the right answer; 0: none was right."""
    others: tuple[int, ...]
    """Votes for each other answer, most first."""
    majority: bool
    """Whether the right answer has most votes; the earliest sample wins a tie."""


def votes_of(group: ScoredGroup, right: Sequence[bool]) -> Votes:
    """The votes of a group. `right`: [G'] whether each score is of a right completion."""
    voting = [number for number, score in enumerate(group.scores) if score.extracted]
    equals = groups_of_equals([group.scores[number].extracted for number in voting])
    # One that names a second answer besides is wrong, but what it votes for is not.
    good = {vote for vote, number in zip(equals, voting, strict=True) if right[number]}
    # All right ones equal the reference, also where only the symbolic check could tell.
    votes = Counter(min(good) if vote in good else vote for vote in equals)
    others = sorted((count for vote, count in votes.items() if vote not in good), reverse=True)
    return Votes(
        right=sum(count for vote, count in votes.items() if vote in good),
        others=tuple(others),
        majority=bool(votes) and max(votes, key=lambda vote: votes[vote]) in good,
    )


def fingerprint(prompts: Sequence[Prompt]) -> str:
    """Digest of what was asked, in order: questions, answers and baselines, however the questions were rendered."""
    digest = hashlib.blake2b(digest_size=8)
    for prompt in prompts:
        baseline = prompt.baseline.text if prompt.baseline else ""
        digest.update(json.dumps([prompt.question or prompt.text, prompt.answer, baseline]).encode())
    return digest.hexdigest()


def outcomes_record(prompts: Sequence[Prompt], columns: dict[str, Sequence[Any]]) -> dict[str, Any]:
    """The record: the digest, and every column that says something of some problem.

    Args:
        columns: [P] each, a value a problem; None where there is none.
    """
    kept = {name: [_short(value) for value in values] for name, values in columns.items()}
    return {
        "fingerprint": fingerprint(prompts),
        **{name: values for name, values in kept.items() if any(value is not None for value in values)},
    }


def _short(value: Any) -> Any:
    if isinstance(value, float):
        value = round(value, DIGITS)
        return int(value) if value.is_integer() else value
    return value
