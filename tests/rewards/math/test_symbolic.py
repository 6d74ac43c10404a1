"""The last rung, in its processes: the whole corpus through `verdict`, and what hostile expressions cost."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from rewards.math.verdict import SYMBOLIC, Verdict, verdict
from rewards.processes.pool import KillablePool, Outcome
from tests.rewards.math.corpus import ONE_WAY, RESPONSES, RIGHT, WRONG

Row = tuple[str, str, str | None, str]


def boxed(answer: str) -> str:
    return f"So the result is $\\boxed{{{answer}}}$."


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    async def run() -> list[Verdict]:
        async with KillablePool(2, preload=(SYMBOLIC,), start_timeout_s=300) as pool:
            return await asyncio.gather(*(verdict(row[0], row[1], pool, pattern=row[2], deadline_s=30) for row in rows))

    return asyncio.run(run())


def test_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verdict as it must be, in both directions, and nothing that an answer names is done."""
    monkeypatch.chdir(tmp_path)
    rows: list[Row] = [(boxed(answer), gold, None, "correct") for answer, gold in RIGHT]
    rows += [(boxed(answer), gold, None, "wrong") for answer, gold in WRONG]
    # The other way round too, but for bases and choices, where the reference says which form is asked for.
    rows += [
        (boxed(gold), answer, None, status)
        for pairs, status in ((RIGHT, "correct"), (WRONG, "wrong"))
        for answer, gold in pairs
        if (answer, gold) not in ONE_WAY
        and "_2" not in answer + gold
        and "_{2}" not in answer + gold
        and len(answer) < 1500
    ]
    rows += RESPONSES
    assert len(WRONG) + sum(row[3] != "correct" for row in RESPONSES) >= 150
    found = verdicts(rows)
    assert [(row[0][-80:], row[1], row[3], v) for row, v in zip(rows, found, strict=True) if v.status != row[3]] == []
    assert list(tmp_path.iterdir()) == []


class Scripted:
    """A pool that answers as it is told."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.left = list(outcomes)

    async def call(self, function: str, args: Sequence[object], *, deadline_s: float) -> Outcome:
        return self.left.pop(0)


def outcome(kind: str, value: object = None) -> Outcome:
    return Outcome(kind=kind, value=value, error=f"it {kind}", queue_s=0.0, run_s=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "outcomes", "status"),
    [
        (1, ["timeout"], "timeout"),
        (2, ["crashed", "ok"], "correct"),
        (3, ["crashed", "timeout"], "timeout"),
        (4, ["crashed", "crashed"], "error"),
        (5, ["raised"], "error"),
    ],
)
def test_what_becomes_of_an_outcome(number: int, outcomes: list[str], status: str) -> None:
    pool = Scripted(*(outcome(kind, True) for kind in outcomes))
    # Verdicts are remembered by answer and reference: each case has its own.
    found = asyncio.run(verdict(f"\\boxed{{\\sin({number}a)}}", f"\\cos({number}b)", pool))  # type: ignore[arg-type]
    assert found.status == status
    assert pool.left == []
    assert bool(found.error) == (status == "error")


def test_a_proof_is_asked_for_once() -> None:
    pool = Scripted(outcome("ok", True))
    for _ in range(2):
        found = asyncio.run(verdict("\\boxed{\\sin(q)}", "\\cos(q)", pool))  # type: ignore[arg-type]
        assert found.status == "correct"
