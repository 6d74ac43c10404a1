"""A run that is struck again and again: ranks killed, the driver killed, its newest checkpoint damaged, its ranks scaled. It comes to its end,
every prompt is accounted for, and its weights are those that the recorded steps give.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.run.folder import checkpoints
from orchestrator.run.ledger import read_ledger
from rollout.faults import damage

RECIPE = """
name = "struck"
[model]
max_tokens = 64
build = { tokenizer = "characters", layers = 2, hidden = 32, heads = 1, kv_heads = 1, intermediate = 32 }
[data]
template = "plain"
max_prompt_tokens = 32
sources.sums = { task = "arithmetic", split = "train", options = { digits = 2 } }
[rollout]
group_size = 4
max_tokens = 16
[learner]
ranks = 2
cpus = 0.5
lr = 1e-3
[loop]
steps = 8
groups_per_step = 4
max_staleness = 1
checkpoint_every = 2
audit_every = 3
[rewards.rubrics.default]
"ones.py:ones" = 1.0
[[stages]]
name = "rl"
kind = "grpo"
"""
REWARD = "def ones(completion):\n    return completion.count('1') + len(completion) / 100\n"
FAULTS = ["rank.optimizer:kill:3@learner-1", "rank.stage_weights:kill:2@learner-0", "committed:kill:6"]
STEPS = 60
"""Length of the stage in its second start, in which the number of ranks changes twice."""
DEADLINE_S = 300


def rayzero(folder: Path, *arguments: str, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """(exit code, output). A group of its own; its output goes to a file, since a pipe would stay open with what outlives a kill."""
    log = folder / f"log-{len(list(folder.glob('log-*')))}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *arguments],
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            start_new_session=True,
        )
    try:
        meanwhile()
        return process.wait(DEADLINE_S), log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def steps(run: Path) -> list[dict[str, object]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "step"]


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def orphaned_memory() -> set[str]:
    """Folders of publishes whose process is gone."""
    folders = Path("/dev/shm").glob("rayzero-*")
    return {path.name for path in folders if not Path("/proc", path.name.rpartition("-")[2]).exists()}


def of_the_run(run: Path) -> list[str]:
    """Command lines of the processes that know its folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(run) in line and process.name != str(os.getpid()):
            found.append(line)
    return found


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """(run, what its first start said, what its second said)."""
    folder = tmp_path_factory.mktemp("struck")
    (folder / "struck.toml").write_text(RECIPE)
    (folder / "ones.py").write_text(REWARD)
    memory = orphaned_memory()
    code, first = rayzero(folder, "train", "struck.toml", f"faults.at={json.dumps(FAULTS)}")
    run = folder / "runs" / "struck"
    assert code == -signal.SIGKILL, first[-3000:]
    damage(list(checkpoints(run, "rl").values())[-1])

    def scale() -> None:
        for count, after in ((1, 10), (2, 20)):
            until(lambda after=after: steps(run)[-1]["step"] >= after)
            assert rayzero(folder, "scale", str(run), f"learner={count}")[0] == 0

    code, second = rayzero(folder, "train", str(run), f"loop.steps={STEPS}", meanwhile=scale)
    assert code == 0, second[-3000:]
    assert not of_the_run(run)
    assert orphaned_memory() <= memory
    return run, first, second


def test_it_comes_to_its_end(struck: tuple[Path, str, str]) -> None:
    run, first, second = struck
    assert [record["step"] for record in steps(run)] == list(range(1, STEPS + 1))
    assert {path.name for path in (run / "faults").iterdir()} == {
        fault.replace(":", "_").replace("@", "_") for fault in FAULTS
    }
    assert first.count("new ranks take over") == 2
    assert "rank 1 died" in first and "rank 0 died" in first  # noqa: PT018
    assert "is not what was written; it is left aside as step-000004.damaged" in second
    assert "continues from step 2" in second
    assert "trains steps 3 to 6 again from their files" in second
    assert "gives other weights" not in second
    assert "2 → 1 learner ranks, from step" in second
    assert "1 → 2 learner ranks, from step" in second
    assert (run / "rl" / "export" / "config.json").is_file()


def test_every_prompt_is_accounted_for(struck: tuple[Path, str, str]) -> None:
    run = struck[0]
    ledger = read_ledger(run, "rl")
    assert ledger is not None
    assert (ledger.problems, ledger.steps, len(ledger.trained), ledger.on_its_way) == ([], STEPS, 4 * STEPS, 0)
    code, said = rayzero(run.parents[1], "status", str(run), "--ledger")
    assert (code, "every number is there once" in said) == (0, True), said


def test_the_recorded_steps_give_its_weights_in_other_processes(struck: tuple[Path, str, str]) -> None:
    run = struck[0]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    code, said = rayzero(run.parents[1], "replay", str(run), "--verify")
    assert code == 0, said
    assert f"{STEPS} steps trained again: {STEPS} with the same weights, 0 with others" in said
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
