"""Hosts made of this machine: Linux namespaces that share its disk and nothing else.

A host has a network of its own with an address on a bridge that only its `Hosts` have, its own `/dev/shm` and `/tmp`, process
table, IPC and name, and ends as a machine does: all at once. Files anywhere else are shared, as over NFS; `Hosts.shared` is a
folder for them. What is run inside sees `HOME` there, and Ray's token.

Needs root, and iproute2 (`ip`, `tc`) and util-linux (`unshare`, `nsenter`); `obstacle` says what is missing.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379
"""Port of Ray's control store on the head."""
DASHBOARD = 8265
INSIDE = (
    "mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /tmp && hostname {name} && ip link set lo up && exec {wait}"
)
WAIT = "sh -c 'while :; do sleep 1000 & wait; done'"
"""First process of a host, which all others are orphaned to."""
HERE = ("sh", "-c", 'cd "$0" && exec "$@"')
"""Runs a command in the folder that is named before it: entering a host's mounts leads to its root."""


def obstacle() -> str:
    """Why no hosts can be made here; empty: they can."""
    if os.geteuid() != 0:
        return "hosts are namespaces, which only root may make"
    for program in ("ip", "tc", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"`{program}` is missing (Debian: iproute2, util-linux)"
    name = f"rz{os.getpid()}try"
    tried = _try("ip", "netns", "add", name) or _try("ip", "-n", name, "link", "add", "name", "b", "type", "bridge")
    _try("ip", "netns", "del", name)
    return f"namespaces are refused: {tried}" if tried else ""


class Hosts:
    """Some hosts on one switch."""

    def __init__(self) -> None:
        self._label = f"rz{os.getpid()}{secrets.token_hex(2)}"
        self._switch = f"{self._label}s"
        self.hosts: dict[str, Host] = {}
        self.shared = Path(tempfile.mkdtemp(prefix="hosts-", dir="/var/tmp"))
        """A folder that every host sees."""
        self.token = self.shared / "token"
        self.token.touch(0o600)
        self.token.write_text(secrets.token_hex(32))
        self._count = 0
        _run("ip", "netns", "add", self._switch)
        _run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", self._switch, "link", "set", "bridge", "up")

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, name: str) -> "Host":
        """A host more, that nothing runs on."""
        self._count += 1
        host = Host(self, name, f"{self._label}h{self._count}", self._switch, f"10.77.0.{self._count}")
        self.hosts[name] = host
        return host

    def close(self) -> None:
        """End all hosts and what runs on them."""
        for host in list(self.hosts.values()):
            host.remove()
        _try("ip", "netns", "del", self._switch)
        shutil.rmtree(self.shared, ignore_errors=True)


