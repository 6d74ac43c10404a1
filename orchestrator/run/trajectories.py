"""Trajectories of reinforcement learning as Parquet files: one row a completion, one file a batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.run.files import replaced_file
from rewards.types import ScoredGroup

TRAJECTORY = pa.schema(
    [
        ("step", pa.int32()),
        ("group_id", pa.string()),
        ("prompt_id", pa.string()),
        ("source", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("completion", pa.string()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("token_ids", pa.list_(pa.int32())),
        ("rollout_logprobs", pa.list_(pa.float32())),
        ("policy_versions", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
        ("replica", pa.int32()),
        ("reward", pa.float64()),
        ("status", pa.string()),
        ("reward_parts", pa.map_(pa.string(), pa.float64())),
        ("advantage", pa.float64()),
        ("staleness", pa.int32()),
    ]
)


def write_trajectories(
    path: Path,
    step: int,
    groups: Sequence[ScoredGroup],
    advantages: Sequence[np.ndarray],
    *,
    version: int,
) -> None:
    """Write the file of batch `step`. `advantages`: [G'] of each group; `version`: the learner's when it took the batch."""
    rows = [row for group, own in zip(groups, advantages, strict=True) for row in _rows(group, own, step, version)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as aside:
        pq.write_table(pa.Table.from_pylist(rows, TRAJECTORY), aside)


def _rows(group: ScoredGroup, advantages: np.ndarray, step: int, version: int) -> list[Mapping[str, Any]]:
    prompt = group.prompt
    return [
        {
            "step": step,
            "group_id": group.group.group_id,
            "prompt_id": prompt.prompt_id,
            "source": prompt.source,
            "prompt": prompt.text,
            "answer": prompt.answer,
            "completion": completion.text,
            "prompt_token_ids": list(prompt.token_ids),
            "token_ids": completion.token_ids,
            "rollout_logprobs": completion.rollout_logprobs,
            "policy_versions": completion.policy_versions,
            "finish_reason": completion.finish_reason,
            "seed": completion.seed,
            "replica": group.group.replica,
            "reward": score.value,
            "status": score.status,
            "reward_parts": list(score.breakdown.items()),
            "advantage": float(advantage),
            "staleness": version - completion.oldest_version,
        }
        for completion, score, advantage in zip(group.completions, group.scores, advantages, strict=True)
    ]
