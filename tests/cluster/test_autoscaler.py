"""Places that are not there yet are the demand that Ray's own autoscaler sees: fake nodes, which it starts on one host."""

import json
import sys
from typing import Any

import pytest

from tests.cluster.hosts import RAY, Hosts, obstacle

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

asyncio.run(work())
"""

KIND = {
    "resources": {"CPU": 1, "object_store_memory": 80_000_000},
    "node_config": {},
    "min_workers": 0,
    "max_workers": 2,
}
AUTOSCALER: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": 2,
    "idle_timeout_minutes": 0.05,
    "provider": {
        "type": "fake_multinode",
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": KIND,
    },
    "head_node_type": "ray.head.default",
    # Of machines that are set up, which fake ones are not.
    **{"auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False},
    **{name: [] for name in ("initialization_commands", "setup_commands", "rsync_exclude", "rsync_filter")},
    **{f"{node}_{name}": [] for node in ("head", "worker") for name in ("setup_commands", "start_ray_commands")},
    "upscaling_speed": 2.0,
}


def test_nodes_come_for_places_that_wait() -> None:
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
        printed = host.run(sys.executable, "-c", SCRIPT, timeout=300)
    assert "REFUSED learner.ranks = 1 needs 1 CPUs; the Ray cluster has 0: lower it or add nodes" in printed
    assert "TOLD replica 0 needs 1 CPUs; the Ray cluster has 0; waiting up to 150 s for nodes to come" in printed
    assert "NODES 2" in printed
    assert "no place for" in printed
    assert "LEFT 0" in printed
