"""The pulse of a run: every few seconds it says what it is doing, in RUN/state.json and to Prometheus, and now and then it
writes its report anew. Nothing that fails here ends a run.
"""

import asyncio
import os
import socket
import threading
import time
from types import TracebackType
from typing import Any

from orchestrator.cluster.exporter import RunExporter
from orchestrator.cluster.services import Services
from orchestrator.display import Display
from orchestrator.loop.context import StageContext
from orchestrator.report.page import write_report
from orchestrator.run.state import BEAT_S, write_state
from orchestrator.run.store import RunStore
from rollout.failures import as_expected

REPORT_EVERY_S = 20.0
"""Seconds between two reports of a run that goes on, at least."""
REPORT_SHARE = 0.02
"""Share of the time that reports may take: a long run with many samples writes them less often."""


SERVES = ("serving", "asleep")
"""States of a replica that is as it should be (rollout/fleet.py has them all)."""


class Pulse:
    """What a run says of itself while it goes on. A context of the run: at its end it says how it ended."""

    def __init__(self, store: RunStore, display: Display) -> None:
        self._store, self.display = store, display
        self._began = time.time()
        self._services: Services | None = None
        self._exporter: RunExporter | None = None
        self._failed: set[str] = set()
        self._moved: object = None
        self._moved_at = self._began
        self._over, self._observing, self._writing = threading.Event(), False, threading.Lock()
        self._alone = threading.Thread(target=self._beat_alone, name="pulse", daemon=True)
        self.context: StageContext | None = None
        """The stage that goes on; None: none does."""

    def __enter__(self) -> "Pulse":
        self._write({"state": "running"})
        # While Ray starts, and while it ends, nothing but this says that the run goes on.
        self._alone.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, _: TracebackType | None
    ) -> None:
        self._over.set()
        self._alone.join()
        if problem is None:
            self._write({"state": "ended"})
            return
        stopped = isinstance(problem, KeyboardInterrupt)
        text = "" if stopped else str(as_expected(problem) or problem) or type(problem).__name__
        self._write({"state": "stopped" if stopped else "failed", "reason": text})

    async def beat(self, services: Services) -> None:
        """Say what goes on, until cancelled. Ray is up."""
        self._services = services
        self._exporter = RunExporter(self._store.folder.name)
        report_at = time.monotonic() + REPORT_EVERY_S
        self._observing = True
        try:
            while True:
                state: dict[str, Any] = {"state": "running"}
                self._try("what the run is doing is not known", lambda: state.update(self._observe()))  # noqa: B023
                await asyncio.to_thread(self._write, state)
                if time.monotonic() >= report_at:
                    began = time.monotonic()
                    await asyncio.to_thread(
                        self._try, "the report could not be written", lambda: write_report(self._store.folder)
                    )
                    took = time.monotonic() - began
                    report_at = time.monotonic() + max(REPORT_EVERY_S, took / REPORT_SHARE)
                await asyncio.sleep(BEAT_S)
        finally:
            self._observing = False

    def _beat_alone(self) -> None:
        while not self._over.wait(BEAT_S):
            if not self._observing:
                self._write({"state": "running"})

    def _observe(self) -> dict[str, Any]:
        state = self._now()
        self._export(state)
        return state

    def _now(self) -> dict[str, Any]:
        """What goes on, as plain values."""
        context, bar = self.context, self.display.open_bar
        state: dict[str, Any] = {"services": self._services.states() if self._services else {}}
        if context is not None:
            state |= {
                "stage": context.stage.name,
                "phases": {name: round(seconds, 3) for name, seconds in context.clocks.going_on().items()},
                "step_seconds": round(context.clocks.step_seconds, 3),
                "queues": context.queues(),
            }
        if bar is not None:
            state["progress"] = bar.state()
        # An evaluation, or the samples of a rejection stage, may take hours between two records.
        moved = (self._store.recorded, state.get("progress"), self._services.num_tokens if self._services else 0)
        if moved != self._moved:
            self._moved, self._moved_at = moved, time.time()
        state["moved"] = round(self._moved_at, 3)
        return state

    def _export(self, state: dict[str, Any]) -> None:
        members = {name: service["members"] for name, service in state["services"].items()}
        replicas, workers = members.get("rollout", []), members.get("rewards", [])
        queues = state.get("queues", {})
        assert self._exporter is not None
        self._exporter.export(
            heartbeat_timestamp_seconds=time.time(),
            progress_timestamp_seconds=self._moved_at,
            replicas=len(replicas),
            replicas_away=sum(one["state"] not in SERVES for one in replicas),
            ranks=len(members.get("learner", [])),
            reward_workers=len(workers),
            reward_workers_down=sum(one["state"] != "serving" for one in workers),
            groups_in_flight=queues.get("in_flight", 0),
            groups_waiting=queues.get("waiting", 0),
            completions_to_score=queues.get("to_score", 0),
        )

    def _write(self, state: dict[str, Any]) -> None:
        whole = {
            "time": round(time.time(), 3),
            "began": round(self._began, 3),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "warnings": [{"time": round(at, 3), "text": text} for at, text in self.display.warnings],
            **state,
        }
        with self._writing:
            self._try("state.json could not be written", lambda: write_state(self._store.folder, whole))

    def _try(self, what: str, write: Any) -> None:
        """A full disk, or a report with a defect, is told once and is no end of a run."""
        try:
            write()
            self._failed.discard(what)
        except Exception as problem:  # noqa: BLE001
            if what not in self._failed:
                self.display.warn(f"{what}: {type(problem).__name__}: {problem}")
            self._failed.add(what)
