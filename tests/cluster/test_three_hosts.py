"""Every kind of stage on three hosts, with driver, engines, ranks and reward workers on them in several combinations.

`pytest -s -m long tests/cluster/test_three_hosts.py` prints what every kind took in every placement.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import Hosts, obstacle

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

RAYZERO = str(Path(sys.executable).with_name("rayzero"))
NAMES = ("red", "green", "blue")
RECIPE = """
name = "kinds"
model.build = { tokenizer = "characters", layers = 1, hidden = 32, heads = 1, kv_heads = 1, intermediate = 32 }
model.max_tokens = 512
data.max_prompt_tokens = 64
rollout = { max_tokens = 96, group_size = 2, kv_cache_gb = 1, cpus = 0.5 }
learner = { cpus = 0.5 }
sft = { batch_size = 8 }
dpo.batch_size = 8
reward_model.batch_size = 8
eval = { samples = 2, sets.sums = { path = "SHARED/others.jsonl" } }
cluster.address = "auto"

[loop]
steps = 2
groups_per_step = 4
eval_every = 0
audit_every = 1
checkpoint_every = 1

[[stages]]
name = "base"
kind = "sft"
learner = { lr = 1e-2, cpus = 0.5 }
loop = { steps = 60, checkpoint_every = 0, groups_per_step = 4, eval_every = 0 }
data.sources.sums = { path = "SHARED/sums.jsonl", completion_column = "completion" }

[[stages]]
name = "liking"
kind = "reward_model"
data.sources.pairs = { task = "manners", chosen_column = "chosen", rejected_column = "rejected", limit = 64 }

[[stages]]
name = "rl"
kind = "grpo"
model_from = "base"
data.sources.sums = { path = "SHARED/sums.jsonl" }
rewards.rubrics.default = { format = 0.2, model = { name = "reward_model", path = "stage:liking" } }

[[stages]]
name = "samples"
kind = "reject"
model_from = "rl"
reject = { samples = 2, keep = "best", filters = [], near_duplicate = 1.0 }
data.sources.sums = { path = "SHARED/sums.jsonl", limit = 4 }

[[stages]]
name = "preferences"
kind = "dpo"
model_from = "rl"
data.sources.pairs = { task = "manners", chosen_column = "chosen", rejected_column = "rejected", limit = 64 }

[[stages]]
name = "student"
kind = "sft"
model_from = "own"
model.build = { hidden = 64, heads = 2, kv_heads = 2, intermediate = 64 }
data.sources.lessons = { stage = "samples" }

[[stages]]
name = "measure"
kind = "eval"
model_from = "preferences"
"""
KINDS = {"base": "sft", "liking": "reward_model", "rl": "grpo", "samples": "reject", "preferences": "dpo"}
KINDS |= {"student": "distillation", "measure": "eval"}


@dataclass
class Placement:
    """Who lives where."""

    driver: str
    engines: tuple[str, ...]
    ranks: tuple[str, ...]
    rewards: str
    settings: tuple[str, ...] = ()
    seen: dict[str, set[str]] = field(default_factory=dict)
    """Service → hosts that the run has said its members live on."""

    def words(self) -> tuple[str, ...]:
        """Settings that place a run so. On one host by its own resource, on several by one that each has once."""

        def on(hosts: tuple[str, ...]) -> str:
            return f"{{on-{hosts[0]}=1}}" if len(hosts) == 1 else "{one-a-host=1}"

        return (
            *(f"rollout.resources={on(self.engines)}", f"rollout.replicas={len(self.engines)}"),
            *(f"learner.resources={on(self.ranks)}", f"learner.ranks={len(self.ranks)}"),
            *(f"rewards.resources={on((self.rewards,))}", *self.settings),
        )


PLACEMENTS = {
    "everybody apart": Placement("red", ("green",), ("blue",), "red"),
    "turned round": Placement("green", ("blue",), ("red",), "blue"),
    "learner beside the driver": Placement("red", ("blue",), ("red",), "green"),
    "engine beside the driver": Placement("blue", ("blue",), ("green",), "red"),
    "driver alone": Placement("red", ("green",), ("green",), "blue"),
    "engines on two hosts": Placement("red", ("green", "blue"), ("red",), "green"),
    "ranks on two hosts": Placement("green", ("red",), ("green", "blue"), "blue", ("learner.zero_stage=2",)),
    "adapters": Placement("blue", ("red",), ("green",), "red", ("learner.lora_rank=4",)),
}


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts() as hosts:
        red, *others = (hosts.add(name) for name in NAMES)
        for host in (red, *others):
            offered = {f"on-{host.name}": 9.0} | ({"one-a-host": 1.0} if host.name != "red" else {})
            host.start_ray(None if host is red else red, cpus=2, resources=json.dumps(offered))
        (hosts.shared / "kinds.toml").write_text(RECIPE.replace("SHARED", str(hosts.shared)))
        rows = [
            {"prompt": f"{a}+{b}=", "completion": str(a + b), "answer": str(a + b)} for a in range(5) for b in range(5)
        ]
        for name, part in {"sums": rows[4:], "others": rows[:4]}.items():
            (hosts.shared / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        yield hosts


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows = ["| placement | kind | seconds | result |", "|---|---|---|---|"]
    yield rows
    print("\n" + "\n".join(rows))


def start(hosts: Hosts, on: str, run: Path, *words: str) -> "subprocess.Popen[str]":
    log = (hosts.shared / f"{run.name}.log").open("a")
    command = (RAYZERO, "train", *words)
    return hosts.hosts[on].popen(*command, stdout=log, stderr=subprocess.STDOUT)


def records(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def steps(run: Path, stage: str) -> list[dict[str, Any]]:
    return [each for each in records(run) if each["kind"] == "step" and each["stage"] == stage]


def watch(run: Path, seen: dict[str, set[str]]) -> None:
    """Remember the hosts that the run says of its members."""
    try:
        state = json.loads((run / "state.json").read_text())
    except (OSError, ValueError):
        return
    for name, service in state.get("services", {}).items():
        seen.setdefault(name, set()).update(each["node"] for each in service["members"] if each["node"])


def wait(job: "subprocess.Popen[str]", run: Path, seen: dict[str, set[str]], until: Any = None) -> int | None:
    """The job's exit code; None: `until` has come true before."""
    deadline = time.monotonic() + 300
    while (code := job.poll()) is None and not (until and until()):
        watch(run, seen)
        assert time.monotonic() < deadline, said(run)
        time.sleep(0.2)
    return code


