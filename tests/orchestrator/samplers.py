"""An engine and scorers in place of those that sampling would ask: they answer at once and note what they were asked."""

import asyncio
from collections.abc import Callable
from typing import Any

from rewards.types import ScoredGroup
from rollout.types import Completion, Prompt, RolloutGroup, Sampling
from tests.factories import completion, rollout_group, scored_group


class Engine:
    """As many completions a prompt as are asked for, each told as it comes."""

    replicas = 1

    def __init__(self) -> None:
        self.now = self.most = 0
        self.asked: list[tuple[str, str, Sampling]] = []
        """Group, prompt and sampling of every request."""

    async def generate(
        self, group_id: str, prompt: Prompt, sampling: Sampling, finished: Callable[[Completion], None]
    ) -> RolloutGroup:
        self.asked.append((group_id, prompt.prompt_id, sampling))
        self.now += 1
        self.most = max(self.most, self.now)
        made = [completion(str(2 + i)) for i in range(sampling.n)]
        for each in made:
            await asyncio.sleep(0)
            finished(each)
        self.now -= 1
        return rollout_group(made, group_id=group_id, asked=prompt)


class Scorers:
    """Every group is worth as many points as it has completions that were told of before its end."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.open = self.most_open = 0

    def begin(self, prompt: Prompt, budget: Any) -> "Scoring":
        return Scoring(self, prompt)

    async def score(self, *_: Any) -> Any:
        raise AssertionError("nothing here is scored by itself")


class Scoring:
    def __init__(self, scorers: Scorers, asked: Prompt) -> None:
        self._scorers, self._asked = scorers, asked
        self._told: list[Completion] = []

    async def ready(self) -> None:
        """There is no outage here."""

    def add(self, completion: Completion) -> None:
        self._told.append(completion)

    async def finish(self, group: RolloutGroup) -> ScoredGroup:
        self._scorers.open += 1
        self._scorers.most_open = max(self._scorers.open, self._scorers.most_open)
        await asyncio.sleep(0.01)
        self._scorers.open -= 1
        told = self._told
        return scored_group(
            [float(len(told))] * len(told), completions=told, group_id=group.group_id, asked=self._asked
        )

    def cancel(self) -> None:
        self._scorers.cancelled.append(self._asked.prompt_id)
