"""One program in the sandbox and, in a second cell, the judge that calls it."""

import json
import socket
import time
from typing import Any

from rewards.sandbox.inside.messages import receive
from rewards.sandbox.types import Assertions, Limits, SandboxFault, Verdict
from rewards.sandbox.worker import Worker, memory_file, readable


class Judged:
    """A program's cell and its judge's, and again others where a test made the first unusable."""

    def __init__(self, program: Worker, judge: Worker, text: str, tests: Assertions, limits: Limits) -> None:
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
        with memory_file(self._text.encode("utf-8", "surrogatepass")) as text:
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
        with ours, memory_file(json.dumps(order).encode()) as described:
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
        while await readable(judge, min(began + self._limits.test_s, self._end)):
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
