"""On a cluster of several nodes reward workers keep off those with GPUs; Ray is told that there are some, nobody computes there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, json

import rollout.ray_defaults
import ray
from ray.cluster_utils import Cluster

from learner.service import LearnerGroup
from rewards import scorer_actors, service
from rewards.placing import hosts
from rewards.resources import ResourceSettings
from rewards.types import FunctionSpec, Sample

small = dict(object_store_memory=80_000_000)
cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=2, num_gpus=1, **small))
quiet = cluster.add_node(num_cpus=2, num_gpus=0, resources={"quiet": 9}, **small)
cluster.wait_for_nodes()
ray.init(address=cluster.address, logging_level=40, log_to_driver=False)
kinds = {node["NodeID"]: "gpus" if node["Resources"].get("GPU") else "quiet" for node in ray.nodes()}

class Where:
    def __init__(self, spec): ...
    def where(self): return ray.get_runtime_context().get_node_id()

class Spec:
    def __init__(self, **arguments): ...

scorer_actors.KINDS.update(judge=(Spec, Where))
scorer_actors.check_scorer = lambda spec: None
rubrics = {"r": [FunctionSpec(name="format", label="format")]}
samples = {"r": Sample(prompt="1+1=", completion="x", answer="2")}

def start(replicas, name, **more):
    settings = ResourceSettings(processes=1, function_timeout_s=10.0)
    return service.RewardPool.start(
        rubrics, settings, samples, replicas=replicas, timeout_s=60, max_error_rate=1, start_timeout_s=120, name=name, **more
    )

def places(service):
    return [kinds[member["node"]] for member in service.members()]

async def main():
    said = {}
    pool = await start(1, "a")
    said["one"] = places(pool)
    await pool.scale(3)
    while not all(member["node"] for member in pool.members()):
        await asyncio.sleep(0.1)
    said["three"] = places(pool)
    said["meant"] = [(worker.place and kinds[worker.place]) for worker in pool._dispatcher.workers]
    said["hosts"] = [str(host) for host in hosts()]
    judges = {"r": [FunctionSpec(name="judge", label="judge", args={"n": n}) for n in range(2)]}
    scorers = scorer_actors.start_scorers(judges, "models", 60.0).values()
    said["judges"] = [kinds[ray.get(actor.where.remote())] for actor in (scorer.actor for scorer in scorers)]
    await pool.close()
    named = await start(3, "b", resources={"quiet": 1})
    said["named"] = places(named)
    await named.close()
    settings = dict(cpus=0.1, gpus=1, device="cpu", threads=1, timeout_s=60, start_timeout_s=120)
    learner = await LearnerGroup.start(ranks=1, resources={"quiet": 1}, **settings)
    while not all(member["node"] for member in learner.members()):
        await asyncio.sleep(0.1)
    said["learner"] = places(learner)
    await learner.close()
    pool = await start(2, "c")
    cluster.remove_node(quiet)
    for worker in pool._dispatcher.workers:
        pool._lost(worker)
    while any(worker.down for worker in pool._dispatcher.workers) or set(places_now(pool)) != {"gpus"}:
        await asyncio.sleep(0.2)
    said["after"] = places_now(pool)
    await pool.close()
    print(json.dumps(said))

def places_now(service):
    return [kinds.get(member["node"], "?") for member in service.members()]

asyncio.run(asyncio.wait_for(main(), 150))
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_hosts_without_gpus_are_taken_while_they_have_room(said: dict[str, Any]) -> None:
    assert said["one"] == ["quiet"]
    assert said["three"] == said["meant"] == ["quiet", "quiet", "gpus"], said["hosts"]
    assert said["judges"] == ["quiet", "quiet"]


def test_what_the_recipe_says_stands(said: dict[str, Any]) -> None:
    assert said["named"] == ["quiet", "quiet", "quiet"]


def test_workers_come_back_elsewhere_when_their_host_is_gone(said: dict[str, Any]) -> None:
    assert said["after"] == ["gpus", "gpus"]


def test_ranks_say_where_they_are(said: dict[str, Any]) -> None:
    assert said["learner"] == ["quiet"]
