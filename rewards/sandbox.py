"""Runs untrusted Python programs: warm workers, one cell a program, one fork a test.

    async with Sandbox(slots=2) as sandbox:
        runs = await sandbox.run_inputs("print(int(input()) + 1)", [b"1"], Limits())

A worker is a bare interpreter (`rewards/cell/zygote.py`) that shuts itself in once and forks a cell for every program. The
host hands descriptors over and reads exit statuses and outputs; expected outputs never enter the sandbox, and tests in the
form of assertions run in a second cell beside the program's (`rewards/cell/judge.py`).

Contained, in tier A (namespaces; the default where the kernel allows it):
- files: the program sees the interpreter, the system's libraries (`/usr`, `/lib`), five devices and an empty scratch
  directory of its own in memory, capped in bytes and inodes and replaced after any change; no /proc, no /sys, no /etc, no home;
- network: none, with no interface and no sockets but pairs within the program; no io_uring, no vsock;
- processes: it sees and signals only its own; at most `Limits.processes`; all of them are ended before a result is given;
- memory of all its processes together (watched every 20 ms; address space capped), CPU, file size, open files;
- privileges: none, no way to new ones; a user of its own when the host runs as root;
- the verdict: an output is compared in the host, an assertion in another process; nothing that it writes is unpickled.
In tier B (namespaces refused; Landlock, seccomp, limits) the same holds with these differences: nothing can be written, no
process can be started, names and attributes of files outside can be seen (`stat`), contents cannot.

Not contained: what the kernel itself gets wrong; timing as a channel between programs; load on the memory bus and caches;
reading `/usr`. Programs cannot read packages outside the standard library, `/dev/stdin` (there is no /proc) or the network,
nor use locks between processes (there is no /dev/shm, so no `multiprocessing.Pool`).
"""

import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rewards.cell.messages import receive, send
from rewards.sandbox_attacks import attacks
from rollout.errors import InputError, ServiceError

Tier = Literal["A", "B", "weak"]
"""`A`: namespaces and seccomp; `B`: Landlock and seccomp; `weak`: less than that, only on demand."""

START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 10.0
"""How long a worker may take to end a cell that it was told to end."""
_MEGABYTE = 1 << 20
_JUDGE_MEMORY_MB = 1024
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
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from rewards.cell.boot import main; main()"


class SandboxUnavailable(ServiceError):
    """No tier that was asked for works here; the message names what is missing and the way out."""


class SandboxFault(ServiceError):
    """The sandbox itself failed; it says nothing about the program."""


class BrokenTests(InputError):
    """The tests themselves are no Python, or none at all; it says nothing about the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one program."""

    test_s: float = 6.0
    """Wall time of one test, start of its process included."""
    total_s: float = 60.0
    """Wall time of all tests of a program together."""
    memory_mb: int = 512
    """Of all processes of the program together."""
    file_mb: int = 16
    """Largest file, standard output included."""
    processes: int = 16
    """Processes and threads at any time (tier A; without namespaces there is one process)."""


RunOutcome = Literal["exited", "signal", "timeout", "memory", "output", "broken"]
"""How a run came to its end. `broken`: the text does not compile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a program on one input."""

    outcome: RunOutcome
    code: int = 0
    """Exit status, or number of the signal."""
    stdout: bytes = b""
    reason: str = ""
    """Last line of standard error, or what the compiler said."""
    seconds: float = 0.0