class Host:
    """One host. Made by `Hosts.add`."""

    def __init__(self, hosts: Hosts, name: str, space: str, switch: str, address: str) -> None:
        self.hosts, self.name, self.address = hosts, name, address
        self._space, self._switch, self._port = space, switch, f"p{space[-8:]}"
        _run("ip", "netns", "add", space)
        _run(
            *("ip", "-n", switch, "link", "add", self._port, "type", "veth"),
            *("peer", "name", "eth0", "netns", space),
        )
        _run("ip", "-n", switch, "link", "set", self._port, "master", "bridge", "up")
        _run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        _run("ip", "-n", space, "link", "set", "eth0", "up")
        inside = INSIDE.format(name=name, wait=WAIT)
        self._keeper = subprocess.Popen(
            [
                *("ip", "netns", "exec", space, "unshare", "-m", "-u", "-i", "-p"),
                *("--fork", "--kill-child", "--mount-proc", "sh", "-c", inside),
            ],
            start_new_session=True,
        )
        self._entered: list[subprocess.Popen[str]] = []
        """What was run on the host, as it is seen from outside: it stops with its child."""
        self._first = self._find_first()

    def __repr__(self) -> str:
        return f"Host({self.name}, {self.address})"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of what is run on the host."""
        return {
            **{name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ},
            "HOME": str(self.hosts.shared),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.hosts.token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def popen(self, *command: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a command on the host; its working directory is this process's own."""
        process = subprocess.Popen(
            ["nsenter", "-t", str(self._first), "-m", "-u", "-i", "-n", "-p", "--", *HERE, os.getcwd(), *command],
            env=self.environment | dict(env or {}),
            text=True,
            start_new_session=True,
            **options,
        )
        self._entered.append(process)
        return process

    def run(self, *command: str, timeout: float = 120, **options: Any) -> str:
        """What a command on the host printed. Raises AssertionError, with it, when it fails or takes longer."""
        with self.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as process:
            try:
                printed, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                printed, _ = process.communicate()
                raise AssertionError(f"{self.name}: {command} took over {timeout} s:\n{printed}") from None
        assert process.returncode == 0, f"{self.name}: {command} ended with {process.returncode}:\n{printed}"
        return printed

    def start_ray(self, head: "Host | None" = None, cpus: int = 2, resources: str = "{}", store_mb: int = 256) -> None:
        """Join Ray's cluster of `head`, or begin one."""
        place = ["--head", f"--port={PORT}", f"--dashboard-host={self.address}", f"--dashboard-port={DASHBOARD}"]
        self.run(
            *(RAY, "start", f"--node-ip-address={self.address}", f"--num-cpus={cpus}"),
            *(f"--object-store-memory={store_mb << 20}", f"--resources={resources}", "--disable-usage-stats"),
            *([f"--address={head.address}:{PORT}"] if head else place),
            timeout=180,
        )

    def processes(self) -> list[int]:
        """Process ids, as this machine counts them, of all that runs on the host."""
        mine = os.readlink(f"/proc/{self._first}/ns/pid")
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == mine:
                    found.append(int(entry.name))
        return found

    def freeze(self) -> None:
        """Let nothing on the host go on, as a machine that hangs. What answers for it is its network alone."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for pid in [*self.processes(), *(process.pid for process in self._entered if process.poll() is None)]:
            os.kill(pid, signal.SIGCONT)

    def cut(self) -> None:
        """Pull the cable."""
        _run("ip", "-n", self._switch, "link", "set", self._port, "down")

    def mend(self) -> None:
        """Put it back, and wait until both ends have noticed. Who asked for the host meanwhile may get no answer for 3 s more."""
        _run("ip", "-n", self._switch, "link", "set", self._port, "up")
        deadline = time.monotonic() + 20
        for space, device in ((self._switch, self._port), (self._space, "eth0")):
            while not re.search(r"\bstate UP\b", _said("ip", "-n", space, "link", "show", device)):
                assert time.monotonic() < deadline, f"{self.name}: no link after 20 s"
                time.sleep(0.01)

    def slow(self, mbit: float, delay_ms: float = 0, loss_percent: float = 0) -> None:
        """Limit what the host sends and gets to a rate each; delay and loss where the kernel has netem (RuntimeError: it has not)."""
        for space, device in ((self._space, "eth0"), (self._switch, self._port)):
            _run(
                *("ip", "netns", "exec", space, "tc", "qdisc", "replace", "dev", device, "root", "handle", "1:"),
                *("tbf", "rate", f"{mbit}mbit", "burst", f"{max(32, int(mbit))}kb", "latency", "200ms"),
            )
            if delay_ms or loss_percent:
                _run(
                    *("ip", "netns", "exec", space, "tc", "qdisc", "replace", "dev", device, "parent", "1:1"),
                    *("netem", "delay", f"{delay_ms}ms", "loss", f"{loss_percent}%"),
                )

    def shrink(self, folder: str, megabytes: int) -> None:
        """Leave so much room in `/tmp` or `/dev/shm`, whatever is there already."""
        used = int(self.run("du", "-sm", folder).split()[0])
        self.run("mount", "-o", f"remount,size={used + megabytes}m", folder)

    def remove(self, notice: bool = False) -> None:
        """End the host and everything on it. `notice`: its Ray is told first, and leaves in order."""
        if notice and self._keeper.poll() is None:
            self.run(RAY, "stop", timeout=60)  # of this host's processes alone: it sees no others
        if self._keeper.poll() is None:
            os.kill(self._first, signal.SIGKILL)
            for process in self._entered:
                # A stopped one would not notice that its child has ended, and the host would wait for it.
                if process.poll() is None:
                    process.send_signal(signal.SIGCONT)
            self._keeper.wait(30)
        _try("ip", "-n", self._switch, "link", "del", self._port)
        _try("ip", "netns", "del", self._space)
        self.hosts.hosts.pop(self.name, None)

    def _find_first(self) -> int:
        """Process id of the host's first process, once it has set the host up."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self._keeper.poll() is None, f"{self.name} did not start: {self._keeper.returncode}"
            with contextlib.suppress(OSError, ValueError, IndexError):
                children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children").read_text().split()
                if b"while" in Path(f"/proc/{children[0]}/cmdline").read_bytes().split(b"\0")[-2][:20]:
                    return int(children[0])
            time.sleep(0.01)
        raise AssertionError(f"{self.name} did not start in 20 s")


def _run(*command: str) -> None:
    _said(*command)


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _try(*command: str) -> str:
    """What a command complained of; empty: it did not."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip() or "failed" if done.returncode else ""


__all__: Sequence[str] = ("DASHBOARD", "PORT", "Host", "Hosts", "obstacle")
