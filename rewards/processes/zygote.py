"""The far side of `rewards.processes.pool`: one zygote that has imported what is needed, and the children that it forks.

The zygote is started by fork + exec and stays single-threaded, so that forking it is cheap and safe. It speaks with the
pool over one socket of whole messages: a message with a file descriptor asks for a child that serves that descriptor;
the zygote answers with the child's pid and pidfd, and later with the status that it ended with. When the socket closes,
or the parent is gone, it kills its children and ends.

A child answers length-prefixed JSON frames, one at a time, until its socket closes. Nothing is ever unpickled.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import inspect
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

HEADER = struct.Struct(">I")
"""Header of a frame: the length of what follows, in bytes."""
MAX_FRAME = 16 << 20
"""Bytes of the longest request and reply; longer ones are refused."""
MAX_NOTE = 8 << 10
"""Bytes of the longest text of an error; a longer one is cut."""

_PARENT_CHECK_S = 1.0
_PR_SET_PDEATHSIG = 1

Function = Callable[..., Any]


def main(control_fd: int, memory_bytes: int, preload: list[str]) -> None:
    """Import, say so, fork on request; returns when the pool has closed its end."""
    control = socket.socket(fileno=control_fd)
    parent = os.getppid()
    try:
        for name in preload:
            _load_module(name)
    except BaseException as problem:  # noqa: BLE001  # whatever stops the import, the pool is told and stops the run
        _tell(control, failed=f"{name}: {_describe(problem, None)}")
        return
    gc.collect()
    gc.freeze()
    _tell(control, ready=True)
    _Zygote(control, parent, memory_bytes).run()


class _Zygote:
    def __init__(self, control: socket.socket, parent: int, memory_bytes: int) -> None:
        self._control = control
        self._parent = parent
        self._memory_bytes = memory_bytes
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._children: set[int] = set()
        # SIGCHLD has to wake poll(); its handler does nothing, the byte in this pair does.
        self._woken, waker = socket.socketpair()
        for end in (self._woken, waker):
            end.setblocking(False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while os.getppid() == self._parent:
            ready = {fd for fd, _ in poll.poll(_PARENT_CHECK_S * 1000)}
            if self._woken.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            self._reap()
            if self._control.fileno() in ready and not self._request():
                break
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)

    def _request(self) -> bool:
        """Fork a child for the descriptor that comes with the message. False at the end of the socket."""
        try:
            message, fds, _, _ = socket.recv_fds(self._control, 64, 1)
        except ConnectionResetError:  # the pool closed before it had read everything
            return False
        if not message:
            return False
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as problem:
            _tell(self._control, fork_failed=str(problem))
        else:
            if pid == 0:
                self._become_child(fds[0], zygote)
            self._children.add(pid)
            pidfd = os.pidfd_open(pid)
            # A pool that has closed meanwhile is noticed at the next message.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self._control, [json.dumps({"pid": pid}).encode()], [pidfd])
            os.close(pidfd)
        os.close(fds[0])
        return True

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._children.discard(pid)
            _tell(self._control, ended=pid, code=os.waitstatus_to_exitcode(status))

    def _become_child(self, fd: int, zygote: int) -> None:
        """Serve `fd` in a process that has just been forked. Never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != zygote:
                os._exit(0)
            for end in (self._control, self._woken, self._waker):
                end.close()
            _limit(self._memory_bytes)
            _serve(socket.socket(fileno=fd))
            code = 0
        except BaseException:  # noqa: BLE001  # a fork must not run on in the zygote's code
            traceback.print_exc()
        finally:
            os._exit(code)


