"""A job that a third host submits, with the learner on another host than the driver and the engines."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
GOES_ON = "stages.reasoning.loop.steps=12"
APART = ("learner.resources={ranks=1}", "rollout.resources={engines=1}", "learner.cpus=0.5", "rollout.cpus=0.5")


@pytest.fixture(scope="module")
def client() -> Iterator[Host]:
    """A host that is no member of the cluster. The driver's host has the engines, the other one the ranks."""
    with Hosts() as hosts:
        head, other, client = (hosts.add(name) for name in ("head", "other", "client"))
        head.start_ray(cpus=2, resources=json.dumps({"engines": 2}))
        other.start_ray(head, cpus=2, resources=json.dumps({"ranks": 2}))
        yield client


def command(client: Host, run: str, *settings: str) -> tuple[str, ...]:
    head = client.hosts.hosts["head"]
    return (
        *(RAYZERO, "submit", "arithmetic", *SMALL, *APART, *settings, "--run", str(client.hosts.shared / run)),
        *("--address", f"http://{head.address}:{DASHBOARD}", "--command", RAYZERO, "--follow"),
    )


def steps(client: Host, run: str) -> list[dict[str, Any]]:
    """Records of the batches of reinforcement learning."""
    file = client.hosts.shared / run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [each for each in map(json.loads, lines) if each["kind"] == "step" and each["stage"] == "reasoning"]


def assert_sound(found: list[dict[str, Any]], count: int) -> None:
    assert [each["step"] for each in found] == list(range(1, count + 1))
    for each in found:
        assert each["audit/mean_diff"] < 1e-4, "the engines hold the learner's weights"
        assert each["publish/bytes"] > 0


def hosts_of_the_cluster(client: Host) -> list[Host]:
    return [client.hosts.hosts[name] for name in ("head", "other")]


PROBE = """
import socket, sys
GREETING = b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])

def said(port, words):
    with socket.create_connection((sys.argv[1], int(port)), 5) as link:
        link.settimeout(5)
        try:
            link.sendall(words)
            return link.recv(64)
        except OSError:
            return b""

for port in sys.argv[2:]:
    is_rpc = said(port, GREETING)[3:4] == bytes([4])
    print(port, "gRPC" if is_rpc else said(port, b"GET / HTTP/1.0\\r\\n\\r\\n").split(b"\\r\\n")[0].decode(errors="replace"))
"""
"""What answers at ports: a server of gRPC greets with its settings (HTTP/2), another is asked for a page."""


def assert_listens_inside(host: Host, stranger: Host) -> None:
    """Whatever listens on a host does so on its address of the cluster or on loopback, but for Ray's own servers, which can do
    nothing else, and ask for the token."""
    everywhere: dict[str, str] = {}
    inside = 0
    for line in host.run("ss", "-Hltnp").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        address = address.strip("[]").partition("%")[0].removeprefix("::ffff:")
        process = re.search(r'users:\(\("([^"]+)"', line)
        if address in (host.address, "127.0.0.1", "::1"):
            inside += address == host.address
        else:
            everywhere[port] = process[1] if process else line
    answers = stranger.run(sys.executable, "-c", PROBE, host.address, *everywhere).splitlines()
    found = [(everywhere[line.split()[0]], line.partition(" ")[2]) for line in answers]
    print(host, found)
    assert inside, "weights, ranks and engines listen too"
    assert all(what == "gRPC" or process in RAYS_PAGES for process, what in found), found


RAYS_PAGES = ("python", "ray::DashboardA")
"""Processes of Ray's dashboard, which serve pages and figures."""


def test_weights_go_from_host_to_host_and_the_same_command_goes_on(client: Host) -> None:
    job = client.popen(*command(client, "whole", GOES_ON), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(steps(client, "whole")) < 2:
        assert job.poll() is None, "the job ended before it was stopped"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for host in hosts_of_the_cluster(client):
        assert_listens_inside(host, client)
    assert "running, process" in client.run(RAYZERO, "status", str(client.hosts.shared / "whole"))
    assert "rewards: 1 → 2" in client.run(RAYZERO, "scale", str(client.hosts.shared / "whole"), "rewards=2")
    assert " on head has ended" in client.run(RAYZERO, "stop", str(client.hosts.shared / "whole"))
    assert "stopped" in client.run(RAYZERO, "status", str(client.hosts.shared / "whole"))
    job.wait(60)
    before = steps(client, "whole")
    assert_sound(before, len(before))
    told = client.run(*command(client, "whole", GOES_ON), timeout=240)
    assert "continues from step" in told
    after = steps(client, "whole")
    assert_sound(after, 12)
    assert after[: len(before)] == before
    assert (client.hosts.shared / "whole" / "export" / "model.safetensors").is_file()


def test_adapters_go_from_host_to_host(client: Host) -> None:
    client.run(*command(client, "adapters", "learner.lora_rank=4"), timeout=240)
    found = steps(client, "adapters")
    assert_sound(found, 2)
    assert all(each["publish/bytes"] < 1e6 for each in found), "the base stays where it is"


def test_nothing_of_a_publish_is_left_on_a_host(client: Host) -> None:
    for host in client.hosts.hosts.values():
        left = host.run("sh", "-c", "find /dev/shm -path '*rayzero-*' -type f").split()
        assert left == [], host
