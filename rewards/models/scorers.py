"""Models as reward functions: a reward model or an LLM judge, one for all reward workers of a run.

Batches fill and a rate limit holds only where all requests meet, so the service keeps each model in one Ray actor; without
a cluster (`rayzero score`) it lives in the process that asks.
"""

import json
from dataclasses import fields
from typing import Any, Protocol

from rewards.argument_types import check_types
from rewards.models.llm_judge import LlmJudge, LlmJudgeSpec, check_judge
from rewards.models.reward_model import RewardModelServer, RewardModelSpec
from rewards.types import FunctionSpec
from rollout.errors import InputError, did_you_mean

KINDS = {"reward_model": (RewardModelSpec, RewardModelServer), "judge": (LlmJudgeSpec, LlmJudge)}
"""Name of the reward function → (what the recipe says of it, what serves it)."""


SCORER_GPUS = 0.1
"""Share of a GPU that a reward model reserves on a GPU host, beside engines and learner ranks."""


class Scorer(Protocol):
    """What a reward function needs of a model."""

    async def score(self, prompt: str, completion: str, reference: str = "") -> dict[str, float]: ...

    async def close(self) -> None: ...


class RemoteScorer:
    """A model in an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def score(self, prompt: str, completion: str, reference: str = "") -> dict[str, float]:
        scores: dict[str, float] = await self._actor.score.remote(prompt, completion, reference)
        return scores

    async def close(self) -> None:
        """The actor belongs to the service."""


def scorer_key(spec: FunctionSpec) -> str:
    """Equal for reward functions that can share a model."""
    return json.dumps([spec.name, spec.args], sort_keys=True, default=str)


def check_scorer(spec: FunctionSpec) -> None:
    """Raises InputError when the arguments are not those of such a model."""
    kind, _ = KINDS[spec.name]
    known = [each.name for each in fields(kind)]
    for name in spec.args:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it takes {', '.join(known)}"
            raise InputError(f"reward function {spec.name!r} has no argument {name!r}{hint}")
    needed = ("path",) if spec.name == "reward_model" else ("endpoint", "model")
    for name in needed:
        if not spec.args.get(name):
            raise InputError(f"reward function {spec.name!r} needs the argument {name!r}")
    check_types(spec, kind)
    if kind is LlmJudgeSpec:
        check_judge(kind(**spec.args))


def open_scorer(spec: FunctionSpec) -> Scorer:
    """The model itself. Raises InputError when it cannot be opened."""
    check_scorer(spec)
    kind, server = KINDS[spec.name]
    opened: Scorer = server(kind(**spec.args))
    return opened
