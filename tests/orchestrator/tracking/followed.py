"""A run's folder as the tests of trackers write it, and a tracker that keeps what it gets."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import Recipe
from orchestrator.run.store import RunStore
from orchestrator.tracking.entries import Entry
from orchestrator.tracking.follower import Ended, Follower, tracked_run
from orchestrator.tracking.mark import Mark, MarkFile
from orchestrator.tracking.tracker import Ending, TrackedRun
from tests.orchestrator.factories import recipe

EVIL = "<img src=x onerror=alert(1)>\x1b[31m\u202e[a](javascript:alert(1))"
SAMPLE = {"id": "s/1", "prompt": "<b>2+2</b>", "answer": "4", "completion": EVIL, "correct": True}
FIGURES = {"pass@1": 0.5, "greedy": None, "k": 4, "problems": 3, "correct": "accuracy", "labels": {"accuracy": 0.5}}


def tracked_recipe(*trackers: str, **settings: Any) -> Recipe:
    return recipe(
        track=list(trackers),
        tracking=settings,
        cluster={"env": {"WANDB_API_KEY": "not-for-others"}},
        stages=[{"name": "warm", "kind": "grpo"}, {"name": "rl", "kind": "grpo"}],
    )


def store_in(folder: Path, *trackers: str, **settings: Any) -> RunStore:
    return RunStore(folder, tracked_recipe(*trackers, **settings))


def train(store: RunStore, first: int, last: int, *, stage: str = "rl", reward: float = 0.0) -> None:
    for step in range(first, last + 1):
        store.record("step", stage, step=step, **{"reward/mean": reward + step / 10, "learner/lr": 1e-5})


def evaluate(store: RunStore, step: int, label: str = "during", **figures: Any) -> None:
    store.record("eval", "rl", step=step, label=label, set="gsm8k", samples=[SAMPLE], **{**FIGURES, **figures})


class Memory:
    """A tracker as an object: keeps entries, and fails when it is told to.

    `knows`: whether it says how many lines it has, as one with a server does.
    """

    def __init__(self, *, knows: bool = False) -> None:
        self.entries: list[Entry] = []
        self.opened: list[TrackedRun] = []
        self.endings: list[Ending] = []
        self.failures: list[BaseException] = []
        self.knows = knows
        self.before_send: Callable[[], None] = lambda: None

    def open(self, run: TrackedRun) -> int | None:
        self._fail()
        self.opened.append(run)
        if not self.knows:
            return None
        return max((entry.line + 1 for entry in self.entries), default=0)

    def send(self, entries: Sequence[Entry]) -> None:
        self.before_send()
        self._fail()
        self.entries += entries

    def close(self, ending: Ending) -> None:
        self.endings.append(ending)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def steps(self, stage: str = "rl") -> list[int]:
        return [entry.step for entry in self.entries if entry.stage == stage and "reward/mean" in entry.figures]

    def values(self, figure: str) -> list[float]:
        return [entry.figures[figure] for entry in self.entries if figure in entry.figures]


def follower(store: RunStore, tracker: Any, told: list[str], name: str = "wandb") -> Follower:
    made = tracked_recipe(name)
    marks = MarkFile(store.folder, name)
    return Follower(tracked_run(store.folder, made, marks.read()), marks, lambda: tracker, told.append)


def follow_to_end(store: RunStore, tracker: Any, ending: str = "finished", told: list[str] | None = None) -> bool:
    """One start of the run, which has ended before its follower looks."""
    ended = Ended()
    ended.tell(ending)
    return follower(store, tracker, told if told is not None else []).follow(ended, look_s=0.01, again_s=0.01)


def mark_of(store: RunStore, name: str = "wandb") -> Mark:
    return Mark(**json.loads((store.folder / "trackers" / f"{name}.json").read_text()))
