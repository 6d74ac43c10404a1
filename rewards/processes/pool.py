"""Processes for functions that are trusted but may hang: each call ends by its deadline, whatever it runs.

    async with KillablePool(workers=2, preload=("rewards.math.symbolic",)) as pool:
        outcome = await pool.call("rewards.math.symbolic:equivalent", ["1/2", "0.5"], deadline_s=2.0)

Signals and threads cannot stop a long call into C; SIGKILL can. So a call runs in a child of its own, forked from a warm
zygote (`rewards.processes.zygote`), and the parent kills it when its time is up. A poisonous input costs its deadline and
one child, never its neighbours. There is no sandbox here: what runs is our code or the user's, only the input is hostile.

By hand: the pools of the standard library cannot end one call, and their workers come from a process that holds Ray and
torch; here a child forks from one that holds the verifiers alone, with a bound on its memory.

Nobody waits for ever: a call has its deadline, a fork `FORK_S`, a start its own limit. A zygote that does not fork, stopped
say, is replaced, and calls that wait go to the new one. A start that failed is tried again after `RETRY_S`; until then calls
fail at once and say why.

Linux only (pidfd). A pool belongs to the event loop that first used it.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rewards.processes.zygote import HEADER, MAX_FRAME, MAX_NOTE
from rewards.types import Unavailable
from rollout.errors import ServiceError

OutcomeKind = Literal["ok", "timeout", "crashed", "raised"]

# With -P and this line nothing of the working directory is imported that the parent would not import.
_BOOT = (
    "import sys; control, memory, count = map(int, sys.argv[1:4]); preload = sys.argv[4:4 + count]; "
    "sys.path[:] = sys.argv[4 + count:]; "
    "from rewards.processes.zygote import main; main(control, memory, preload)"
)
_MAX_FAILED_STARTS = 3
_EXIT_NOTE_S = 1.0
FORK_S = 15.0
"""Longest wait for the zygote to answer that it has forked a child, or could not; then it is replaced."""
NO_ROOM_S = 30.0
"""Seconds for which no child at all could be forked, after which waiting calls are told; the pool goes on trying."""
RETRY_S = 10.0
"""Seconds after a zygote that did not start before another is tried; calls fail meanwhile."""
END_S = 5.0
"""Longest wait for a process to end by itself, and again once it was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one call ended."""

    kind: OutcomeKind
    """End of the call. `ok`: it returned; `timeout`: killed at the deadline; `crashed`: its process died; `raised`: its own exception."""
    value: Any = None
    """What the function returned, when `kind == "ok"`."""
    error: str = ""
    """Why there is no value; for `raised` with the file and line of the function's own code. Empty for `ok`."""
    queue_s: float
    """Wall time until a child was free."""
    run_s: float
    """Wall time in the child, as the parent saw it."""