def said(run: Path) -> str:
    """The end of what the driver printed."""
    return (run.parent / f"{run.name}.log").read_text()[-3000:]


def add_rows(table: list[str], placement: str, run: Path) -> None:
    began: dict[str, float] = {}
    for each in records(run):
        if each["kind"] == "stage" and each["event"] == "start":
            began[each["stage"]] = each["time"]
        elif each["kind"] == "stage" and each["event"] == "end":
            took = each["time"] - began[each["stage"]]
            table.append(f"| {placement} | {KINDS[each['stage']]} | {took:.1f} | done |")


def assert_whole(run: Path, rl_steps: int, exports: Mapping[str, str]) -> None:
    for stage in exports:
        assert (run / stage / "done").is_file() or (run / stage / "export").is_dir(), stage
    found = steps(run, "rl")
    assert [each["step"] for each in found] == list(range(1, rl_steps + 1))
    for each in found:
        assert each["audit/mean_diff"] < 1e-4, "the engines hold the learner's weights"
        assert each["publish/bytes"] > 0
    assert {each["set"] for each in records(run) if each["kind"] == "eval"} == {"sums"}


@pytest.mark.parametrize("name", PLACEMENTS)
def test_every_kind_of_stage(hosts: Hosts, table: list[str], name: str) -> None:
    place = PLACEMENTS[name]
    run = hosts.shared / name.replace(" ", "-")
    job = start(hosts, place.driver, run, str(hosts.shared / "kinds.toml"), "--run", str(run), *place.words())
    code = wait(job, run, place.seen)
    add_rows(table, name, run)
    assert code == 0, said(run)
    assert_whole(run, 2, KINDS)
    expected = {"rollout": place.engines, "learner": place.ranks, "rewards": (place.rewards,)}
    assert place.seen == {service: set(where) for service, where in expected.items()}


def test_a_run_is_looked_after_from_a_host_that_it_is_not_on_and_goes_on_from_another(
    hosts: Hosts, table: list[str]
) -> None:
    run, third = hosts.shared / "interrupted", hosts.hosts["blue"]
    place = Placement("red", ("red",), ("green",), "green")
    words = (*place.words(), "stages.rl.loop.steps=8")
    job = start(hosts, "red", run, str(hosts.shared / "kinds.toml"), "--run", str(run), *words)
    assert wait(job, run, place.seen, lambda: len(steps(run, "rl")) >= 2) is None, said(run)
    assert " on red" in third.run(RAYZERO, "status", str(run))
    assert "rewards: 1 → 2 workers" in third.run(RAYZERO, "scale", str(run), "rewards=2")
    assert "8 steps" in third.run(RAYZERO, "watch", str(run), "--once")
    assert " on red has ended" in third.run(RAYZERO, "stop", str(run))
    assert job.wait(10) == 130
    assert "stopped" in third.run(RAYZERO, "status", str(run))
    before = steps(run, "rl")
    code = wait(start(hosts, "blue", run, str(run)), run, place.seen)
    add_rows(table, "interrupted, driver moved", run)
    assert code == 0, said(run)
    assert_whole(run, 8, KINDS)
    assert steps(run, "rl")[: len(before)] == before
    began = time.monotonic()
    assert "sums" in hosts.hosts["green"].run(RAYZERO, "eval", str(run), timeout=240)
    table.append(f"| evaluated from a third host | rayzero eval | {time.monotonic() - began:.1f} | done |")


def test_nothing_is_left_on_a_host(hosts: Hosts) -> None:
    for host in hosts.hosts.values():
        assert host.run("sh", "-c", "find /dev/shm -path '*rayzero-*' -type f").split() == [], host
