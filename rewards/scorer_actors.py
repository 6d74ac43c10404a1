"""Models that score, each in an actor of its own: started, looked after, replaced when one hangs."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray
from ray.exceptions import RayError

from rewards.functions import SCORER_TIMEOUT_S
from rewards.models.scorers import KINDS, SCORER_GPUS, check_scorer, scorer_key
from rewards.places import place_of
from rewards.placing import hosts, preferably, sees
from rewards.types import RubricSpec
from rollout.actors import Device


@dataclass
class ScorerActor:
    """The actor of a model that scores. It lives while it is held; one that hangs is killed, and restarted by Ray."""

    name: str
    what: str
    """The reward function that it serves, for messages."""
    actor: Any
    start_timeout_s: float
    """Longest time that it may take to answer first, in seconds: it loads a model."""
    up: bool = False
    """Whether it has answered since its last start."""
    started: float = field(default_factory=time.monotonic)
    """`time.monotonic()` of its last start."""

    async def look(self, timeout_s: float) -> str:
        """Ask it how long it has stood at one piece of work; what was done about that, empty: nothing."""
        try:
            stands_s: float = await asyncio.wait_for(self.actor.stands_s.remote(), timeout_s)
        except TimeoutError:
            silent_s = time.monotonic() - self.started
            if not self.up and silent_s < self.start_timeout_s:
                return ""
            return self._replace(f"does not answer for {timeout_s if self.up else silent_s:.0f} s")
        except RayError:
            self.up, self.started = False, time.monotonic()
            return ""
        self.up = True
        return self._replace(f"has stood for {stands_s:.0f} s") if stands_s > SCORER_TIMEOUT_S else ""

    def _replace(self, why: str) -> str:
        ray.kill(self.actor, no_restart=False)
        self.up, self.started = False, time.monotonic()
        return f"{self.name} ({self.what}) {why}; it is killed and started again"


def start_scorers(
    rubrics: Mapping[str, RubricSpec], name: str, start_timeout_s: float, device: Device | None = None
) -> dict[str, ScorerActor]:
    """One actor a model, by its key."""
    specs = {scorer_key(spec): spec for rubric in rubrics.values() for spec in rubric if spec.name in KINDS}
    if not specs:
        return {}
    on_gpus = device == "cuda" if device else bool(ray.cluster_resources().get("GPU"))
    actors = {}
    for index, (key, spec) in enumerate(specs.items()):
        check_scorer(spec)
        # A GPU is shared with engines or learners by `gpus`, as theirs are.
        kind, server = KINDS[spec.name]
        computes = spec.name == "reward_model" and spec.args.get("device") != "cpu"
        gpus = SCORER_GPUS if computes and on_gpus else 0
        actor_name = f"{name}-model-{index}"
        remote = ray.remote(server).options(
            name=actor_name,
            num_cpus=0,
            num_gpus=gpus,
            **preferably("" if gpus else place_of(hosts(), {})),
            max_restarts=-1,
            max_concurrency=1000,
            runtime_env=sees(gpus),
        )
        actors[key] = ScorerActor(actor_name, spec.label, remote.remote(kind(**spec.args)), start_timeout_s)
    return actors