class KillablePool:
    """A fixed number of warm children; refills itself."""

    def __init__(
        self,
        workers: int,
        *,
        preload: Sequence[str] = (),
        memory_bytes: int = 1 << 30,
        calls_per_child: int = 1000,
        start_timeout_s: float = 60.0,
    ) -> None:
        """
        Args:
            workers: children, and so calls at the same time.
            preload: modules, or paths of Python files, that the zygote imports once; everything that takes long to
                import belongs here, since a child's own imports count towards the deadline of its first call.
            memory_bytes: address space a child may map beyond what it started with.
            calls_per_child: after so many calls a child is replaced, which bounds what it can leak.
            start_timeout_s: for the zygote to import `preload`.
        """
        self._workers = workers
        self._preload = tuple(preload)
        self._memory_bytes = memory_bytes
        self._calls_per_child = calls_per_child
        self._start_timeout_s = start_timeout_s
        self._zygote: _Zygote | None = None
        self._starting: asyncio.Task[None] | None = None
        self._idle: deque[_Child] = deque()
        self._waiting: deque[asyncio.Future[_Child]] = deque()
        self._closed = False
        self._failure: ServiceError | None = None
        self._failed_at = 0.0
        self._replaced: list[_Zygote] = []
        """Zygotes that have ended and may still have to be collected."""

    async def __aenter__(self) -> "KillablePool":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Bring up the zygote and ask it for the children. `call` does it by itself.

        Raises:
            Unavailable: the zygote did not come up, or `preload` did not import.
            ServiceError: the pool is closed.
        """
        if self._closed:
            raise ServiceError("the process pool is closed")
        if self._failure is not None and time.monotonic() - self._failed_at < RETRY_S:
            raise Unavailable(str(self._failure)) from self._failure
        if self._zygote is None:
            if self._starting is None:
                self._starting = asyncio.get_running_loop().create_task(self._bring_up())
            # Shielded: one caller's cancellation must not take the start away from the others.
            await asyncio.shield(self._starting)

    async def call(
        self,
        function: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        deadline_s: float,
        through: str = "",
    ) -> Outcome:
        """Run `module:function` or `path/to/file.py:function`, sync or async, on JSON-able arguments.

        `through`: another function, in the same form of name, that is called in its place and gets it before the arguments.

        Never retries. The deadline counts from when a child has taken the call; waiting for one is `queue_s`.

        Raises:
            Unavailable: no child can be started just now.
            ServiceError: the pool is closed.
            TypeError, ValueError: the arguments are not JSON, or longer than 16 MiB of it.
        """
        request = {"function": function, "args": list(args), "kwargs": dict(kwargs or {}), "through": through}
        body = json.dumps(request, separators=(",", ":")).encode()
        if len(body) > MAX_FRAME:
            raise ValueError(f"{function}: {len(body)} bytes of arguments; at most {MAX_FRAME} are taken")
        asked = time.perf_counter()
        while self._zygote is None or self._closed:
            await self.start()
        child = await self._take()
        began = time.perf_counter()
        try:
            reply = await child.ask(HEADER.pack(len(body)) + body, deadline_s)
        except BaseException:
            self._discard(child)
            raise
        queue_s, run_s = began - asked, time.perf_counter() - began
        if isinstance(reply, dict) and "crashed" not in reply:
            self._give_back(child)
            error = reply.get("raised", "")
            kind: OutcomeKind = "raised" if error else "ok"
            return Outcome(kind=kind, value=reply.get("value"), error=error, queue_s=queue_s, run_s=run_s)
        self._discard(child)
        if reply is None:
            error = f"{function} took more than {deadline_s:g} s"
            return Outcome(kind="timeout", error=error, queue_s=queue_s, run_s=run_s)
        why = reply["crashed"] if isinstance(reply, dict) else f"{reply}; {await child.exit_reason()}"
        return Outcome(kind="crashed", error=f"{function}: {why}", queue_s=queue_s, run_s=run_s)

    async def close(self) -> None:
        """Kill everything; returns when no process is left. Waiting calls raise ServiceError."""
        self._closed = True
        self._fail_waiting(ServiceError("the process pool was closed"))
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._zygote is not None:
            zygote, self._zygote = self._zygote, None
            await zygote.close()
        for zygote in self._replaced:
            await zygote.close()
        self._idle.clear()

    # --- Children

    async def _take(self) -> "_Child":
        while self._idle:
            child = self._idle.popleft()
            if child.alive:
                return child
        waiter: asyncio.Future[_Child] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._offer(waiter.result())
            raise

    def _give_back(self, child: "_Child") -> None:
        if child.calls >= self._calls_per_child:
            self._discard(child)
        else:
            self._offer(child)

    def _offer(self, child: "_Child") -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(child)
                return
        self._idle.append(child)

    def _discard(self, child: "_Child") -> None:
        """Kill a child and ask for another, once however often it is called."""
        if child.discarded:
            return
        child.discarded = True
        child.kill()
        if self._zygote is not None and self._zygote is child.zygote:
            self._zygote.request_child()

    # --- The zygote

    async def _bring_up(self) -> None:
        try:
            for attempt in range(1, _MAX_FAILED_STARTS + 1):
                try:
                    zygote = await _Zygote.start(self, self._preload, self._memory_bytes, self._start_timeout_s)
                    break
                except OSError as problem:  # the machine is short of something; the next try may find it
                    if attempt == _MAX_FAILED_STARTS:
                        raise _does_not_start(problem) from problem
                    await asyncio.sleep(attempt)
            self._zygote, self._failure = zygote, None
            for _ in range(self._workers):
                zygote.request_child()
        except Exception as problem:
            failure = problem if isinstance(problem, Unavailable) else _does_not_start(problem)
            self._failure, self._failed_at = failure, time.monotonic()
            self._fail_waiting(failure)
            if failure is problem:
                raise
            raise failure from problem
        finally:
            self._starting = None

    def no_room(self, problem: str) -> None:
        """No child can be forked, and none is there: whoever waits is told. It is tried on."""
        self._fail_waiting(Unavailable(f"no process can be forked: {problem}"))

    def _fail_waiting(self, problem: ServiceError) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(problem)

    def child_ready(self, child: "_Child") -> None:
        """The zygote has forked a child."""
        self._offer(child)

    def idle_ended(self, child: "_Child") -> None:
        """A child ended between two calls."""
        self._discard(child)

    def zygote_ended(self, zygote: "_Zygote") -> None:
        """The zygote has ended, and all its children with it. Calls that wait get a new zygote."""
        if self._zygote is not zygote:
            return
        self._zygote = None
        self._idle.clear()
        self._replaced = [*(each for each in self._replaced if not each.collected), zygote]
        if not self._closed and self._waiting:
            self._starting = asyncio.get_running_loop().create_task(self._bring_up())
            # A failure has reached those who wait; nobody else awaits this task.
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())


class _Zygote:
    """The parent's handle on the zygote process."""

    def __init__(
        self, pool: KillablePool, process: subprocess.Popen[bytes], control: socket.socket, preload: Sequence[str]
    ) -> None:
        self._pool = pool
        self._preload = preload
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._pending: deque[socket.socket] = deque()
        self._children: dict[int, _Child] = {}
        self._up: asyncio.Future[None] = self._loop.create_future()
        self._full_since: float | None = None
        self._ending: asyncio.Task[None] | None = None
        self.ended = False
        """Whether it is gone, and its children with it."""
        self._loop.add_reader(control, self._on_message)

    @classmethod
    async def start(cls, pool: KillablePool, preload: Sequence[str], memory_bytes: int, timeout_s: float) -> "_Zygote":
        """Raises OSError when no process can be had, ServiceError when it does not come up."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            command = [sys.executable, "-P", "-c", _BOOT, str(far.fileno()), str(memory_bytes), str(len(preload))]
            process = subprocess.Popen(
                [*command, *preload, *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a child prints must not meet the parent's standard output, which may be a protocol
                pass_fds=(far.fileno(),),
                start_new_session=True,  # Ctrl-C is the parent's affair
                # Threads in the zygote would make its forks unsafe.
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        near.setblocking(False)
        zygote = cls(pool, process, near, preload)
        try:
            await asyncio.wait_for(asyncio.shield(zygote._up), timeout_s)
        except TimeoutError:
            await zygote.close()
            raise Unavailable(f"importing {', '.join(preload)} took more than {timeout_s:g} s") from None
        except BaseException:
            await zygote.close()
            raise
        return zygote

    def request_child(self) -> None:
        try:
            near, far = socket.socketpair()
        except OSError as problem:  # too many open files
            self._no_room(str(problem))
            return
        near.setblocking(False)
        with far:
            try:
                socket.send_fds(self._control, [b"fork"], [far.fileno()])
            except OSError as problem:
                near.close()
                # It has not read those before. Or it has died or is dying: the end of the socket will say so.
                if isinstance(problem, BlockingIOError):
                    self._loop.call_later(0.5, self._request_again)
                return
        self._pending.append(near)
        self._loop.call_later(FORK_S, self._on_silence, near)

    def _on_silence(self, near: socket.socket) -> None:
        """A fork was asked for `FORK_S` ago. When it is still waited for, the zygote is stopped, or stuck in the kernel."""
        # The loop itself may have been late: an answer that is here counts.
        while not self.ended and near in self._pending and self._on_message():
            pass
        if not self.ended and near in self._pending:
            self._on_end()

    def _no_room(self, problem: str) -> None:
        """Memory, processes or files are short just now; the pool is one child smaller until there is room again."""
        self._full_since = self._full_since or time.monotonic()
        if not self._children and time.monotonic() - self._full_since >= NO_ROOM_S:
            self._pool.no_room(problem)
        self._loop.call_later(0.5, self._request_again)

    @property
    def collected(self) -> bool:
        """Whether it is gone and its exit was taken."""
        return self._process.poll() is not None

    async def close(self) -> None:
        """The zygote kills its children, reaps them, and ends; one that does not is killed."""
        self.ended = True
        self._hang_up()
        for child in list(self._children.values()):
            child.kill()
        self._close_children()
        if self._ending is not None:
            await self._ending
            return
        if not await _gone(self._process):
            self._process.kill()
            await _gone(self._process)

    def _on_message(self) -> bool:
        """Take what the zygote says; False when there was nothing."""
        try:
            message, fds, _, _ = socket.recv_fds(self._control, MAX_NOTE * 8, 1)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            message, fds = b"", []
        if not message:
            self._on_end()
            return True
        note = json.loads(message)
        if "pid" in note and fds:
            child = _Child(self._pool, self, self._pending.popleft(), fds[0])
            self._children[note["pid"]] = child
            self._full_since = None
            self._pool.child_ready(child)
        elif "pid" in note:  # this process has no descriptor free for it; the child ends with its socket
            self._pending.popleft().close()
            self._no_room("too many open files")
        elif "ended" in note:
            if ended := self._children.pop(note["ended"], None):
                ended.on_end(note["code"])
        elif "ready" in note:
            self._up.set_result(None)
        elif "failed" in note:
            self._up.set_exception(Unavailable(f"cannot import {note['failed']}"))
        elif "fork_failed" in note:
            self._pending.popleft().close()
            self._no_room(note["fork_failed"])
        return True

    def _request_again(self) -> None:
        if not self.ended and self._process.poll() is None:
            self.request_child()

    def _hang_up(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()

    def _on_end(self) -> None:
        self.ended = True
        self._hang_up()
        # Its children end with it, also where it is stopped. Its exit must be collected, which the loop does not wait for.
        self._process.kill()
        self._ending = self._loop.create_task(_collect(self._process))
        if not self._up.done():
            self._up.set_exception(Unavailable(f"the process that imports {', '.join(self._preload)} died"))
        self._close_children()
        self._pool.zygote_ended(self)

    def _close_children(self) -> None:
        while self._pending:
            self._pending.popleft().close()
        for child in self._children.values():
            child.on_end(None)
        self._children.clear()


def _does_not_start(problem: Exception) -> Unavailable:
    return Unavailable(f"the process pool's zygote does not start: {type(problem).__name__}: {problem}")


async def _gone(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended, `END_S` at most; its exit is collected then."""
    until = time.monotonic() + END_S
    while process.poll() is None:
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.005)
    return True


