"""The file of a step: whole, checked, and enough to train the step again."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.run.steps import DamagedFile, StepRecord, read_record, read_rows, write_step
from orchestrator.run.trajectories import TRAJECTORY, group_batch, groups_of
from rollout.faults import damage
from tests.factories import scored_group

ADVANTAGES = [np.array([1.0, -1.0]), np.array([0.1 + 0.2, 0.0])]


def record(**changes: Any) -> StepRecord:
    values: dict[str, Any] = {
        "step": 6,
        "numbers": [3, 5],
        "dropped": [(4, "no_signal")],
        "state": {"buffer": {"admitted": 9}, "prompts": {"taken": 9}},
        "cut": {"ranks": 2, "seed": 7, "temperature": 0.9},
        "learner": {"lr": 1e-6},
        "plan": (100, 10),
        "packages": {"torch": "2"},
    }
    return StepRecord(**(values | changes))


def written(path: Path, **changes: Any) -> Path:
    groups = [scored_group([1.0, 0.0], versions=[5, 3], group_id="rl/3"), scored_group([0.5, 0.5], group_id="rl/5")]
    write_step(path, record(**changes), [group_batch(group) for group in groups], ADVANTAGES, trained_at=5)
    return path


def test_rows_and_record_come_back_to_the_last_bit(tmp_path: Path) -> None:
    path = written(tmp_path / "rl" / "step-000006.parquet")
    assert read_record(path) == record()
    rows = read_rows(path)
    assert rows["advantage"].to_pylist() == [1.0, -1.0, 0.1 + 0.2, 0.0]
    assert rows["staleness"].to_pylist() == [0, 2, 5, 5]
    assert set(rows["step"].to_pylist()) == {6}
    assert [group.group.group_id for group in groups_of(rows)] == ["rl/3", "rl/5"]
    assert pq.read_table(path).schema.remove_metadata() == TRAJECTORY
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_of_before_has_no_record(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.parquet"
    now = pq.read_table(written(tmp_path / "new.parquet")).replace_schema_metadata(None)
    pq.write_table(now.drop_columns(["unscored"]), path)
    assert read_record(path) is None
    pq.write_table(now, path)
    with pytest.raises(DamagedFile, match="record is gone"):
        read_record(path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_is_named(tmp_path: Path, keep: float) -> None:
    path = written(tmp_path / "step-000006.parquet")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DamagedFile, match="step-000006"):
        read_record(path)


def test_a_turned_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    """In a page, in the record or in Parquet's own words: reading either fails or gives what was written."""
    path = written(tmp_path / "step-000006.parquet")
    data, rows = path.read_bytes(), read_rows(path)
    noticed = 0
    for at in np.random.default_rng(1).integers(0, len(data), 300):
        path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        try:
            again, found = read_record(path), read_rows(path)
        except DamagedFile:
            noticed += 1
            continue
        assert (again, found.equals(rows)) == (record(), True), f"byte {at}"
    assert noticed > 100


def test_damage_on_purpose_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "step-000006.parquet"
    long = scored_group([1.0, 0.0], lengths=[30_000, 30_000])
    write_step(path, record(), [group_batch(long)], ADVANTAGES[:1], trained_at=5)
    damage(path)
    assert read_record(path) == record()
    with pytest.raises(DamagedFile):
        read_rows(path)