TestOutcome = Literal["pass", "fail", "unsupported", "timeout", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judge says of one assertion-style test."""

    outcome: TestOutcome
    reason: str = ""
    seconds: float = 0.0


class Sandbox:
    """A pool of slots; each runs one program at a time. Bound to the event loop that it was started in."""

    def __init__(self, *, slots: int, tier: Tier | None = None, allow_weak: bool = False) -> None:
        """`tier`: this one or none; by default the best that works. `allow_weak`: also less than tier B."""
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
        """Raises SandboxUnavailable."""
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
        first = _Slot(tier, 0)
        first.workers["program"] = await _Worker.start(tier, 0)
        self.tier = tier
        self._all = [first, *(_Slot(tier, number) for number in range(1, self._slots))]
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
            return await _Inputs(await slot.worker("program"), text, inputs, limits, go_on).run()

    async def run_tests(self, text: str, tests: "Assertions", limits: Limits) -> list[Verdict]:
        """Import a program and judge it by tests that call it. At the first failure with `tests.stop` the list ends.

        Raises:
            SandboxFault: the sandbox failed, not the program. The workers have been replaced.
            BrokenTests: whatever the program is.
        """
        async with self._slot() as slot:
            judged = _Judged(await slot.worker("program"), await slot.worker("judge"), text, tests, limits)
            verdicts = await judged.run()
        if judged.invalid:
            raise BrokenTests(f"the tests do not work: {judged.invalid}")
        return verdicts

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator["_Slot"]:
        slot = await self._idle.get()
        if slot not in self._all:
            raise SandboxFault("the sandbox is closed")
        try:
            yield slot
        except BaseException:
            # Whatever state its workers are in, the next program gets new ones.
            slot.close()
            self.num_restarts += 1
            raise
        finally:
            self._idle.put_nowait(slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertions:
    """Assertion-style tests of one program, as the judge takes them."""

    setup: str = ""
    """Code that runs in the judge first. What it defines wins over names of the program's, but for `entry_point`."""
    entry_point: str = ""
    tests: Sequence[dict[str, Any]]
    """Each `{"code": …}` or `{"function": name, "arguments": […], "expected": [any of these, …]}`."""
    stop: bool = True
    """End at the first failure."""


# --- Slots and workers


class _Slot:
    """A worker for programs and, once one was needed, a worker for judges."""

    def __init__(self, tier: Tier, number: int) -> None:
        self._tier = tier
        self._number = number
        self.workers: dict[str, _Worker] = {}

    async def worker(self, role: str) -> "_Worker":
        if role not in self.workers:
            try:
                self.workers[role] = await _Worker.start(self._tier, self._number)
            except SandboxUnavailable as problem:
                raise SandboxFault(f"a sandbox worker did not start: {problem}") from problem
        return self.workers[role]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()


class _Worker:
    """The host's end of one zygote."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, errors: int) -> None:
        self.process = process
        self._control = control
        self._errors = errors

    @classmethod
    async def start(cls, tier: Tier, slot: int) -> "_Worker":
        """Raises SandboxUnavailable with the step that failed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = os.memfd_create("sandbox-errors")
        command = [interpreter(), "-P", "-s", "-S", "-c", _BOOT, str(Path(__file__).parents[1])]
        with theirs:
            process = subprocess.Popen(
                [*command, json.dumps(_worker_config(tier, slot))],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        worker = cls(process, ours, errors)
        ours.setblocking(False)
        try:
            event = await worker.event(time.monotonic() + START_TIMEOUT_S)
        except SandboxFault as problem:
            worker.close()
            raise SandboxUnavailable(str(problem)) from problem
        except BaseException:
            worker.close()
            raise
        if event is None or event["event"] != "ready":
            worker.close()
            raise SandboxUnavailable(
                f"{event['step']}: {event['problem']}" if event else f"not ready within {START_TIMEOUT_S:.0f} s"
            )
        return worker

    def open_cell(self, role: str, limits: Limits, descriptors: Sequence[int]) -> None:
        cpu = limits.test_s if role == "program" else limits.total_s
        numbers = {
            "memory": (_JUDGE_MEMORY_MB if role == "judge" else limits.memory_mb) * _MEGABYTE,
            "file": limits.file_mb * _MEGABYTE,
            "processes": limits.processes,
            "cpu": math.ceil(cpu * (os.cpu_count() or 1)) + 2,
        }
        self._tell({"order": "cell", "role": role, "limits": numbers}, descriptors)

    async def end_cell(self) -> dict[str, Any]:
        """End the running cell, whatever it does."""
        self._tell({"order": "kill"})
        return await self.cell_ended(time.monotonic() + END_TIMEOUT_S) or self._fault("does not end its cell")

    async def cell_ended(self, deadline: float) -> dict[str, Any] | None:
        """How the cell ended, once nothing of it is left; None when it is still there at the deadline."""
        event = await self.event(deadline)
        if event is not None and event["event"] != "ended":
            self._fault(f"said {event}")
        return event

    async def event(self, deadline: float) -> dict[str, Any] | None:
        """The next event; None at the deadline (in terms of time.monotonic)."""
        while await _readable(self._control, deadline):
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
        self.process.wait()
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


def interpreter() -> str:
    """The interpreter itself, not a virtual environment's name for it: cells see its standard library only."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _worker_config(tier: Tier, slot: int) -> dict[str, Any]:
    as_root = os.geteuid() == 0
    # Any number that no account has; different for slots and, most likely, for sandboxes on one host.
    uid = _FIRST_UID + (os.getpid() * 64 + slot) % _UIDS if as_root else os.geteuid()
    trees, links = _system_trees()
    return {
        "tier": "A" if tier == "A" else "B",
        "weak": tier == "weak",
        "as_root": as_root,
        "uid": uid,
        "gid": uid if as_root else os.getegid(),
        "trees": trees,
        "links": links,
        "scratch": Limits().file_mb * _MEGABYTE,
        "inodes": 1024,
    }


def _system_trees() -> tuple[list[str], list[str]]:
    """What an interpreter needs to read: directories, and symbolic links to them."""
    usual = ["/usr", "/lib", "/lib64", "/lib32", "/bin"]
    links = [path for path in usual if os.path.islink(path)]
    wanted = [path for path in usual if os.path.isdir(path) and path not in links]
    wanted += [os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)]
    wanted += sorted({os.path.dirname(path) for path in _mapped_libraries()})
    trees: list[str] = []
    for path in wanted:
        if not any(path == tree or path.startswith(tree + "/") for tree in [*trees, *links]):
            trees.append(path)
    return trees, links


def _mapped_libraries() -> list[str]:
    """Shared libraries of the C runtime that this interpreter runs on, wherever the distribution keeps them."""
    names = ("libc.so", "libc-", "libm.so", "libpython", "ld-linux", "libdl", "libpthread", "libffi", "libz")
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {os.path.realpath(line.split(maxsplit=5)[5]) for line in lines if line.count(" /")}
    return [path for path in paths if os.path.basename(path).startswith(names)]


async def _readable(channel: socket.socket, deadline: float) -> bool:
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


# --- One program and its inputs


class _Inputs:
    """One program in its cell, and again in another where a test made the first unusable."""

    def __init__(
        self,
        worker: _Worker,
        text: str,
        inputs: Sequence[bytes],
        limits: Limits,
        go_on: Callable[[int, Run], bool] | None,
    ) -> None:
        self._worker = worker
        self._text = text
        self._inputs = inputs
        self._limits = limits
        self._go_on = go_on or (lambda index, run: True)
        self._end = time.monotonic() + limits.total_s
        self._runs: list[Run] = []
        self._stopped = False
        self._compiled = False

    async def run(self) -> list[Run]:
        with _file(self._text.encode("utf-8", "surrogatepass")) as text:
            while not self._stopped and len(self._runs) < len(self._inputs) and time.monotonic() < self._end:
                await self._cell(text)
        while not self._stopped and len(self._runs) < len(self._inputs):
            self._runs.append(Run(outcome="timeout"))
            self._stopped = not self._go_on(len(self._runs) - 1, self._runs[-1])
        return self._runs

    async def _cell(self, text: int) -> None:
        """Run tests in one cell until it has ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            with theirs:
                self._worker.open_cell("program", self._limits, [text, theirs.fileno()])
            while await self._test(ours):
                pass

    async def _test(self, cell: socket.socket) -> bool:
        """One test; False when its cell is no more."""
        index = len(self._runs)
        last = index == len(self._inputs) - 1
        began = time.monotonic()
        deadline = min(began + self._limits.test_s, self._end)
        with _file(self._inputs[index]) as stdin, _file() as stdout, _file() as stderr:
            with contextlib.suppress(OSError):  # a cell whose text did not compile has said so and closed its end
                send(cell, {"order": "run", "last": last}, [stdin, stdout, stderr])
            run, alive = await (self._ended(cell, deadline) if last else self._answer(cell, deadline))
            run = _with_output(run, stdout, stderr, self._limits, time.monotonic() - began)
        if run.outcome == "broken":
            # It will not compile for the other inputs either.
            self._runs += [run] * (len(self._inputs) - index)
            return False
        self._runs.append(run)
        self._stopped = not self._go_on(index, run)
        if alive and (self._stopped or last):
            await self._worker.end_cell()
            return False
        return alive

    async def _answer(self, cell: socket.socket, deadline: float) -> tuple[Run, bool]:
        """What became of a test that ran in a fork of the cell."""
        while await _readable(cell, deadline):
            event, _ = receive(cell)
            if event is None:
                run, alive = await self._ended(cell, deadline)
                if run.outcome == "exited":  # of the cell, not of the test: of that nothing is known
                    run = Run(outcome="signal", code=signal.SIGKILL)
                return run, alive
            self._compiled |= event["event"] == "compiled"
            if event["event"] == "broken":
                await self._worker.end_cell()
                return Run(outcome="broken", reason=event["reason"]), False
            if event["event"] == "ran":
                if event["stray"]:
                    await self._worker.end_cell()
                return _from_status(event["status"]), not event["stray"]
        ended = await self._worker.end_cell()
        return Run(outcome="memory" if ended["why"] == "memory" else "timeout"), False

    async def _ended(self, cell: socket.socket, deadline: float) -> tuple[Run, bool]:
        """What became of a test that was the cell's last, or whose cell is gone."""
        ended = await self._worker.cell_ended(deadline)
        if ended is None:
            ended = await self._worker.end_cell()
        if ended["why"]:
            return Run(outcome="memory" if ended["why"] == "memory" else "timeout"), False
        said = _drain(cell)
        if said and said[-1]["event"] == "broken":
            return Run(outcome="broken", reason=said[-1]["reason"]), False
        self._compiled |= bool(said)
        if not self._compiled:
            return Run(outcome="broken", reason="the compiler did not survive this text"), False
        return _from_status(ended["status"]), False


def _drain(cell: socket.socket) -> list[dict[str, Any]]:
    said = []
    with contextlib.suppress(BlockingIOError):
        while (event := receive(cell)[0]) is not None:
            said.append(event)
    return said


def _from_status(status: int) -> Run:
    if os.WIFSIGNALED(status):
        return Run(outcome="signal", code=os.WTERMSIG(status))
    return Run(outcome="exited", code=os.WEXITSTATUS(status))


def _with_output(run: Run, stdout: int, stderr: int, limits: Limits, seconds: float) -> Run:
    size = os.fstat(stdout).st_size
    outcome = "output" if size >= limits.file_mb * _MEGABYTE and run.outcome in ("exited", "signal") else run.outcome
    return Run(
        outcome=outcome,
        code=run.code,
        stdout=os.pread(stdout, size, 0) if outcome == "exited" else b"",
        reason=run.reason or _last_line(stderr),
        seconds=seconds,
    )


def _last_line(stderr: int) -> str:
    size = os.fstat(stderr).st_size
    lines = os.pread(stderr, 2000, max(0, size - 2000)).decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


@contextlib.contextmanager
def _file(content: bytes = b"") -> Any:
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


# --- One program and its judge


class _Judged:
    """A program's cell and its judge's, and again others where a test made the first unusable."""

    def __init__(self, program: _Worker, judge: _Worker, text: str, tests: Assertions, limits: Limits) -> None:
        self._program = program
        self._judge = judge
        self._text = text
        self._tests = tests
        self._limits = limits
        self._end = time.monotonic() + limits.total_s
        self._verdicts: list[Verdict] = []
        self.invalid = ""
        """Why the tests cannot judge anything."""

    async def run(self) -> list[Verdict]:
        with _file(self._text.encode("utf-8", "surrogatepass")) as text:
            while len(self._verdicts) < len(self._tests.tests):
                if time.monotonic() < self._end:
                    await self._pair(text)
                else:
                    self._verdicts.append(Verdict(outcome="timeout"))
                if self.invalid or (self._tests.stop and self._verdicts[-1].outcome != "pass"):
                    break
        return self._verdicts

    async def _pair(self, text: int) -> None:
        """Judge as many tests as two cells last for; at least one."""
        order = {
            "setup": self._tests.setup,
            "entry_point": self._tests.entry_point,
            "tests": list(self._tests.tests),
            "first": len(self._verdicts),
            "stop": self._tests.stop,
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one, other = socket.socketpair()
        with ours, _file(json.dumps(order).encode()) as described:
            ours.setblocking(False)
            with theirs, one, other:
                self._program.open_cell("serve", self._limits, [text, one.fileno()])
                self._judge.open_cell("judge", self._limits, [described, theirs.fileno(), other.fileno()])
            late = await self._listen(ours)
            program, judge = await self._program.end_cell(), await self._judge.end_cell()
        if not self.invalid:
            self._conclude(len(self._verdicts) - order["first"], late, program, judge)  # type: ignore[operator]

    async def _listen(self, judge: socket.socket) -> float | None:
        """Take verdicts until the judge closes its end; seconds since the last one when a test took too long."""
        began = time.monotonic()
        while await _readable(judge, min(began + self._limits.test_s, self._end)):
            event, _ = receive(judge)
            if event is None:
                return None
            now = time.monotonic()
            if event["event"] == "invalid":
                self.invalid = event["reason"]
                return None
            if event["event"] == "broken":
                missing = len(self._tests.tests) - len(self._verdicts)
                self._verdicts += [Verdict(outcome="fail", reason=event["reason"], seconds=now - began)] * missing
                return None
            self._verdicts.append(Verdict(outcome=event["outcome"], reason=event["reason"], seconds=now - began))
            began = now
        return time.monotonic() - began

    def _conclude(self, fresh: int, late: float | None, program: dict[str, Any], judge: dict[str, Any]) -> None:
        """Account for a test that got no verdict, and name the reason where the program was ended for its memory."""
        missing = len(self._verdicts) < len(self._tests.tests)
        failed = fresh > 0 and self._verdicts[-1].outcome == "fail"
        if "memory" in (program["why"], judge["why"]) and (missing or failed):
            if failed:
                self._verdicts.pop()
            self._verdicts.append(Verdict(outcome="memory", reason=f"more than {self._limits.memory_mb} MB"))
        elif late is not None and missing:
            self._verdicts.append(Verdict(outcome="timeout", seconds=late))
        elif not fresh:
            raise SandboxFault(f"the judge ended without a verdict (wait status {judge['status']})")