async def _collect(process: subprocess.Popen[bytes]) -> None:
    """Collect the exit of a process that was killed; one that the kernel holds is left to Python's next start of a process."""
    await _gone(process)


class _Child:
    """The parent's handle on one child. At most one call at a time."""

    def __init__(self, pool: KillablePool, zygote: _Zygote, sock: socket.socket, pidfd: int) -> None:
        self._pool = pool
        self.zygote = zygote
        self._sock = sock
        self._pidfd = pidfd
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[dict[str, Any] | str | None] | None = None
        self._exit: asyncio.Future[int | None] = self._loop.create_future()
        self._incoming = bytearray()
        self._outgoing = memoryview(b"")
        self._writing = False
        self.calls = 0
        self.alive = True
        self.discarded = False
        self._loop.add_reader(sock, self._on_readable)

    async def ask(self, frame: bytes, deadline_s: float) -> dict[str, Any] | str | None:
        """The child's reply; None when the deadline passed; a text, when it broke off, saying how."""
        self.calls += 1
        self._answer = self._loop.create_future()
        timer = self._loop.call_later(deadline_s, self._on_deadline)
        try:
            self._outgoing = memoryview(frame)
            if self.alive:
                self._send()
            else:
                self._settle("it died")
            return await self._answer
        finally:
            timer.cancel()
            self._answer = None

    async def exit_reason(self) -> str:
        """How the process ended."""
        await asyncio.wait([self._exit], timeout=_EXIT_NOTE_S)
        code = self._exit.result() if self._exit.done() else None
        if code is None:
            return "how it ended is not known"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        self._hang_up()
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1

    def on_end(self, code: int | None) -> None:
        """The zygote has collected this child's exit code (negative: a signal); None where the zygote itself is gone."""
        if not self._exit.done():
            self._exit.set_result(code)
        # The note of its end may overtake its last reply.
        self._read_all()
        self._break_off("it died")

    def _send(self) -> None:
        try:
            self._outgoing = self._outgoing[self._sock.send(self._outgoing) :]
        except (BlockingIOError, InterruptedError):
            pass  # the rest goes when the socket can be written again
        except OSError:
            self._break_off("it died")
            return
        # Usually all of it goes at once, and no writer is ever registered.
        if bool(self._outgoing) != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._sock, self._send)
            else:
                self._loop.remove_writer(self._sock)

    def _on_readable(self) -> bool:
        """Take what is there; False when there was nothing."""
        if not self.alive:
            return False
        try:
            data = self._sock.recv(1 << 18)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data or self._answer is None:
            self._break_off("it died")
            return False
        self._incoming += data
        if len(self._incoming) < HEADER.size:
            return True
        size = HEADER.unpack_from(self._incoming)[0]
        if size > MAX_FRAME:
            self._break_off(f"its reply of {size} bytes is no reply")
        elif len(self._incoming) >= HEADER.size + size:
            body = bytes(self._incoming[HEADER.size : HEADER.size + size])
            self._incoming.clear()
            try:
                self._settle(json.loads(body))
            except ValueError:
                self._break_off("its reply is not JSON")
        return True

    def _on_deadline(self) -> None:
        # The loop itself may have been late: a reply that is here counts.
        self._read_all()
        self._settle(None)

    def _read_all(self) -> None:
        while self._answer is not None and not self._answer.done() and self._on_readable():
            pass

    def _settle(self, reply: dict[str, Any] | str | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def _break_off(self, how: str) -> None:
        self._hang_up()
        if self._answer is not None:
            self._settle(how)
        else:
            self._pool.idle_ended(self)

    def _hang_up(self) -> None:
        if self.alive:
            self.alive = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
