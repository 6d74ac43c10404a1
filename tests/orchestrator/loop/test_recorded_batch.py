"""The batch of a step's file is the batch of the step, completions that it skipped included where a loss asks for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.batch import make_batch, sequences_of
from orchestrator.loop.restore import RecordedStep
from orchestrator.run.steps import StepRecord, read_record, write_step
from orchestrator.run.trajectories import group_batch
from tests.factories import scored_group
from tests.orchestrator.factories import recipe

GROUPS = [scored_group([1.0, 0.0], group_id="rl/0"), scored_group([0.5, 0.5], group_id="rl/1")]
ADVANTAGES = [np.array([1.0, -1.0]), np.array([0.0, 0.0])]
CUT: dict[str, Any] = {"ranks": 1, "mini_batches": 1, "micro_batch_tokens": 64, "length_norm": "sequence"}
CUT |= {"constant_length": 8, "temperature": 1.0, "seed": 3}


def recorded(path: Path, **cut: Any) -> RecordedStep:
    record = StepRecord(
        step=1,
        numbers=[0, 1],
        dropped=[],
        state={},
        cut=CUT | cut,
        learner={"overlong_filtering": False},
        plan=(10, 0),
        packages={},
    )
    write_step(path, record, [group_batch(group) for group in GROUPS], ADVANTAGES, trained_at=0)
    read = read_record(path)
    assert read is not None
    return RecordedStep(path=path, record=read)


@pytest.mark.parametrize(
    ("cut", "settings", "computed"),
    [
        ({"only_signal": True}, {"kl_coef": 0}, 2),
        ({"only_signal": True}, {"kl_coef": 0.1, "kl_in": "reward"}, 2),
        ({"only_signal": True}, {"kl_coef": 0.1}, 4),  # trained again with a loss that has a gradient for all of them
        ({"only_signal": True}, {"kl_coef": 0, "entropy_coef": 0.1}, 4),
        ({"only_signal": False}, {"kl_coef": 0}, 4),
        ({}, {"kl_coef": 0}, 4),  # written before there was a choice: as it was trained
    ],
)
def test_a_step_is_made_again_as_it_was_trained_or_with_all_that_the_loss_needs(
    tmp_path: Path, cut: dict[str, Any], settings: dict[str, Any], computed: int
) -> None:
    section = recipe(learner=settings).stages[0].learner
    batch = recorded(tmp_path / "step-000001.parquet", **cut).batch(section)
    assert (batch.num_sequences, batch.num_skipped) == (computed, 4 - computed)
    rows = [row for group, own in zip(GROUPS, ADVANTAGES, strict=True) for row in sequences_of(group, own)]
    (expected,) = make_batch(rows, **CUT, only_signal=computed == 2).packs[0][0]
    (pack,) = batch.packs[0][0]
    for name in ("token_ids", "indices", "weights", "advantages", "rollout_logprobs"):
        np.testing.assert_array_equal(getattr(pack, name), getattr(expected, name))
