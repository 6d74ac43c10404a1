"""Talking to a run in progress through its folder, from any process that sees it, on whatever host.

RUN/stop          somebody asks it to end; the run takes it away
RUN/request.json  what somebody asks of it else; the run takes it away
RUN/answer.json   what it says to that; whoever asked takes it away

No port is opened and nothing of Ray is needed to ask.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.config.load import STORED
from orchestrator.run.files import write_file
from orchestrator.run.lock import LOCK, Holder
from orchestrator.run.state import SILENT_S, read_state, silence_s, writer_of
from rollout.errors import InputError, ServiceError

STOP, REQUEST, ANSWER = "stop", "request.json", "answer.json"
POLL_S = 0.5
ANSWER_TIMEOUT_S = 60.0
END_TIMEOUT_S = 120.0
"""Seconds that a run has to end, trackers that get the rest included."""

Sizes = Mapping[str, int]
"""Service → how many workers."""


@contextmanager
def heeding_stops(run_dir: Path) -> Iterator[None]:
    """Heed whoever asks the run to stop, on whatever host, while this process holds it: it then gets SIGTERM, as from `kill`. What
    an earlier process was asked is forgotten.
    """
    for stale in (REQUEST, ANSWER, STOP):
        (run_dir / stale).unlink(missing_ok=True)
    ended = threading.Event()
    # A thread, since it answers also while Ray starts and while the event loop is busy.
    threading.Thread(target=_heed_stops, args=(run_dir, ended), name="stops", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _heed_stops(run_dir: Path, ended: threading.Event) -> None:
    while not ended.wait(POLL_S):
        with suppress(OSError):  # nobody asks, or the folder is away for a moment
            (run_dir / STOP).unlink()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def stop_run(run_dir: Path, answer_s: float = ANSWER_TIMEOUT_S, end_s: float = END_TIMEOUT_S) -> Holder:
    """Let a run on any host that sees its folder end as by Ctrl-C, and wait until it has. One that ends already is waited for.

    Args:
        answer_s: longest wait for a run that is not of this host to notice it.
        end_s: longest wait for its end.

    Raises:
        InputError: nothing is running there.
        ServiceError: it does not notice, or does not end, in time.
    """
    found = _running(run_dir, "")
    if not _signalled(found):
        write_file(run_dir / STOP, b"")
        if not _wait(answer_s, lambda: not (run_dir / STOP).exists() or _writer(run_dir) != found):
            (run_dir / STOP).unlink(missing_ok=True)
            raise ServiceError(f"{run_dir}: {_unanswered(run_dir, found, answer_s)}")
    if not _wait(end_s, lambda: _writer(run_dir) != found):
        raise ServiceError(
            f"{run_dir}: {found} was asked to stop and has not ended within {end_s:.0f} s; where it hangs, end it: "
            f"{found.way_to_end}"
        )
    return found


def _signalled(found: Holder) -> bool:
    """Whether a process could be told by a signal: it is of this host, and of a user whose processes one may end."""
    try:
        if found.is_here:
            os.kill(found.pid, signal.SIGTERM)  # a run in the background may ignore SIGINT
    except ProcessLookupError:
        return True  # it has just ended
    except PermissionError:
        return False
    return found.is_here


def _unanswered(run_dir: Path, found: Holder, seconds: float) -> str:
    """What is known of a run that does not answer, and what ends it."""
    silent = silence_s(read_state(run_dir))
    said = f" and has said nothing for {silent:.0f} s" if read_state(run_dir) and silent > SILENT_S else ""
    return (
        f"{found} did not answer within {seconds:.0f} s{said}; where it hangs, end it: {found.way_to_end} "
        f"(where that host is gone: delete {run_dir / LOCK})"
    )


def _wait(seconds: float, done: Callable[[], bool]) -> bool:
    """Whether it is done in time."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def ask_for(run_dir: Path, sizes: Sizes, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """Ask a run for other numbers of workers and wait for its answer: service → [before, after].

    Raises:
        InputError: nothing is running there, or it says no.
        ServiceError: no answer in time, or the run failed to do it.
    """
    wish = " ".join(f"{service}.replicas={count}" for service, count in sizes.items())
    found = _running(run_dir, f"; start it with `rayzero train {run_dir} {wish}`")
    answer = run_dir / ANSWER
    answer.unlink(missing_ok=True)
    write_file(run_dir / REQUEST, json.dumps(dict(sizes)).encode())
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if answer.is_file():
            said: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            answer.unlink()
            if "refused" in said:
                raise InputError(said["refused"])
            if "failed" in said:
                raise ServiceError(said["failed"])
            return said
        time.sleep(0.1)
    (run_dir / REQUEST).unlink(missing_ok=True)
    raise ServiceError(f"{run_dir}: {_unanswered(run_dir, found, timeout_s)}; nothing was changed")


async def serve_requests(run_dir: Path, scale: Callable[[Sizes], Awaitable[dict[str, Any]]]) -> None:
    """The run's side: look for requests until cancelled. `scale` does what is asked and says what became of it."""
    while True:
        await asyncio.sleep(POLL_S)
        path = run_dir / REQUEST
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        path.unlink()
        try:
            said = await scale({str(service): int(count) for service, count in json.loads(text).items()})
        except InputError as problem:
            said = {"refused": str(problem)}
        except (ValueError, TypeError, AttributeError):
            said = {"refused": f"a request that is no table of numbers: {text[:80]!r}"}
        except ServiceError as problem:
            said = {"failed": str(problem)}
        write_file(run_dir / ANSWER, json.dumps(said).encode())


def _running(run_dir: Path, way_out: str) -> Holder:
    if not (run_dir / STORED).is_file():
        raise InputError(f"{run_dir}: holds no run (no {STORED} in it)")
    found = _writer(run_dir)
    if found is None:
        raise InputError(f"{run_dir}: nothing is running there{way_out}")
    return found


def _writer(run_dir: Path) -> Holder | None:
    return writer_of(run_dir, read_state(run_dir))
