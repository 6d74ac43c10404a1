"""deploy/slurm/rayzero.sh on a Slurm of two nodes, both of them this machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.one_machine_slurm import Slurm, fault, slurm

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "rayzero.sh"
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

on_slurm = pytest.mark.skipif(bool(fault()), reason=fault())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    with slurm(folder) as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _rested(request: pytest.FixtureRequest) -> None:
    """No test begins on nodes that the one before still holds."""
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").rest()


def submit(cluster: Slurm, run: Path, *words: str, nodes: int = 2, minutes: int = 5, **environment: str) -> int:
    """Number of the job. Both nodes are this machine, so Ray is to keep to loopback."""
    answer = cluster.ask(
        *(
            "sbatch",
            "--parsable",
            f"--nodes={nodes}",
            f"--time={minutes}",
            f"--output={run}.out",
            str(SCRIPT),
            str(run),
        ),
        *words,
        environment={"RAYZERO_BIN": str(Path(sys.executable).parent), "HEAD_IP": "127.0.0.1", "HOME": str(run.parent)}
        | environment,
    )
    return int(answer)


def end_of(cluster: Slurm, job: int, run: Path, timeout_s: float = 240) -> dict[str, str]:
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
    found = cluster.wait(job, ended, timeout_s)
    said = Path(f"{run}.out").read_text() if Path(f"{run}.out").exists() else ""
    return found | {"said": said}


def assert_nothing_is_left(job: int, home: Path) -> None:
    assert not list(home.glob(".rayzero-token*")), "the token goes with the job"
    assert not Path(f"/tmp/ray-{job}").exists(), "Ray's folder goes with the job"
    left = [
        line
        for line in subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
        if f"/tmp/ray-{job}/" in line
    ]
    assert not left, "Ray's processes go with the job"


def steps(run: Path) -> list[dict[str, Any]]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [each for each in records if each["kind"] == "step" and each["stage"] == "reasoning"]


@pytest.mark.engine
@pytest.mark.long
@on_slurm
def test_a_job_trains_on_two_nodes_and_the_same_command_continues_it(cluster: Slurm, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for until, count in (("cold-start", 0), ("reasoning", 2)):
        job = submit(cluster, run, "arithmetic", *SMALL, "--until", until)
        found = end_of(cluster, job, run)
        log = Path(f"{run}.ray-{job}.log").read_text()
        assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), f"{found['said']}\n{log}"
        assert [each["step"] for each in steps(run)] == list(range(1, count + 1)), "no step is taken twice"
        assert_nothing_is_left(job, tmp_path)
    assert (run / "report.html").is_file()


@pytest.mark.engine
@pytest.mark.long
@on_slurm
def test_a_mistake_in_the_recipe_ends_the_job_with_its_exit_code(cluster: Slurm, tmp_path: Path) -> None:
    """And the cluster that was started for it ends too."""
    job = submit(cluster, tmp_path / "run", "arithmetic", "learner.lrr=1", nodes=1)
    found = end_of(cluster, job, tmp_path / "run")
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "2:0"), found["said"]
    assert "learner.lrr" in found["said"]
    assert_nothing_is_left(job, tmp_path)


@pytest.mark.long
@on_slurm
@pytest.mark.parametrize(
    ("run", "words", "told"),
    [("run", ("arithmetic",), "absolute folder"), ("/data/run", (), "what to train")],
    ids=["relative", "no recipe"],
)
def test_what_cannot_run_is_refused_before_a_cluster_starts(
    cluster: Slurm, tmp_path: Path, run: str, words: tuple[str, ...], told: str
) -> None:
    out = tmp_path / "out"
    answer = cluster.ask(
        "sbatch", "--parsable", f"--output={out}", str(SCRIPT), run, *words,
        environment={"RAYZERO_BIN": str(Path(sys.executable).parent), "HOME": str(tmp_path)},
    )  # fmt: skip
    found = cluster.wait(int(answer), ("COMPLETED", "FAILED"), 120)
    assert found["ExitCode"] == "2:0"
    assert told in out.read_text()
    assert not list(tmp_path.glob(".rayzero-token*"))


PATIENT = """#!/bin/sh
# A rayzero that goes on until it is told to end, and then ends as a run that was interrupted.
echo "start ${SLURM_RESTART_COUNT:-0} token $(stat -c %a "$RAY_AUTH_TOKEN_PATH")"
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || exit 0
trap 'echo interrupted; exit 130' TERM
while :; do sleep 0.2; done
"""
QUICK = """#!/bin/sh
# A ray that listens for nothing and stays.
mkdir -p "$RAY_FOLDER"
trap 'exit 0' TERM
while :; do sleep 0.2; done
"""
JOINED = """#!/bin/sh
# A python that finds all nodes at once.
case "$*" in *secrets*) printf t ;; *get_node*) echo 127.0.0.1 ;; esac
"""


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder with a rayzero, a ray and a python that only do as if: what Slurm does is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"rayzero": PATIENT, "ray": QUICK, "python": JOINED}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.long
@on_slurm
def test_nodes_on_which_ray_does_not_start_end_the_job_at_once(cluster: Slurm, tmp_path: Path, stand_ins: Path) -> None:
    """Not after the 300 s in which nodes may join."""
    (stand_ins / "ray").write_text("#!/bin/sh\necho no port; exit 1\n")
    (stand_ins / "python").write_text(JOINED + 'case "$1" in -) exec sleep 300 ;; esac\n')
    run = tmp_path / "run"
    job = submit(cluster, run, "arithmetic", RAYZERO_BIN=str(stand_ins))
    found = end_of(cluster, job, run, 120)
    assert found["ExitCode"] == "1:0"
    assert f"{run}.ray-{job}.log" in found["said"]
    assert "no port" in Path(f"{run}.ray-{job}.log").read_text()
    assert_nothing_is_left(job, tmp_path)


@pytest.mark.long
@on_slurm
def test_a_job_whose_time_is_over_ends_the_run_in_order_and_is_put_in_the_queue_again(
    cluster: Slurm, tmp_path: Path, stand_ins: Path
) -> None:
    run = tmp_path / "run"
    job = submit(cluster, run, "arithmetic", nodes=1, RAYZERO_BIN=str(stand_ins))
    _said(run, "start 0")
    cluster.ask("scancel", "--batch", "--signal=USR1", str(job))  # what --signal sends before the time is over
    _said(run, "in the queue again")
    deadline = time.monotonic() + 30
    while cluster.job(job)["Restarts"] != "1":  # it stands in the queue; Slurm begins it anew two minutes later
        assert time.monotonic() < deadline, "it was not put in the queue again"
        time.sleep(0.2)
    assert Path(f"{run}.out").read_text().split("\n")[:2] == ["start 0 token 600", "interrupted"]
    assert not list(tmp_path.glob(".rayzero-token*"))
    cluster.ask("scancel", str(job))


@pytest.mark.long
@on_slurm
def test_a_job_that_is_told_to_end_ends_the_run_in_order_and_stays_away(
    cluster: Slurm, tmp_path: Path, stand_ins: Path
) -> None:
    run = tmp_path / "run"
    job = submit(cluster, run, "arithmetic", nodes=1, RAYZERO_BIN=str(stand_ins))
    _said(run, "start 0")
    cluster.ask("scancel", "--batch", "--signal=TERM", str(job))
    found = end_of(cluster, job, run, 60)
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "143:0")
    _said(run, "interrupted")
    assert not list(tmp_path.glob(".rayzero-token*"))


@pytest.mark.long
@on_slurm
def test_a_cancelled_job_leaves_nothing(cluster: Slurm, tmp_path: Path, stand_ins: Path) -> None:
    run = tmp_path / "run"
    job = submit(cluster, run, "arithmetic", RAYZERO_BIN=str(stand_ins))
    _said(run, "start 0")
    cluster.ask("scancel", str(job))
    assert end_of(cluster, job, run, 60)["JobState"] == "CANCELLED"
    _said(run, "interrupted")
    assert_nothing_is_left(job, tmp_path)


def _said(run: Path, text: str, timeout_s: float = 60) -> None:
    out, deadline = Path(f"{run}.out"), time.monotonic() + timeout_s
    while not out.exists() or text not in out.read_text():
        assert time.monotonic() < deadline, f"no {text!r}: {out.read_text() if out.exists() else 'no output'}"
        time.sleep(0.2)


def test_the_script_is_one_that_bash_reads() -> None:
    bash = shutil.which("bash")
    assert bash
    subprocess.run([bash, "-n", str(SCRIPT)], check=True, env=dict(os.environ))
