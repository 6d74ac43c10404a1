"""The host's end of a sandbox worker: its start, orders to it, events from it."""

import asyncio
import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewards.sandbox.inside.messages import receive, send
from rewards.sandbox.packages import Packages
from rewards.sandbox.types import MEGABYTE, BrokenPackage, Limits, SandboxFault, SandboxUnavailable, Tier

START_TIMEOUT_S = 30.0
PACKAGE_TIMEOUT_S = 60.0
"""How long the import of a package may take; a large one that no process has read yet comes from the disk."""
END_TIMEOUT_S = 10.0
"""How long a worker may take to end a cell that it was told to end."""
KILL_TIMEOUT_S = 5.0
"""How long a worker that was killed may take to be gone."""
_TESTS_MEMORY_MB = 1024
_FIRST_UID = 60_000
_UIDS = 4_000
_ENVIRONMENT = {
    "HOME": "/tmp",
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "MALLOC_ARENA_MAX": "1",  # an arena a thread would reserve 64 MiB of address space each
}
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "NUMBA")}
"""For libraries of packages that would start a thread a core when they are loaded: before the fork, or beyond `Limits.processes`."""
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from rewards.sandbox.inside.start import main; main()"


class Worker:
    """The host's end of one zygote."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, errors: int) -> None:
        self.process = process
        self._control = control
        self._errors = errors

    @classmethod
    async def start(cls, tier: Tier, slot: int, packages: Packages | None = None) -> "Worker":
        """A worker of the tier, with packages that programs may import.

        Raises:
            SandboxUnavailable: the tier does not work here; with the step that failed.
            BrokenPackage: a package cannot be imported in the sandbox.
        """
        cold: list[str] = []
        while True:
            started = await cls._start(_worker_config(tier, slot, packages or Packages(), cold))
            if isinstance(started, Worker):
                return started
            cold.append(started)

    @classmethod
    async def _start(cls, config: dict[str, Any]) -> "Worker | str":
        """A worker, or the name of a package that must stay cold."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = os.memfd_create("sandbox-errors")
        command = [interpreter(), "-P", "-s", "-S", "-c", _BOOT, str(Path(__file__).parents[2])]
        with theirs:
            process = subprocess.Popen(
                [*command, json.dumps(config)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=_ENVIRONMENT | (_ONE_THREAD if config["warm"] else {}),
                cwd="/",
                start_new_session=True,
            )
        worker = cls(process, ours, errors)
        ours.setblocking(False)
        try:
            started = await worker._until_ready()
        except BaseException:
            worker.close()
            raise
        if started:
            worker.close()
            return started
        return worker

    async def _until_ready(self) -> str:
        """Wait for the zygote; the name of a package that must stay cold, empty once it is ready. Raises as `start`."""
        package = ""
        while True:
            timeout_s = PACKAGE_TIMEOUT_S if package else START_TIMEOUT_S
            try:
                event = await self.event(time.monotonic() + timeout_s)
            except SandboxFault as problem:
                if package:
                    raise BrokenPackage(_broken(f"{package}: its import ends the interpreter: {problem}")) from problem
                raise SandboxUnavailable(str(problem)) from problem
            match event:
                case None:
                    if package:
                        raise BrokenPackage(_broken(f"{package}: not imported within {timeout_s:.0f} s"))
                    raise SandboxUnavailable(f"not ready within {timeout_s:.0f} s")
                case {"event": "ready"}:
                    return ""
                case {"event": "importing"}:
                    package = str(event["package"])
                case {"event": "threads"}:
                    return str(event["package"])
                case {"event": "failed"} if package:
                    raise BrokenPackage(_broken(f"{package}: {event['problem']}"))
                case _:
                    raise SandboxUnavailable(f"{event['step']}: {event['problem']}")

    def open_cell(self, role: str, limits: Limits, descriptors: Sequence[int]) -> None:
        cpu = limits.test_s if role == "program" else limits.total_s
        numbers = {
            "memory": (_TESTS_MEMORY_MB if role == "tests" else limits.memory_mb) * MEGABYTE,
            "file": limits.file_mb * MEGABYTE,
            "processes": limits.processes,
            "cpu": math.ceil(cpu * (os.cpu_count() or 1)) + 2,
        }
        self._tell({"order": "cell", "role": role, "limits": numbers}, descriptors)

    async def end_cell(self) -> dict[str, Any]:
        """End the running cell, whatever it does."""
        self._tell({"order": "kill"})
        return await self.await_cell_end(time.monotonic() + END_TIMEOUT_S) or self._fault("does not end its cell")

    async def await_cell_end(self, deadline: float) -> dict[str, Any] | None:
        """How the cell ended, once nothing of it is left; None when it is still there at the deadline."""
        event = await self.event(deadline)
        if event is not None and event["event"] != "ended":
            self._fault(f"said {event}")
        return event

    async def event(self, deadline: float) -> dict[str, Any] | None:
        """The next event; None at the deadline (in terms of time.monotonic)."""
        while await readable(self._control, deadline):
            try:
                event, _ = receive(self._control)
            except BlockingIOError:
                continue  # woken for nothing: wait on, until the deadline
            return event or self._fault("is gone")
        return None

    def close(self) -> None:
        """End the zygote, and with it everything below it."""
        self._control.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel holds it; Python collects it at a later start
            self.process.wait(KILL_TIMEOUT_S)
        os.close(self._errors)

    def _tell(self, order: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        try:
            send(self._control, order, descriptors)
        except OSError as problem:
            raise SandboxFault(f"a sandbox worker is gone: {problem}") from problem

    def _fault(self, what: str) -> Any:
        words = os.pread(self._errors, 4096, max(0, os.fstat(self._errors).st_size - 4096)).decode(errors="replace")
        last = words.strip().splitlines()[-1:]
        raise SandboxFault(f"a sandbox worker {what}" + (f": {last[0]}" if last else ""))


def _broken(what: str) -> str:
    return f"sandbox.packages: {what}\ntake it out of sandbox.packages, or install what it lacks"


def interpreter() -> str:
    """The interpreter itself, not a virtual environment's name for it: cells see its standard library only."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _worker_config(tier: Tier, slot: int, packages: Packages, cold: Sequence[str]) -> dict[str, Any]:
    as_root = os.geteuid() == 0
    # Any number that no account has; different for slots and, most likely, for sandboxes on one host.
    uid = _FIRST_UID + (os.getpid() * 64 + slot) % _UIDS if as_root else os.geteuid()
    trees, links = _system_trees(packages.trees)
    return {
        "tier": "A" if tier == "A" else "B",
        "weak": tier == "weak",
        "as_root": as_root,
        "uid": uid,
        "gid": uid if as_root else os.getegid(),
        "trees": trees,
        "links": links,
        "scratch": Limits().file_mb * MEGABYTE,
        "inodes": 1024,
        "modules": packages.modules,
        "warm": packages.warm,
        "cold": list(cold),
    }


def _system_trees(packages: Sequence[str]) -> tuple[list[str], list[str]]:
    """What an interpreter needs to read and what packages are: directories and files, and symbolic links to some."""
    usual = ["/usr", "/lib", "/lib64", "/lib32", "/bin"]
    links = [path for path in usual if os.path.islink(path)]
    wanted = [path for path in usual if os.path.isdir(path) and path not in links]
    wanted += [os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)]
    wanted += sorted({os.path.dirname(path) for path in _mapped_libraries()})
    wanted += packages
    trees: list[str] = []
    for path in wanted:
        if not any(path == tree or path.startswith(tree + "/") for tree in [*trees, *links]):
            trees.append(path)
    return trees, links


def _mapped_libraries() -> list[str]:
    """Shared libraries of the C runtime that this interpreter runs on, wherever the distribution keeps them.

    Not those of the same names that packages bring for themselves and that happen to be loaded in this process.
    """
    names = ("libc.so", "libc-", "libm.so", "libpython", "ld-linux", "libdl", "libpthread", "libffi", "libz")
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {os.path.realpath(line.split(maxsplit=5)[5]) for line in lines if line.count(" /")}
    packages = tuple(os.path.realpath(sysconfig.get_path(name)) + "/" for name in ("purelib", "platlib"))
    return [path for path in paths if os.path.basename(path).startswith(names) and not path.startswith(packages)]


async def readable(channel: socket.socket, deadline: float) -> bool:
    """Wait until there is something to receive, or the other end is closed; False at the deadline."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def tell(answer: bool) -> None:
        if not ready.done():
            ready.set_result(answer)

    timer = loop.call_later(max(0.0, deadline - time.monotonic()), tell, False)
    loop.add_reader(channel.fileno(), tell, True)
    try:
        return await ready
    finally:
        loop.remove_reader(channel.fileno())
        timer.cancel()


@contextlib.contextmanager
def memory_file(content: bytes = b"") -> Any:
    """A file in memory that only its descriptor names, open at its start."""
    descriptor = os.memfd_create("sandbox")
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
