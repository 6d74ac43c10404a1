"""Where the actors of the reward service live: asked of Ray, decided in rewards/places.py."""

from typing import Any

import rollout.ray_defaults  # noqa: F401

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rewards.places import Host


def hosts() -> list[Host]:
    """The nodes that have cores to offer; those that are kept free of work, as heads of a cluster may be, have none."""
    free = available_resources_per_node()
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    return [
        # A node that has just come has reported nothing yet.
        Host(node, free.get(node, total).get("CPU", 0.0), total.get("GPU", 0.0))
        for node, total in nodes.items()
        if total.get("CPU")
    ]


def preferably(node: str) -> dict[str, Any]:
    """Ray's options for an actor that is to live on a node, and where that is gone on any; empty `node`: on any.

    It takes a byte of the node's memory, since Ray places what takes nothing at random, whatever its strategy.
    """
    if not node:
        return {}
    return {"memory": 1, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)}


def sees(gpus: float) -> dict[str, Any]:
    """Environment of an actor that has this share of a GPU: without one it sees none, and cannot take memory beside a rank.

    Ray hides them itself only where its node was started with rollout/ray_defaults.py, as a cluster that is joined was
    not. Without GPUs nothing is said, since Ray starts a process of its own for an environment that differs.
    """
    return {} if gpus or not ray.cluster_resources().get("GPU") else {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
