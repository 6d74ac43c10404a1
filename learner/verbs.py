"""The verbs that every rank of a learner answers, as the service calls them: their names, arguments and answers.

`LearnerGroup` names a verb by its function here (`RankVerbs.train`), so a misspelt one or a wrong argument is a type error.
Every verb is collective: all ranks are called with the same arguments. What each does is said in learner/rank.py.
"""

from typing import Any, Protocol

import numpy as np

from learner.batch import TrainingBatch
from learner.spec import LearnerSpec, ObjectiveName
from learner.stats import RankStats
from rollout.storage.objects import StoredFile
from rollout.weights.manifest import WeightManifest


class RankVerbs(Protocol):
    def open(self, spec: LearnerSpec, *beside: LearnerSpec) -> int: ...

    def plan(self, total_steps: int, warmup_steps: int) -> None: ...

    def train(self, batch: TrainingBatch, objective: ObjectiveName) -> RankStats: ...

    def kl_to_reference(self, batch: TrainingBatch) -> tuple[np.ndarray, np.ndarray]: ...

    def scores(self, batch: TrainingBatch) -> tuple[np.ndarray, np.ndarray]: ...

    def logprobs(self, batch: TrainingBatch) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]: ...

    def stage_weights(self, version: int, base: bool = True, adapter: bool = True) -> WeightManifest | None: ...

    def meet_engines(self, address: str, port: int, world_size: int) -> None: ...

    def send_weights(self) -> None: ...

    def release_weights(self, manifest: WeightManifest) -> None: ...

    def save(self, folder: str, state: dict[str, Any]) -> list[StoredFile]: ...

    def load(self, folder: str) -> None: ...

    def digests(self, folder: str) -> dict[str, str]: ...

    def export(self, folder: str, tokenizer_from: str) -> list[StoredFile]: ...

    def close(self) -> None:
        """Not collective: may be called on a rank that is in the middle of another verb."""
