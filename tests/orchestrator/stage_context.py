"""A stage of a recipe as its page gets it, with an engine and scorers that are written in the tests."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learner.model.small import character_tokenizer
from orchestrator.config.recipe import Recipe
from orchestrator.data.prompts import PromptSets
from orchestrator.display import Display
from orchestrator.loop.context import StageContext
from orchestrator.run.store import RunStore
from rollout.data.chat_template import dress
from tests.orchestrator.samplers import Engine, Scorers


class Lines(Display):
    """Keeps what is told in place of printing it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def table(self, *_: Any) -> None:
        pass


@dataclass
class Services:
    """Engines and reward workers that are up at once."""

    engine: Any = field(default_factory=Engine)
    scorers: Any = field(default_factory=Scorers)

    async def rollout(self) -> Any:
        return self.engine

    async def rewards(self) -> Any:
        return self.scorers


class ReadyContext(StageContext):
    """One whose services need neither a start nor weights."""

    async def begin_rewards(self, *sets: PromptSets) -> None:
        pass

    async def publish(self, version: int) -> Any:
        pass


def context_of(recipe: Recipe, folder: Path, services: Any = None, *, stage: int = 0) -> StageContext:
    """The context of a stage of a recipe; `folder` is the run's."""
    tokenizer = character_tokenizer()
    dress(tokenizer, recipe.stages[stage].data.dress)
    return ReadyContext(
        recipe=recipe,
        stage=recipe.stages[stage],
        model_path="org/model",
        tokenizer=tokenizer,
        store=RunStore(folder, recipe),
        services=services or Services(),
        display=Lines(),
    )
