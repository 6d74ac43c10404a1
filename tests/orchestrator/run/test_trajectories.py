"""Trajectory files: every completion whole, readable by others."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from orchestrator.run.trajectories import TRAJECTORY, write_trajectories
from rewards.types import Score
from tests.factories import completion, prompt, scored_group


def test_trajectories_hold_every_completion_whole(tmp_path: Path) -> None:
    path = tmp_path / "rl" / "step-000006.parquet"
    completions = [
        completion("ü\n7", token_ids=(7, 8, 1), logprobs=(-0.5, -1.5, -2.5), versions=(3, 3, 4), seed=2**40),
        completion("long", token_ids=(9,), logprobs=(-0.25,), versions=5, finish_reason="length", seed=12),
    ]
    asked = prompt("add/1+1", source="add", text="1+1=", token_ids=(4, 5), answer="2")
    group = scored_group([1.0, 0.0], completions=completions, group_id="rl/17", asked=asked)
    advantages = [np.array([1.0, -1.0]), np.zeros(2)]
    write_trajectories(path, 6, [group, scored_group([0.5, 0.5])], advantages, version=5)

    table = pq.read_table(path)
    assert table.schema.remove_metadata() == TRAJECTORY
    rows = table.to_pylist()
    assert len(rows) == 4
    assert rows[0] == {
        "step": 6,
        "group_id": "rl/17",
        "prompt_id": "add/1+1",
        "source": "add",
        "prompt": "1+1=",
        "answer": "2",
        "completion": "ü\n7",
        "prompt_token_ids": [4, 5],
        "token_ids": [7, 8, 1],
        "rollout_logprobs": [-0.5, -1.5, -2.5],
        "policy_versions": [3, 3, 4],
        "finish_reason": "stop",
        "seed": 2**40,
        "replica": 0,
        "reward": 1.0,
        "status": "ok",
        "reward_parts": [("accuracy", 1.0)],
        "advantage": 1.0,
        "staleness": 2,
    }
    assert [row["staleness"] for row in rows] == [2, 0, 5, 5]
    assert [row["advantage"] for row in rows] == [1.0, -1.0, 0.0, 0.0]
    assert [row["finish_reason"] for row in rows[:2]] == ["stop", "length"]
    assert [file.name for file in path.parent.iterdir()] == ["step-000006.parquet"]


def test_several_reward_parts_and_whole_number_rewards(tmp_path: Path) -> None:
    path = tmp_path / "rl" / "step-000001.parquet"
    group = scored_group([1, 0])
    parts = {"accuracy": 1.0, "format": 0.0}
    scores = tuple(Score(value=1, status="timeout", breakdown=parts, seconds=0.0) for _ in range(2))
    group = type(group)(group=group.group, completions=group.completions, scores=scores, num_errors=0, seconds=0.0)
    write_trajectories(path, 1, [group], [np.zeros(2)], version=0)
    row = pq.read_table(path).to_pylist()[0]
    assert dict(row["reward_parts"]) == parts
    assert row["status"] == "timeout"


def test_a_batch_written_again_after_a_resume_replaces_the_first(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.parquet"
    for count in (3, 2):
        write_trajectories(path, 1, [scored_group([0.0] * count)], [np.zeros(count)], version=0)
    assert pq.read_table(path).num_rows == 2
