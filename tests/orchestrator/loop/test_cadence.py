"""What is due after which batch."""

import pytest

from orchestrator.config.sections.loop import LoopSection
from orchestrator.loop.cadence import Cadence

LOOP = LoopSection(publish_every=3, max_staleness=2, audit_every=4, eval_every=5, checkpoint_every=2)


@pytest.mark.parametrize(
    ("due", "batches"),
    [
        ("publish", [3, 6, 7, 9, 10]),  # with a change of settings after 7, and at the end
        ("audit", [4, 8]),
        ("evaluation", [5]),  # the end has one of its own
        ("checkpoint", [2, 4, 6, 8]),
        ("is_last", [10]),
    ],
)
def test_each_has_a_period_of_its_own(due: str, batches: list[int]) -> None:
    cadence = Cadence(LOOP, 10, {7})
    assert [done for done in range(1, 11) if getattr(cadence, due)(done)] == batches


def test_zero_is_never() -> None:
    cadence = Cadence(LoopSection(audit_every=0, eval_every=0, checkpoint_every=0), 4)
    assert not any(due(done) for done in range(1, 5) for due in (cadence.audit, cadence.evaluation, cadence.checkpoint))
