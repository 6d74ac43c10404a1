"""Places that are not there yet are the demand that Ray's own autoscaler sees: fake nodes, which it starts on one host."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.hosts import RAY, Host, Hosts, obstacle

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle())

SCRIPT = """
import asyncio
import rollout.ray_defaults
import ray
from ray.util.placement_group import placement_group_table
from rollout.actors import Room, reserve, reserve_all, unreserve
from rollout.errors import InputError

ray.init("auto", logging_level="error")
nodes = lambda: sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())

async def work():
    told = []
    try:
        await reserve([{"CPU": 1}], "learner.ranks = 1", Room())
    except InputError as refused:
        print("REFUSED", refused)
    assert nodes() == 0
    room = Room(coming_s=150, say=told.append)
    groups = await reserve_all([({"CPU": 1}, f"replica {i}") for i in range(2)], room)
    print("TOLD", told[0])
    print("NODES", nodes())
    try:
        await reserve_all([({"CPU": 1}, "one more"), ({"CPU": 1}, "and another")], Room(busy_s=1, coming_s=3))
    except InputError as refused:
        print("FULL", refused)
    left = [each for each in placement_group_table().values() if each["state"] not in ("REMOVED", "CREATED")]
    print("LEFT", len(left))
    for group in groups:
        unreserve(group)
    await gone("DOWN")

async def gone(what):
    for _ in range(400):
        if nodes() == 0:
            break
        await asyncio.sleep(0.2)
    print(what, nodes())

asyncio.run(work())
"""

ON_GPUS = """
import asyncio
from types import SimpleNamespace
import rollout.ray_defaults
import ray
import learner.service, rollout.service
from learner.rendezvous import Rendezvous
from orchestrator.cluster.services import Services
from orchestrator.cluster.session import ray_session
from orchestrator.config.sections.cluster import ClusterSection
from tests.orchestrator.factories import recipe

class Somewhere:
    def __init__(self, *spec): ...
    def where(self): return ray.get_runtime_context().get_node_id()

class Rank(Somewhere):
    def rendezvous(self): return Rendezvous("here", 1), "node"
    def meet(self, *_): return True
    def progress(self): ...
    def free(self): ...

class Replica(Somewhere):
    async def prepare(self): ...
    async def start(self, path): return self.where()
    async def close(self): ...

learner.service.LearnerActor = Rank
rollout.service.RolloutReplica = Replica

async def places(device):
    services = Services(device, 60.0, SimpleNamespace(line=print, warn=print), wait_s=150)
    model = asyncio.get_running_loop().create_future()
    model.set_result("m")
    stage = recipe().stages[0]
    try:
        await services.begin_learner(stage)
        await services.begin_rollout(stage, model)
        actors = [*(await services.learner())._actors, *(await services.rollout())._actors]
        gpus = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")}
        here = [ray.get(actor.where.remote(), timeout=60) for actor in actors]
        print("PLACES", sorted(node in gpus for node in here), len(set(here)))
    finally:
        await services.close()
    for _ in range(400):
        if not ray.cluster_resources().get("GPU"):
            break
        await asyncio.sleep(0.2)
    print("GPUS", ray.cluster_resources().get("GPU", 0))

for asked in ("auto", "cuda"):
    with ray_session(ClusterSection(address="auto", device=asked, wait_s=150), "none-yet") as device:
        print("DEVICE", asked, device)
        if asked == "cuda":
            asyncio.run(places(device))
"""

KIND = {
    "resources": {"CPU": 1, "object_store_memory": 80_000_000},
    "node_config": {},
    "min_workers": 0,
    "max_workers": 2,
}
AUTOSCALER: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": 4,
    "idle_timeout_minutes": 0.05,
    "provider": {
        "type": "fake_multinode",
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "use_node_id_as_ip": True,  # fake nodes share their host's address, and idle ones are looked for by it
    },
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": KIND,
        "gpus": KIND | {"resources": {"CPU": 2, "GPU": 1, "object_store_memory": 80_000_000}},
    },
    "head_node_type": "ray.head.default",
    # Of machines that are set up, which fake ones are not.
    **{"auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False},
    **{name: [] for name in ("initialization_commands", "setup_commands", "rsync_exclude", "rsync_filter")},
    **{f"{node}_{name}": [] for node in ("head", "worker") for name in ("setup_commands", "start_ray_commands")},
    "upscaling_speed": 2.0,
}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """The head of a cluster that has no other node until somebody waits for one."""
    with Hosts() as hosts:
        host = hosts.add("alone")
        config = hosts.shared / "autoscaler.json"
        config.write_text(json.dumps(AUTOSCALER))
        host.run(
            *(RAY, "start", "--head", f"--node-ip-address={host.address}", "--num-cpus=0", "--include-dashboard=false"),
            *(f"--autoscaling-config={config}", "--object-store-memory=80000000", "--disable-usage-stats"),
            env={
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_FAKE_CLUSTER": "1",
            },
        )
        yield host


def test_nodes_come_for_places_that_wait_and_leave_when_nobody_does(host: Host) -> None:
    printed = host.run(sys.executable, "-c", SCRIPT, timeout=300)
    assert "REFUSED learner.ranks = 1 needs 1 CPUs; the Ray cluster has 0: lower it or add nodes" in printed
    assert "TOLD replica 0 needs 1 CPUs; the Ray cluster has 0; waiting up to 150 s for nodes to come" in printed
    assert "NODES 2" in printed
    assert "no place for" in printed
    assert "LEFT 0" in printed
    assert "DOWN 0" in printed, printed


@pytest.mark.long
def test_who_says_so_waits_for_gpus_that_are_not_there_yet(host: Host) -> None:
    on_gpus = host.run(sys.executable, "-c", ON_GPUS, timeout=300)
    assert "DEVICE auto cpu" in on_gpus
    assert "DEVICE cuda cuda" in on_gpus
    assert "the Ray cluster has 0; waiting up to 150 s for nodes to come" in on_gpus
    assert "PLACES [True, True] 2" in on_gpus
    assert "GPUS 0" in on_gpus
