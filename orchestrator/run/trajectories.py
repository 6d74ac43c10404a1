"""Scored groups as rows of Arrow tables and back: one row a completion, nothing lost.

A group becomes rows when it comes back (`group_batch`), is kept as such while it waits (orchestrator/run/waiting.py), and
goes into the file of the step that trains it (orchestrator/run/steps.py), which others read as trajectories.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from rewards.types import Score, ScoredGroup
from rollout.types import Completion, Prompt, RolloutGroup

_FIGURES = pa.map_(pa.string(), pa.float64())
GROUP = pa.schema(
    [
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
        ("reward_parts", _FIGURES),
        ("rubric", pa.string()),
        ("fields", pa.map_(pa.string(), pa.string())),
        ("question", pa.string()),
        ("columns", pa.list_(pa.string())),
        ("reward_metrics", _FIGURES),
        ("reward_seconds", _FIGURES),
        ("scored_in_s", pa.float64()),
        ("extracted", pa.string()),
        ("reason", pa.string()),
        ("resolution", pa.float64()),
        ("unscored", pa.int32()),
        ("sampled_in_s", pa.float64()),
        ("left_to_score_s", pa.float64()),
    ]
)
"""Rows of a group. The last three are of the whole group: completions that could not be scored and have left it, seconds until
its last token, and from there to its last score. `scored_in_s` is a completion's own, `reward_seconds` of each function."""
TRAJECTORY = pa.schema([("step", pa.int32()), *GROUP, ("advantage", pa.float64()), ("staleness", pa.int32())])
"""Rows of a step's file: those of its groups, and what training made of them."""


def group_batch(group: ScoredGroup) -> pa.RecordBatch:
    """[G'] rows of a group."""
    return pa.RecordBatch.from_pylist(list(_rows(group)), GROUP)


def _rows(group: ScoredGroup) -> Iterator[Mapping[str, Any]]:
    prompt = group.prompt
    whole = {
        "group_id": group.group.group_id,
        "prompt_id": prompt.prompt_id,
        "source": prompt.source,
        "prompt": prompt.text,
        "answer": prompt.answer,
        "prompt_token_ids": np.array(prompt.token_ids, np.int32),
        "replica": group.group.replica,
        "rubric": prompt.rubric,
        "fields": list(prompt.fields.items()),
        "question": prompt.question,
        "columns": list(prompt.columns),
        "unscored": group.num_errors,
        "sampled_in_s": group.group.seconds,
        "left_to_score_s": group.seconds,
    }
    for completion, score in zip(group.completions, group.scores, strict=True):
        yield whole | {
            "completion": completion.text,
            "token_ids": completion.token_ids,
            "rollout_logprobs": completion.rollout_logprobs,
            "policy_versions": completion.policy_versions,
            "finish_reason": completion.finish_reason,
            "seed": completion.seed,
            "reward": score.value,
            "status": score.status,
            "reward_parts": list(score.breakdown.items()),
            "reward_metrics": list(score.metrics.items()),
            "reward_seconds": list(score.seconds_of.items()),
            "scored_in_s": score.seconds,
            "extracted": score.extracted,
            "reason": score.reason,
            "resolution": score.resolution,
        }


def groups_of(rows: pa.RecordBatch | pa.Table) -> list[ScoredGroup]:
    """The groups that rows were made of, in their order. Completions that could not be scored are not in them."""
    return [_group(list(own)) for _, own in groupby(rows.to_pylist(), key=lambda row: row["group_id"])]


def _group(rows: list[dict[str, Any]]) -> ScoredGroup:
    first = rows[0]
    prompt = Prompt(
        prompt_id=first["prompt_id"],
        source=first["source"],
        rubric=first["rubric"],
        text=first["prompt"],
        token_ids=tuple(first["prompt_token_ids"]),
        answer=first["answer"],
        fields=dict(first["fields"]),
        question=first["question"],
        columns=tuple(first["columns"]),
    )
    completions = tuple(
        Completion(
            text=row["completion"],
            token_ids=np.array(row["token_ids"], np.int32),
            rollout_logprobs=np.array(row["rollout_logprobs"], np.float32),
            policy_versions=np.array(row["policy_versions"], np.int32),
            finish_reason=row["finish_reason"],
            seed=row["seed"],
        )
        for row in rows
    )
    scores = tuple(
        Score(
            value=row["reward"],
            status=row["status"],
            breakdown=dict(row["reward_parts"]),
            seconds=row["scored_in_s"],
            metrics=dict(row["reward_metrics"]),
            seconds_of=dict(row["reward_seconds"]),
            extracted=row["extracted"],
            reason=row["reason"],
            resolution=row["resolution"],
        )
        for row in rows
    )
    group = RolloutGroup(
        group_id=first["group_id"],
        prompt=prompt,
        completions=completions,
        replica=first["replica"],
        seconds=first["sampled_in_s"],
    )
    return ScoredGroup(
        group=group,
        completions=completions,
        scores=scores,
        num_errors=first["unscored"],
        seconds=first["left_to_score_s"],
    )
