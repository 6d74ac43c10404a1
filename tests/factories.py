"""Small, complete prompts, completions and groups for tests; every value can be set, every default is valid."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rewards.types import Score, ScoredGroup
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup


def prompt(prompt_id: str = "s/0", **changes: Any) -> Prompt:
    values: dict[str, Any] = {
        "source": "s",
        "rubric": "default",
        "text": "1+1=",
        "token_ids": (4, 5, 4, 6),
        "answer": "2",
    }
    return Prompt(prompt_id=prompt_id, **(values | changes))


def completion(
    text: str = "<think>1+1</think><answer>2</answer>",
    *,
    token_ids: Sequence[int] = (7, 8, 1),
    logprobs: Sequence[float] | None = None,
    versions: int | Sequence[int] = 0,
    finish_reason: FinishReason = "stop",
    seed: int = 0,
) -> Completion:
    """`versions`: of every token, or one for all of them."""
    count = len(token_ids)
    return Completion(
        text=text,
        token_ids=np.array(token_ids, np.int32),
        rollout_logprobs=np.array([-0.5] * count if logprobs is None else logprobs, np.float32),
        policy_versions=np.full(count, versions, np.int32),
        finish_reason=finish_reason,
        seed=seed,
    )


def rollout_group(
    completions: Sequence[Completion], *, group_id: str = "stage/0", asked: Prompt | None = None
) -> RolloutGroup:
    return RolloutGroup(
        group_id=group_id, prompt=asked or prompt(), completions=tuple(completions), replica=0, seconds=0.1
    )


def scored_group(
    rewards: Sequence[float],
    *,
    versions: int | Sequence[int] = 0,
    lengths: Sequence[int] | None = None,
    completions: Sequence[Completion] | None = None,
    group_id: str = "stage/0",
    asked: Prompt | None = None,
    num_errors: int = 0,
) -> ScoredGroup:
    """One completion a reward. `versions`: of every completion, or one for all; `lengths`: their tokens (default 3)."""
    if completions is None:
        of_each = np.broadcast_to(versions, len(rewards))
        counts = lengths or [3] * len(rewards)
        completions = [
            completion(token_ids=range(7, 7 + count), versions=int(version))
            for count, version in zip(counts, of_each, strict=True)
        ]
    scores = tuple(
        Score(value=reward, status="ok", breakdown={"accuracy": float(reward)}, seconds=0.0) for reward in rewards
    )
    return ScoredGroup(
        group=rollout_group(completions, group_id=group_id, asked=asked),
        completions=tuple(completions),
        scores=scores,
        num_errors=num_errors,
        seconds=0.0,
    )
