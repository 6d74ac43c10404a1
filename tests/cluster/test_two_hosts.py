"""A job that a third host submits, with the learner on another host than the driver and the engines."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import DASHBOARD, Host, Hosts, obstacle

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle())

RAYZERO = str(Path(sys.executable).with_name("rayzero"))
SMALL = (
    "stages.cold-start.loop.steps=2",
    "stages.reasoning.loop.steps=2",
    "stages.reasoning.loop.groups_per_step=4",
    "stages.reasoning.loop.eval_every=0",
    "stages.reasoning.loop.audit_every=1",
    "stages.reasoning.loop.checkpoint_every=1",
    "eval.sets.held-out.limit=8",
    "rollout.max_tokens=24",
    "rollout.kv_cache_gb=1",
)
APART = ("learner.resources={ranks=1}", "rollout.resources={engines=1}", "learner.cpus=0.5", "rollout.cpus=0.5")


@pytest.fixture(scope="module")
def client() -> Iterator[Host]:
    """A host that is no member of the cluster. The driver's host has the engines, the other one the ranks."""
    with Hosts() as hosts:
        head, other, client = (hosts.add(name) for name in ("head", "other", "client"))
        head.start_ray(cpus=2, resources=json.dumps({"engines": 2}))
        other.start_ray(head, cpus=2, resources=json.dumps({"ranks": 2}))
        yield client


def submit(client: Host, run: str, *settings: str, timeout: float = 240) -> str:
    head = client.hosts.hosts["head"]
    return client.run(
        *(RAYZERO, "submit", "arithmetic", *SMALL, *APART, *settings, "--run", str(client.hosts.shared / run)),
        *("--address", f"http://{head.address}:{DASHBOARD}", "--command", RAYZERO, "--follow"),
        timeout=timeout,
    )


def records(client: Host, run: str) -> list[dict[str, object]]:
    lines = (client.hosts.shared / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_learner_and_engine_on_different_hosts(client: Host) -> None:
    print(submit(client, "apart"))
    steps = [each for each in records(client, "apart") if each["kind"] == "step" and each["stage"] == "reasoning"]
    assert [each["step"] for each in steps] == [1, 2]
    assert all(float(str(each["audit/mean"])) < 1e-3 for each in steps)
