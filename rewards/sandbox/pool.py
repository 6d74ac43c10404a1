"""Runs untrusted Python programs: warm workers, one cell a program, one fork a test.

    async with Sandbox(slots=2) as sandbox:
        runs = await sandbox.run_inputs("print(int(input()) + 1)", [b"1"], Limits())

A worker is a bare interpreter (`rewards/sandbox/inside/zygote.py`) that shuts itself in once and forks a cell for every
program. The host hands descriptors over and reads exit statuses and outputs; expected outputs never enter the sandbox, and
tests in the form of assertions run in a second cell beside the program's (`rewards/sandbox/inside/assertions.py`).

Contained, in tier A (namespaces; the default where the kernel allows it):
- files: the program sees the interpreter, the system's libraries (`/usr`, `/lib`), five devices and an empty scratch
  directory of its own in memory, capped in bytes and inodes and replaced after any change; packages that the recipe allows,
  read-only like the rest; no /proc, no /sys, no /etc, no home;
- network: none, with no interface and no sockets but pairs within the program; no io_uring, no vsock;
- processes: it sees and signals only its own; at most `Limits.processes`; all of them are ended before a result is given;
- memory of all its processes together (watched every 20 ms; address space capped), CPU, file size, open files;
- privileges: none, no way to new ones; a user of its own when the host runs as root;
- the result: an output is compared in the host, an assertion in another process; nothing that it writes is unpickled.
In tier B (namespaces refused; Landlock, seccomp, limits) the same holds with these differences: nothing can be written, no
process can be started, names and attributes of files outside can be seen (`stat`), contents cannot.

By hand: container runtimes want a daemon or privileges that the hosts of a cluster often lack, and start one container a
program; a cell is a fork of a millisecond, and what a program returns is compared without trusting it.

Not contained: what the kernel itself gets wrong; timing as a channel between programs; load on the memory bus and caches;
reading `/usr`; what the code of an allowed package does when it is imported by the worker, before any program. Programs cannot
read the network, nor use locks between processes (there is no /dev/shm, so no `multiprocessing.Pool`). `/dev/stdin` is Python's
own doing (`rewards/sandbox/inside/stream_paths.py`), since there is no /proc.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence

from rewards.sandbox.assert_run import AssertRun
from rewards.sandbox.attacks import attacks
from rewards.sandbox.packages import Packages, find_packages
from rewards.sandbox.stdin_run import StdinRun
from rewards.sandbox.types import (
    AssertionResult,
    Assertions,
    BrokenPackage,
    BrokenTests,
    Limits,
    Run,
    SandboxFault,
    SandboxUnavailable,
    Tier,
)
from rewards.sandbox.worker import Worker


class Sandbox:
    """A pool of slots; each runs one program at a time. Bound to the event loop that it was started in."""

    def __init__(
        self, *, slots: int, tier: Tier | None = None, allow_weak: bool = False, packages: Sequence[str] = ()
    ) -> None:
        """A pool that `start` starts.

        Args:
            tier: this one or none; by default the best that works.
            allow_weak: also less than tier B.
            packages: of this environment, for programs and tests to import.

        Raises:
            InputError: a package is not installed.
        """
        self._packages = find_packages(tuple(packages))
        self._slots = slots
        self._wanted = tier
        self._allow_weak = allow_weak
        self._idle: asyncio.Queue[_Slot] = asyncio.Queue()
        self._all: list[_Slot] = []
        self.tier: Tier = "weak"
        """The tier that holds, once started."""
        self.weaknesses: tuple[str, ...] = ()
        """Attacks that succeeded when it was started; empty but for tier `weak`."""
        self.num_restarts = 0
        """Workers that were replaced after a fault."""

    async def __aenter__(self) -> "Sandbox":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def start(self) -> None:
        """Start the first worker and try to get out of it.

        Raises:
            SandboxUnavailable: no tier works here.
            BrokenPackage: a package cannot be imported there.
        """
        wanted: list[Tier] = ["A", "B"]
        if self._allow_weak:
            wanted.append("weak")
        faults = []
        for tier in [self._wanted] if self._wanted else wanted:
            try:
                await self._start(tier)
                return
            except SandboxUnavailable as problem:
                faults.append(f"tier {tier}: {problem}")
        raise SandboxUnavailable("; ".join(faults))

    async def _start(self, tier: Tier) -> None:
        first = _Slot(tier, 0, self._packages)
        first.workers["program"] = await Worker.start(tier, 0, self._packages)
        self.tier = tier
        self._all = [first, *(_Slot(tier, number, self._packages) for number in range(1, self._slots))]
        self._idle = asyncio.Queue()
        self._idle.put_nowait(first)
        try:
            await self._attack()
        except BaseException:
            self.close()
            raise
        for slot in self._all[1:]:
            self._idle.put_nowait(slot)

    async def _attack(self) -> None:
        """Trust nothing that was only set up: try to get out of it."""
        program, given = attacks()
        try:
            (run,) = await self.run_inputs(program, [given], Limits())
            self.weaknesses = tuple(json.loads(run.stdout))
        except ValueError:
            raise SandboxUnavailable(f"a program does not run: {run.outcome} {run.code} {run.reason}") from None
        except SandboxFault as problem:
            raise SandboxUnavailable(str(problem)) from problem
        if self.weaknesses and self.tier != "weak":
            raise SandboxUnavailable(f"does not hold: {', '.join(self.weaknesses)}")

    def close(self) -> None:
        """Ends every process that was started."""
        for slot in self._all:
            slot.close()
        self._all.clear()

    async def run_inputs(
        self, text: str, inputs: Sequence[bytes], limits: Limits, go_on: Callable[[int, Run], bool] | None = None
    ) -> list[Run]:
        """Run a program as `__main__` once for every input, until `go_on(index, run)` says no.

        Raises:
            SandboxFault: the sandbox failed, not the program. The worker has been replaced.
        """
        async with self._slot() as slot:
            return await StdinRun(await slot.worker("program"), text, inputs, limits, go_on).run()

    async def run_tests(self, text: str, tests: Assertions, limits: Limits) -> list[AssertionResult]:
        """Import a program and run tests that call it. At the first failure with `tests.stop` the list ends.

        Raises:
            SandboxFault: the sandbox failed, not the program. The workers have been replaced.
            BrokenTests: whatever the program is.
        """
        async with self._slot() as slot:
            run = AssertRun(await slot.worker("program"), await slot.worker("tests"), text, tests, limits)
            results = await run.run()
        if run.invalid:
            lacks = "; sandbox.packages may name it" if run.invalid.startswith("ModuleNotFoundError") else ""
            raise BrokenTests(f"the tests do not work: {run.invalid}{lacks}")
        return results

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator["_Slot"]:
        slot = await self._idle.get()
        if slot not in self._all:
            self._idle.put_nowait(slot)  # for the next one who waits, who is told too
            raise SandboxFault("the sandbox is closed")
        try:
            yield slot
        except BaseException as problem:
            # Whatever state its workers are in, the next program gets new ones.
            slot.close()
            self.num_restarts += 1
            if slot not in self._all and isinstance(problem, OSError | ValueError):
                raise SandboxFault("the sandbox was closed") from problem
            raise
        finally:
            self._idle.put_nowait(slot)


class _Slot:
    """A worker for programs and, once one was needed, a worker for tests."""

    def __init__(self, tier: Tier, number: int, packages: Packages) -> None:
        self._tier = tier
        self._packages = packages
        self._number = number
        self.workers: dict[str, Worker] = {}

    async def worker(self, role: str) -> Worker:
        if role not in self.workers:
            try:
                self.workers[role] = await Worker.start(self._tier, self._number, self._packages)
            except (SandboxUnavailable, BrokenPackage) as problem:
                raise SandboxFault(f"a sandbox worker did not start: {problem}") from problem
        return self.workers[role]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()
