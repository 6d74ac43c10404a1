"""A Slurm of this machine's own, on loopback, with two nodes that are both this machine: munged, slurmctld and two slurmd,
started here and ended here by their process ids."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "scancel")
START_S = 60.0
END_S = 120.0

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=60
# A busy machine answers late, and that is no dead node: by default a job whose start is not answered in 10 s goes back into
# the queue for two minutes, and its node is down until it registers again.
MessageTimeout=90
TCPTimeout=30
BatchStartTimeout=180
SlurmdTimeout=0
JobRequeue=1
FirstJobId={first_job}
PreemptType=preempt/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverTimeLimit=0
"""


def fault() -> str:
    """Why there can be no Slurm here; empty when there can."""
    lacks = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if lacks:
        return f"no {', '.join(lacks)} (Debian: slurmctld, slurmd, slurm-client, munge)"
    return "" if os.geteuid() == 0 else "Slurm's daemons want root"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Slurm:
    folder: Path

    def ask(self, *command: str, environment: dict[str, str] | None = None) -> str:
        """Output of a command of Slurm's. Raises CalledProcessError."""
        done = subprocess.run(
            command,
            env=os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()} | (environment or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def rest(self) -> None:
        """Wait until both nodes are idle: after its end a job still holds its own until its last process has gone."""
        _until(lambda: _idle(self) == 2, lambda: f"{self.ask('sinfo', '--Node', '--long')}\n{self.said()}", END_S)

    def job(self, number: int) -> dict[str, str]:
        """What Slurm knows of a job, by its own names: JobState, ExitCode, Restarts, …"""
        words = self.ask("scontrol", "--oneliner", "show", "job", str(number)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def said(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(
            f"{file.name}: {file.read_text(errors='replace')[-1500:]}" for file in self.folder.glob("*.out")
        )

    def wait(self, number: int, states: Sequence[str], timeout_s: float) -> dict[str, str]:
        deadline = time.monotonic() + timeout_s
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < deadline, (
                f"job {number} is {job['JobState']} ({job['Reason']}) after {timeout_s:g} s\n{self.said()}"
            )
            time.sleep(0.5)
        return job


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A Slurm whose two nodes are idle, for the length of the block. `folder`: short, since sockets lie in it.

    Jobs have other numbers than those of a Slurm beside it: the script's ports and folders go by them.
    """
    ports = [_free_port() for _ in range(3)]
    conf = CONF.format(
        host=socket.gethostname(),
        first_job=1000 + os.getpid() % 60000,
        folder=folder,
        controller=ports[0],
        first=ports[1],
        second=ports[2],
    )
    (folder / "slurm.conf").write_text(conf)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munge = [
        *("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"),
        *(f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
    ]
    daemons: list[subprocess.Popen[bytes]] = []
    slurm = Slurm(folder)
    conf_at = str(folder / "slurm.conf")
    try:
        daemons.append(_daemon(folder, munge))
        _until(lambda: (folder / "munge.socket").exists(), slurm.said)
        daemons.append(_daemon(folder, ["slurmctld", "-D", "-f", conf_at]))
        daemons += [_daemon(folder, ["slurmd", "-D", "-f", conf_at, "-N", node]) for node in ("n1", "n2")]
        _until(lambda: _idle(slurm) == 2, slurm.said)
        yield slurm
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(10)


def _daemon(folder: Path, command: list[str]) -> "subprocess.Popen[bytes]":
    program = shutil.which(command[0], path=_path())
    assert program
    with open(folder / f"{'-'.join([command[0], *command[-1:]]).replace('/', '_')}.out", "wb") as out:
        return subprocess.Popen([program, *command[1:]], stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _idle(slurm: Slurm) -> int:
    with suppress(subprocess.CalledProcessError):
        return slurm.ask("sinfo", "--noheader", "--Node", "--format=%T").split().count("idle")
    return 0


def _until(there: Callable[[], bool], said: Callable[[], str], timeout_s: float = START_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not there():
        assert time.monotonic() < deadline, f"Slurm is not ready after {timeout_s:g} s:\n{said()}"
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
