"""`rayzero submit` as a person uses it, from a host that is no member of the cluster: the folder and the variables that it sends,
a lost connection, a second submission, the list, the stop; and nodes that do not see a folder."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import STDOUT

import pytest

from tests.cluster.hosts import DASHBOARD, Host, Hosts, obstacle

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

RAYZERO = str(Path(sys.executable).with_name("rayzero"))
SECRET = "sECRET-of-a-judge-71b3"
RECIPE = """
name = "away"
model.build.tokenizer = "characters"
[rollout]
max_tokens = 8
group_size = 2
kv_cache_gb = 1
cpus = 0.5
[learner]
cpus = 0.5
[eval]
samples = 0
[[stages]]
name = "rl"
kind = "grpo"
loop = { steps = 400, groups_per_step = 2, eval_every = 0 }
data.sources.q = { path = "data/q.jsonl" }
[stages.rewards.rubrics.default]
"own.py:secret" = 1.0
"""
OWN = """
import os
from beside import right
def secret(prompt, completion, reference):
    return right(os.environ["JUDGE_KEY"], os.environ["MODE"])
"""
BESIDE = f"""
def right(key, mode):
    assert key[::-1] == {SECRET[::-1]!r} and mode == "fast", "not the variables of the job"
    return 0.5
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Host]:
    with Hosts() as hosts:
        head, other, client = (hosts.add(name) for name in ("head", "other", "client"))
        head.start_ray(cpus=2)
        other.start_ray(head, cpus=2)
        work = hosts.shared / "work"
        (work / "data").mkdir(parents=True)
        (work / "away.toml").write_text(RECIPE)
        (work / "own.py").write_text(OWN)
        (work / "beside.py").write_text(BESIDE)
        rows = [{"prompt": f"{each}+1=", "answer": str(each + 1)} for each in range(20)]
        (work / "data" / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        yield client


def submit(client: Host, *words: str) -> list[str]:
    shared = client.hosts.shared
    return [
        *(RAYZERO, "submit", str(shared / "work" / "away.toml"), "--working-dir", str(shared / "work"), *words),
        *("--address", address(client), "--command", RAYZERO, "--env", "JUDGE_KEY", "--env", "MODE=fast"),
    ]


def address(client: Host) -> str:
    return f"http://{client.hosts.hosts['head'].address}:{DASHBOARD}"


def test_a_job_from_its_first_submission_to_its_end(client: Host) -> None:
    shared, head = client.hosts.shared, client.hosts.hosts["head"]
    run = str(shared / "runs" / "away")
    secret = {"JUDGE_KEY": SECRET}
    log, metrics = shared / "first.log", Path(run) / "metrics.jsonl"
    with log.open("w") as file:
        first = client.popen(*submit(client, "--run", run, "--follow"), env=secret, stdout=file, stderr=STDOUT)
    shown = _command_lines(head, lambda: metrics.exists() and '"kind": "step"' in metrics.read_text(), log)
    assert not shown

    client.cut()
    time.sleep(25)  # the silence is noticed after 10
    client.mend()
    listed = client.run(RAYZERO, "submit", "--list", "--address", address(client), env=secret)
    assert "running" in listed
    assert run in listed
    with pytest.raises(AssertionError, match="--follow shows it"):
        client.run(*submit(client, "--run", run), env=secret)
    stopped = client.run(RAYZERO, "stop", run, "--address", address(client))
    assert stopped.startswith("stopped away-")
    assert first.wait(120) == 1
    said = log.read_text()
    assert said.count("starting the run in") == 1
    assert "connection lost" in said
    assert said.rstrip().endswith(": stopped")

    told = client.run(*submit(client, "--run", run), env=secret)
    assert "continues  away-" in told
    assert ", stopped: from what it left" in told
    client.run(RAYZERO, "stop", run, "--address", address(client))

    for folder in (run, "/tmp/ray"):
        for host in (head, client.hosts.hosts["other"]):
            found = host.run("sh", "-c", f"grep -rlF {SECRET} {folder} || true").split()
            assert all(each.endswith("/values.json") for each in found), found
            assert host.run("find", folder, "-name", "values.json", "-perm", "/077") == ""


def test_a_node_that_does_not_see_a_folder_is_named(client: Host) -> None:
    head = client.hosts.hosts["head"]
    head.run("sh", "-c", f"mkdir /tmp/mine && cp {client.hosts.shared}/work/data/q.jsonl /tmp/mine")
    for words, said in (
        (("--run", "/tmp/runs/x"), "--run /tmp/runs/x: node other (10.77.0.2) does not see this folder"),
        (
            ("--run", f"{client.hosts.shared}/runs/y", "data.sources.q.path=/tmp/mine/q.jsonl"),
            "data.sources.q.path = '/tmp/mine/q.jsonl': is not there on node other (10.77.0.2)",
        ),
    ):
        with pytest.raises(AssertionError) as caught:
            client.run(*submit(client, *words, "--follow"), env={"JUDGE_KEY": SECRET})
        assert said in str(caught.value)
        assert ": failed" in str(caught.value)


def _command_lines(host: Host, done: Callable[[], bool], log: Path) -> list[str]:
    """Command lines on the host that show the secret, until it is done."""
    deadline, found = time.monotonic() + 180, set[str]()
    while not done():
        assert time.monotonic() < deadline, log.read_text()
        for pid in host.processes():
            with contextlib.suppress(OSError):
                found.add(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
        time.sleep(0.02)
    assert any("default_worker.py" in each for each in found), "no worker was seen"
    return [each for each in found if SECRET in each]
