"""A run on several hosts that loses one, and one whose driver freezes while another takes it over."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import STDOUT
from typing import Any

import pytest

from orchestrator.run.ledger import read_ledger
from tests.cluster.hosts import PORT, Host, Hosts, obstacle
from tests.engine.test_survival import RECIPE, REWARD

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

RAYZERO = (sys.executable, "-m", "orchestrator")
ROOT = Path(__file__).parents[2]
ENV = {"PYTHONPATH": str(ROOT)}
SMALL = ("learner.ranks=1", "loop.audit_every=0", "rollout.cpus=0.5", "rollout.kv_cache_gb=1")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts() as hosts:
        (hosts.shared / "struck.toml").write_text(RECIPE.replace("ones.py", f"{hosts.shared}/ones.py"))
        (hosts.shared / "ones.py").write_text(REWARD)
        yield hosts


def begin(host: Host, run: Path, head: Host, log: Path, *words: str) -> Any:
    """Start `rayzero train` on a host; its output goes to `log`."""
    recipe = str(host.hosts.shared / "struck.toml")
    return host.popen(
        *(*RAYZERO, "train", recipe, "--run", str(run), "--address", f"{head.address}:{PORT}"),
        *(*SMALL, *words),
        stdout=log.open("wb"),
        stderr=STDOUT,
        env=ENV,
    )


def recorded(run: Path) -> list[dict[str, Any]]:
    text = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if line["kind"] == "step"]


def until(what: Callable[[], bool], log: Path, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)


def adds_up(run: Path, steps: int) -> None:
    ledger = read_ledger(run, "rl")
    assert ledger is not None
    assert (ledger.problems, ledger.steps, ledger.on_its_way) == ([], steps, 0)
    assert sorted({record["step"] for record in recorded(run)}) == list(range(1, steps + 1))


def test_ranks_come_back_on_another_host_when_theirs_is_lost(hosts: Hosts) -> None:
    head, *others = (hosts.add(name) for name in ("head", "one", "two"))
    head.start_ray(cpus=2)
    for host in others:
        host.start_ray(head, cpus=1, resources='{"ranks": 1}')
    run, log = hosts.shared / "run", hosts.shared / "log"
    process = begin(head, run, head, log, "learner.resources={ranks=1}", "loop.steps=30")
    until(lambda: len(recorded(run)) >= 3, log)
    lost = next(host for host in others if any(b"LearnerActor" in name(pid) for pid in host.processes()))
    before, began = len(recorded(run)), time.monotonic()
    lost.remove()
    until(lambda: len(recorded(run)) > before, log)
    print(f"a step {time.monotonic() - began:.0f} s after the host was lost")
    assert process.wait(300) == 0, log.read_text()[-3000:]
    assert "new ranks take over" in log.read_text()
    adds_up(run, 30)
    said = head.run(*RAYZERO, "replay", str(run), "--verify", env=ENV, timeout=200)
    assert "30 steps trained again: 30 with the same weights" in said


def test_a_driver_that_wakes_up_after_another_took_over_writes_nothing(hosts: Hosts) -> None:
    head = hosts.add("head")
    head.start_ray(cpus=2)
    run, log = hosts.shared / "run", hosts.shared / "log"
    frozen = begin(head, run, head, log, "loop.steps=60")
    until(lambda: len(recorded(run)) >= 2, log)
    driver = json.loads((run / "lease.json").read_text())["pid"]
    mine = next(pid for pid in head.processes() if inside(pid) == driver)
    os.kill(mine, signal.SIGSTOP)
    (run / "lock").unlink()  # as where locks do not reach
    later = hosts.shared / "later"
    taken_over = begin(head, run, head, later, "loop.steps=60")
    assert taken_over.wait(300) == 0, later.read_text()[-3000:]
    adds_up(run, 60)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    os.kill(mine, signal.SIGCONT)
    os.kill(frozen.pid, signal.SIGCONT)  # it stops with its child
    assert frozen.wait(60) == 1, log.read_text()[-3000:]
    assert "was taken over by process" in log.read_text()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def name(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def inside(pid: int) -> int:
    """Number of a process as its host counts."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])
