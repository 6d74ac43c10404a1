"""One program in the sandbox, run once for every input; its output is compared by the host."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from rewards.sandbox.inside.messages import receive, send
from rewards.sandbox.types import MEGABYTE, Limits, Run
from rewards.sandbox.worker import Worker, memory_file, readable


class StdinRun:
    """One program in its cell, and again in another where a test made the first unusable."""

    def __init__(
        self,
        worker: Worker,
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
        with memory_file(self._text.encode("utf-8", "surrogatepass")) as text:
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
        with memory_file(self._inputs[index]) as stdin, memory_file() as stdout, memory_file() as stderr:
            with contextlib.suppress(OSError):  # a cell whose text did not compile has said so and closed its end
                send(cell, {"order": "run", "last": last}, [stdin, stdout, stderr])
            run, alive = await (self._await_end(cell, deadline) if last else self._answer(cell, deadline))
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
        """How a test ended that ran in a fork of the cell; and whether the cell can take another."""
        while await readable(cell, deadline):
            event, _ = receive(cell)
            if event is None:
                run, alive = await self._await_end(cell, deadline)
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

    async def _await_end(self, cell: socket.socket, deadline: float) -> tuple[Run, bool]:
        """How a test ended that was the cell's last, or whose cell is gone; the cell takes no other."""
        ended = await self._worker.await_cell_end(deadline)
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
    outcome = "output" if size >= limits.file_mb * MEGABYTE and run.outcome in ("exited", "signal") else run.outcome
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
