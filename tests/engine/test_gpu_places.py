"""Which GPU every actor of a run gets. Ray is told that it has four, nobody computes there: ranks and engines are actors that only
say what they see, placed by the code that places the real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, json, os, sys
from types import SimpleNamespace

import rollout.ray_defaults
import ray

import learner.service, rewards.scorer_actors, rollout.engines
from orchestrator.cluster.services import Services
from learner.rendezvous import Rendezvous
from rewards.types import FunctionSpec
from tests.orchestrator.factories import recipe

class Seen:
    def __init__(self, *spec): ...
    def gpus(self): return os.environ.get("CUDA_VISIBLE_DEVICES")

class Rank(Seen):
    def rendezvous(self): return Rendezvous("here", 1), "node"
    def meet(self, *_): return True
    def progress(self): ...
    def free(self): ...

class Replica(Seen):
    async def prepare(self): ...
    async def alive(self): return "process", 0
    async def version(self): return 0
    async def start(self, path): return "node"
    async def close(self): ...

class Spec:
    def __init__(self, **arguments): ...

learner.service.LearnerActor = Rank
rollout.engines.RolloutReplica = Replica
rewards.scorer_actors.KINDS.update(reward_model=(Spec, Seen))
rewards.scorer_actors.check_scorer = lambda spec: None

async def places(models, before=(), **sections):
    services = Services("cuda", 60.0, SimpleNamespace(line=lambda _: None, warn=lambda _: None))
    model = asyncio.get_running_loop().create_future()
    model.set_result("m")
    for each in (*before, sections):
        stage = recipe(**each).stages[0]
        await services.begin_learner(stage)
        await services.begin_rollout(stage, model)
        ranks, pool = (await services.learner()).group._actors, await services.rollout()
        engines = [engine.actor for engine in pool._keeper.engines.values()]
    functions = [FunctionSpec(name="reward_model", label=f"m{i}", args={"path": f"{i}"}) for i in range(models)]
    scorers = [one.actor for one in rewards.scorer_actors.start_scorers({"r": functions}, "scorers", 60.0).values()]
    seen = [[ray.get(actor.gpus.remote(), timeout=60) for actor in kind] for kind in (ranks, engines, scorers)]
    for actor in scorers:
        ray.kill(actor)
    await services.close()
    return dict(zip(("ranks", "engines", "models"), seen))

ray.init(address="local", num_cpus=8, num_gpus=4, include_dashboard=False, logging_level=40, log_to_driver=False)
for line in sys.stdin:
    print(json.dumps(asyncio.run(places(**json.loads(line)))), flush=True)
ray.shutdown()
"""

CASES: dict[str, dict[str, Any]] = {
    "apart": {"learner": {"ranks": 2}, "rollout": {"replicas": 2, "share_gpus": False}},
    "wide": {"learner": {"ranks": 2}, "rollout": {"replicas": 1, "tensor_parallel": 2, "share_gpus": False}},
    "shared": {"learner": {"ranks": 4}, "rollout": {"replicas": 4, "share_gpus": True}},
    "fewer engines": {"learner": {"ranks": 3}, "rollout": {"replicas": 2, "share_gpus": True}},
    "beside models": {
        "models": 4,
        "learner": {"ranks": 2, "gpus": 0.8},
        "rollout": {"replicas": 2, "gpus": 0.8, "share_gpus": False},
    },
    "shared beside models": {
        "models": 4,
        "learner": {"ranks": 4, "gpus": 0.8},
        "rollout": {"replicas": 4, "gpus": 0.8, "share_gpus": True},
    },
    "after a stage without models": {
        "models": 4,
        "before": [{"learner": {"ranks": 4}, "rollout": {"replicas": 4, "share_gpus": True}}],
        "learner": {"ranks": 4},
        "rollout": {"replicas": 4, "gpus": 0.8, "share_gpus": True},
    },
    "smallest parts": {
        "learner": {"ranks": 2, "gpus": 0.51},
        "rollout": {"replicas": 2, "gpus": 0.51, "share_gpus": False},
    },
}


@pytest.fixture(scope="module")
def places() -> dict[str, dict[str, list[str]]]:
    """What CUDA_VISIBLE_DEVICES says in every actor, case by case, one after the other on the same cluster."""
    given = "".join(json.dumps({"models": 0} | case) + "\n" for case in CASES.values())
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=given,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return dict(zip(CASES, map(json.loads, answer.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", ["apart", "wide", "beside models", "smallest parts"])
def test_ranks_and_the_workers_of_engines_have_a_gpu_each(places: dict[str, Any], case: str) -> None:
    seen = ",".join([*places[case]["ranks"], *places[case]["engines"]]).split(",")
    assert sorted(seen) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("case", ["shared", "fewer engines", "shared beside models", "after a stage without models"])
def test_rank_and_engine_of_one_number_share_a_gpu_and_no_other(places: dict[str, Any], case: str) -> None:
    ranks, engines = places[case]["ranks"], places[case]["engines"]
    assert len(set(ranks)) == len(ranks)
    assert engines == ranks[: len(engines)]


@pytest.mark.parametrize("case", ["beside models", "shared beside models", "after a stage without models"])
def test_reward_models_find_what_ranks_and_engines_leave(places: dict[str, Any], case: str) -> None:
    assert len(places[case]["models"]) == 4
    assert set(places[case]["models"]) <= {"0", "1", "2", "3"}
