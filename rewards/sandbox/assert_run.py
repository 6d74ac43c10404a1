"""One program in the sandbox and, in a second cell, the tests that call it."""

import socket
import time
from typing import Any

from rewards.sandbox.inside.messages import receive
from rewards.sandbox.types import AssertionResult, Assertions, Limits, SandboxFault
from rewards.sandbox.worker import Worker, memory_file, readable
from rollout.data.json_text import json_text


class AssertRun:
    """The tests of one program: its cell and theirs, and again others where a test made the first unusable."""

    def __init__(self, program: Worker, tester: Worker, text: str, tests: Assertions, limits: Limits) -> None:
        self._program = program
        self._tester = tester
        self._text = text
        self._tests = tests
        self._limits = limits
        self._end = time.monotonic() + limits.total_s
        self._results: list[AssertionResult] = []
        self.invalid = ""
        """Why the tests do not work, whatever the program is; empty while they do."""

    async def run(self) -> list[AssertionResult]:
        with memory_file(self._text.encode("utf-8", "surrogatepass")) as text:
            while len(self._results) < len(self._tests.tests):
                if time.monotonic() < self._end:
                    await self._pair(text)
                else:
                    self._results.append(AssertionResult(outcome="timeout"))
                if self.invalid or (self._tests.stop and self._results[-1].outcome != "pass"):
                    break
        return self._results

    async def _pair(self, text: int) -> None:
        """Run as many tests as two cells last for; at least one."""
        order = {
            "setup": self._tests.setup,
            "entry_point": self._tests.entry_point,
            "tests": list(self._tests.tests),
            "first": len(self._results),
            "stop": self._tests.stop,
            "tolerance": list(self._tests.tolerance),
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one, other = socket.socketpair()
        with ours, memory_file(json_text(order, ascii_only=True).encode()) as described:
            ours.setblocking(False)
            with theirs, one, other:
                self._program.open_cell("serve", self._limits, [text, one.fileno()])
                self._tester.open_cell("tests", self._limits, [described, theirs.fileno(), other.fileno()])
            late = await self._listen(ours)
            program, tester = await self._program.end_cell(), await self._tester.end_cell()
        if not self.invalid:
            self._conclude(len(self._results) - order["first"], late, program, tester)  # type: ignore[operator]

    async def _listen(self, tester: socket.socket) -> float | None:
        """Take results until the tests' cell closes its end; seconds since the last one when a test took too long."""
        began = time.monotonic()
        while await readable(tester, min(began + self._limits.test_s, self._end)):
            event, _ = receive(tester)
            if event is None:
                return None
            now = time.monotonic()
            if event["event"] == "invalid":
                self.invalid = event["reason"]
                return None
            if event["event"] == "broken":
                missing = len(self._tests.tests) - len(self._results)
                self._results += [
                    AssertionResult(outcome=event["outcome"], reason=event["reason"], seconds=now - began)
                ] * missing
                return None
            self._results.append(AssertionResult(outcome=event["outcome"], reason=event["reason"], seconds=now - began))
            began = now
        return time.monotonic() - began

    def _conclude(self, fresh: int, late: float | None, program: dict[str, Any], tester: dict[str, Any]) -> None:
        """Give a test without a result one, and name the reason where the program was ended for its memory."""
        missing = len(self._results) < len(self._tests.tests)
        failed = fresh > 0 and self._results[-1].outcome in ("fail", "missing")
        if "memory" in (program["why"], tester["why"]) and (missing or failed):
            if failed:
                self._results.pop()
            self._results.append(AssertionResult(outcome="memory", reason=f"more than {self._limits.memory_mb} MB"))
        elif late is not None and missing:
            self._results.append(AssertionResult(outcome="timeout", seconds=late))
        elif not fresh:
            raise SandboxFault(f"the cell of the tests ended without a result (wait status {tester['status']})")
