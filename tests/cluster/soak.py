"""A small asynchronous run over three hosts that is struck at random, again and again, until it ends by itself.

    python -m tests.cluster.soak --faults 50 --seed 1

Prints a line a fault, and at the end a table: kind, how often, seconds until the next step (median, longest). Exit code 1 when the run does not end, the account does not add up, a step trained again gives other weights, or something
is left behind.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import STDOUT
from typing import Any

from orchestrator.run.folder import checkpoints
from orchestrator.run.ledger import describe_ledger, read_ledger
from rollout.faults import damage
from tests.cluster.hosts import PORT, Host, Hosts, obstacle
from tests.engine.test_survival import RECIPE, REWARD

RAYZERO = (sys.executable, "-m", "orchestrator")
ENV = {"PYTHONPATH": str(Path(__file__).parents[2])}
SETTINGS = (
    *("learner.ranks=1", "learner.cpus=0.5", "learner.timeout_s=30", "learner.resources={ranks=1}"),
    *(
        "rollout.replicas=2",
        "rollout.cpus=0.5",
        "rollout.kv_cache_gb=1",
        "rollout.timeout_s=30",
        "rollout.resources={engines=1}",
    ),
    *("rewards.timeout_s=20", "loop.audit_every=20", "loop.checkpoint_every=10", "cluster.wait_s=120"),
)
ON_PURPOSE = ["bucket.written:damage:15", "step.written:full:25", "taken:slow:30~5"]
"""Faults that only the processes themselves can make, each once."""
PATIENCE_S = 240.0
"""Longest wait for the next step."""


class Run:
    """The run, and the hosts that it lives on."""

    def __init__(self, hosts: Hosts, steps: int) -> None:
        self.hosts, self.steps = hosts, steps
        self.folder, self.log = hosts.shared / "run", hosts.shared / "log"
        (hosts.shared / "soak.toml").write_text(RECIPE.replace("ones.py", f"{hosts.shared}/ones.py"))
        (hosts.shared / "ones.py").write_text(REWARD)
        self.head = hosts.add("head")
        self.head.start_ray(cpus=1)
        self._names = 0
        for _ in range(2):
            self.add_host()
        self.process = self._start()

    def add_host(self) -> Host:
        """A host for ranks and engines."""
        self._names += 1
        host = self.hosts.add(f"worker{self._names}")
        host.start_ray(self.head, cpus=2, resources='{"ranks": 1, "engines": 2}')
        return host

    @property
    def workers(self) -> list[Host]:
        return [host for host in self.hosts.hosts.values() if host is not self.head]

    @property
    def recorded(self) -> int:
        """The newest step on record."""
        try:
            text = (self.folder / "metrics.jsonl").read_text()
        except OSError:
            return 0
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return max((line["step"] for line in lines if line["kind"] == "step"), default=0)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def processes(self, title: str) -> list[int]:
        """Those of all hosts whose title begins like this."""
        return [
            pid for host in self.hosts.hosts.values() for pid in host.processes() if _command(pid).startswith(title)
        ]

    def restart(self) -> None:
        """What whoever runs jobs does with one that died."""
        self.process.wait(30)
        self.process = self._start()

    def wait_for_step(self, step: int) -> float:
        """Seconds until a step after `step` is on record. A driver that ends with an error meanwhile is started again."""
        began = time.monotonic()
        while self.recorded <= step:
            if self.ended:
                if self.process.returncode == 0:
                    break
                print(f"    the run ended with {self.process.returncode}: {self.last_words()}", flush=True)
                self.restart()
            if time.monotonic() - began > PATIENCE_S:
                raise AssertionError(f"no step after {step} in {PATIENCE_S:.0f} s: {self.last_words()}")
            time.sleep(0.1)
        return time.monotonic() - began

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-600:]

    def _start(self) -> Any:
        plan = f"faults.at={json.dumps(ON_PURPOSE)}"
        return self.head.popen(
            *(*RAYZERO, "train", str(self.hosts.shared / "soak.toml"), "--run", str(self.folder)),
            *("--address", f"{self.head.address}:{PORT}", *SETTINGS, plan, f"loop.steps={self.steps}"),
            stdout=self.log.open("ab"),
            stderr=STDOUT,
            env=ENV,
        )


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


Strike = Callable[[Run, random.Random], str]
"""Does it; says to whom."""


def killed(title: str) -> Strike:
    def strike(run: Run, chance: random.Random) -> str:
        pid = chance.choice(run.processes(title))
        os.kill(pid, signal.SIGKILL)
        return str(pid)

    return strike


def frozen(title: str) -> Strike:
    def strike(run: Run, chance: random.Random) -> str:
        pid = chance.choice(run.processes(title))
        os.kill(pid, signal.SIGSTOP)
        return str(pid)

    return strike


def driver_killed(run: Run, _: random.Random) -> str:
    for pid in run.head.processes():
        if "-m orchestrator train" in _command(pid) and "nsenter" not in _command(pid):
            os.kill(pid, signal.SIGKILL)
    run.restart()
    return "and started again"


def cable_pulled(run: Run, chance: random.Random) -> str:
    host = chance.choice(run.workers)
    host.cut()
    time.sleep(chance.uniform(1, 5))
    host.mend()
    return host.name


def host_lost(run: Run, chance: random.Random) -> str:
    host = chance.choice(run.workers)
    host.remove()
    return f"{host.name}, {run.add_host().name} comes"


def host_drained(run: Run, chance: random.Random) -> str:
    host = chance.choice(run.workers)
    host.remove(notice=True)
    return f"{host.name}, {run.add_host().name} comes"


def checkpoint_damaged(run: Run, _: random.Random) -> str:
    """Noticed when it is read: so the driver dies too."""
    kept = list(checkpoints(run.folder, "rl").values())
    if kept:
        damage(kept[-1])
    return f"{kept[-1].name if kept else 'none yet'}, driver killed {driver_killed(run, random.Random(0))}"


KINDS: dict[str, Strike] = {
    "rank killed": killed("ray::LearnerActor"),
    "rank frozen": frozen("ray::LearnerActor"),
    "replica killed": killed("ray::RolloutReplica"),
    "engine killed": killed("VLLM::EngineCore"),
    "engine frozen": frozen("VLLM::EngineCore"),
    "reward worker killed": killed("ray::RewardWorker"),
    "reward worker frozen": frozen("ray::RewardWorker"),
    "driver killed": driver_killed,
    "cable pulled": cable_pulled,
    "host lost": host_lost,
    "host drained": host_drained,
    "checkpoint damaged": checkpoint_damaged,
}


def soak(run: Run, faults: int, chance: random.Random) -> dict[str, list[float]]:
    """Strike until enough is enough; kind → seconds until the next step, each time."""
    seconds: dict[str, list[float]] = defaultdict(list)
    kinds = _shuffled(chance)
    run.wait_for_step(2)
    for number in range(1, faults + 1):
        run.wait_for_step(run.recorded + chance.randrange(3))
        if run.ended:
            print(f"the run has ended after {number - 1} faults", flush=True)
            break
        kind, step = next(kinds), run.recorded
        try:
            whom = KINDS[kind](run, chance)
        except IndexError:
            print(f"{number:3d} {kind}: nobody is there", flush=True)
            continue
        took = run.wait_for_step(step)
        seconds[kind].append(took)
        print(f"{number:3d} {kind} ({whom}) after step {step}: next step {took:.1f} s later", flush=True)
    return seconds


def _shuffled(chance: random.Random) -> Iterator[str]:
    """Every kind once in each round."""
    while True:
        yield from chance.sample(sorted(KINDS), len(KINDS))


@contextmanager
def nothing_left(run: Run) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 60
    titles = ("ray::LearnerActor", "ray::RolloutReplica", "VLLM::EngineCore", "ray::RewardWorker")
    while left := [title for title in titles if run.processes(title)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(1)
    for host in run.hosts.hosts.values():
        memory = host.run("sh", "-c", "ls -d /dev/shm/rayzero-* 2>/dev/null || true").split()
        print(f"{host.name}: /dev/shm has {memory or 'nothing of it'}")


def main() -> int:
    """Run the soak; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--faults", type=int, default=12)
    options.add_argument(
        "--steps", type=int, default=100_000, help="length of the run; default: it is stopped after the faults"
    )
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    if why := obstacle():
        print(why)
        return 2
    chance = random.Random(given.seed)
    with Hosts() as hosts:
        run = Run(hosts, given.steps)
        with nothing_left(run):
            seconds = soak(run, given.faults, chance)
            if not run.ended:
                print(run.head.run(*RAYZERO, "stop", str(run.folder), env=ENV).strip())
            code = run.process.wait(300)
            print(f"the run ended with {code} at step {run.recorded}")
        ledger = read_ledger(run.folder, "rl")
        assert ledger is not None
        print("\n".join(describe_ledger("rl", ledger)))
        replayed = run.head.popen(*RAYZERO, "replay", str(run.folder), "--verify", env=ENV, stdout=-1, stderr=STDOUT)
        said, _ = replayed.communicate(timeout=1800)
        print(said.strip().splitlines()[-1])
        print(table(seconds))
        return int(bool(ledger.problems) or replayed.returncode != 0)


def table(seconds: dict[str, list[float]]) -> str:
    """One line a kind."""
    lines = [f"{'kind':24} count  median s  longest s"]
    for kind, took in sorted(seconds.items()):
        lines.append(f"{kind:24} {len(took):5d} {statistics.median(took):9.1f} {max(took):10.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