def _limit(memory_bytes: int) -> None:
    """The child may map `memory_bytes` beyond what it started with; it leaves no core, and is the first that the kernel ends when memory runs out."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _tell(control: socket.socket, **note: Any) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        control.send(json.dumps(note).encode())


# --- In the child


def _serve(sock: socket.socket) -> None:
    functions: dict[str, Function] = {}
    while (frame := _receive(sock)) is not None:
        began = time.perf_counter()
        try:
            reply = _run(json.loads(frame), functions)
        except MemoryError:
            # What is left of the process is not to be trusted; the pool starts another.
            reply = {"crashed": "it ran out of the memory that a child may have"}
        reply["seconds"] = time.perf_counter() - began
        answer = _encode(reply)
        del frame
        sock.sendall(HEADER.pack(len(answer)) + answer)
        if "crashed" in reply:
            return


def _run(request: dict[str, Any], functions: dict[str, Function]) -> dict[str, Any]:
    name = request["function"]
    function: Function | None = None
    try:
        if name not in functions:
            functions[name] = load_function(name)
        function = functions[name]
        _beside(name.rpartition(":")[0])
        called = function
        if through := request.get("through"):
            if through not in functions:
                functions[through] = load_function(through)
            called = partial(functions[through], function)
        value = finished(called(*request["args"], **request["kwargs"]))
    except MemoryError:
        raise
    except BaseException as problem:  # noqa: BLE001  # some libraries' timeouts, and sys.exit, are no Exceptions
        return {"raised": _describe(problem, function)}
    return {"value": value}


def finished(value: Any) -> Any:
    """What a call returned; where it is awaitable, what comes of it."""
    if not inspect.isawaitable(value):
        return value
    import asyncio  # only functions that await pay for it

    async def finish() -> Any:
        return await value

    return asyncio.run(finish())


def _encode(reply: dict[str, Any]) -> bytes:
    try:
        answer = json.dumps(reply, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        return json.dumps({"raised": f"what it returned is not JSON: {problem}"[:MAX_NOTE], "seconds": 0.0}).encode()
    if len(answer) > MAX_FRAME:
        note = {"raised": f"it returned {len(answer)} bytes; at most {MAX_FRAME} are taken", "seconds": 0.0}
        return json.dumps(note).encode()
    return answer


def _describe(problem: BaseException, function: Function | None) -> str:
    """`ValueError: no such row, at my_reward.py:12 in score: row = rows[i]`, in the user's own file where it can be."""
    frames = traceback.extract_tb(problem.__traceback__)
    code = getattr(inspect.unwrap(function), "__code__", None) if function else None
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    text = f"{type(problem).__name__}: {problem}"[: MAX_NOTE // 2]
    # Frames of this folder are no news to anyone; an error before the function began has no others.
    here = str(Path(__file__).parent)
    foreign = [
        frame
        for frame in frames
        if str(Path(frame.filename).parent) != here and not frame.filename.startswith("<frozen")
    ]
    if not (own or foreign):
        return text
    frame = (own or foreign)[-1]
    return f"{text}, at {frame.filename}:{frame.lineno} in {frame.name}: {frame.line or ''}"[:MAX_NOTE]


def _receive(sock: socket.socket) -> bytes | None:
    """One frame; None where the pool has closed its end."""
    header = _receive_exactly(sock, HEADER.size)
    return None if header is None else _receive_exactly(sock, HEADER.unpack(header)[0])


def _receive_exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


# --- Names of functions


def load_function(name: str) -> Function:
    """`package.module:function` or `path/to/file.py:function`.

    Raises what the import raises; AttributeError or TypeError where the module has no such function.
    """
    origin, _, attribute = name.rpartition(":")
    function = getattr(_load_module(origin), attribute)
    # A scorer is called by its `compute` (rewards/processes/forms.py).
    if not callable(function) and not callable(getattr(function, "compute", None)):
        raise TypeError(f"{name} is not a function")
    checked: Function = function
    return checked


def _load_module(origin: str) -> ModuleType:
    if not origin.endswith(".py"):
        return importlib.import_module(origin)
    # Without dots, which would make it part of a package: a relative import says that there is none.
    name = f"rayzero_user_{Path(origin).resolve()}".replace(".", "%2E")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, origin)
        if spec is None or spec.loader is None or not Path(origin).is_file():
            raise FileNotFoundError(f"no file {origin}")
        _beside(origin)
        module = importlib.util.module_from_spec(spec)
        # Known under its name while it runs, as dataclasses and the like ask for; forgotten if it fails.
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


_siblings: dict[str, dict[str, ModuleType]] = {}
"""Folder of a user's file → what has been imported from there."""
_folder = ""
"""The folder whose files are importable now."""


def _beside(origin: str) -> None:
    """Make the files beside a user's file importable, as they are for a script, while its functions run.

    Two files in two folders may each have a `helper.py` beside them; one function never sees the other's.
    """
    global _folder
    folder = str(Path(origin).resolve().parent) if origin.endswith(".py") else ""
    if folder == _folder:
        return
    if _folder:
        sys.path.remove(_folder)
        _siblings[_folder] = {name: module for name, module in sys.modules.items() if _stands_in(module, _folder)}
        for name in _siblings[_folder]:
            del sys.modules[name]
    if folder:
        sys.path.insert(0, folder)
        sys.modules.update(_siblings.get(folder, {}))
    importlib.invalidate_caches()
    _folder = folder


def _stands_in(module: ModuleType, folder: str) -> bool:
    """Whether a module was found by way of a folder, and by no other entry of the path."""
    file, name = getattr(module, "__file__", None), module.__name__
    if not file or name.startswith("rayzero_user_"):
        return False
    above = [str(parent) for parent in Path(file).parents]
    depth = name.count(".") + (Path(file).name == "__init__.py")
    return above[depth : depth + 1] == [folder] and folder not in sys.path
