"""A cell: one forked process of the zygote's that takes a program, shuts itself in further, and runs it.

As `program` it runs the text as `__main__` once for every input, each in a fork of its own (the last one in itself); as
`serve` it imports the text as a module whose names the tests can call; as `tests` it runs the tests (see assertions.py).
"""

import _sitebuiltins
import _thread
import atexit
import builtins
import contextlib
import gc
import os
import socket
import sys
import threading
import types
from collections.abc import Mapping
from typing import Any, NoReturn, TextIO

from rewards.sandbox.inside import assertions, forks, kernel, syscalls
from rewards.sandbox.inside.messages import receive, send
from rewards.sandbox.inside.rpc import Peer

_leave = os._exit  # whatever the program makes of that name
_FAILED = 70
_SLACK = 1 << 30
"""Address space beyond the memory limit: reserved stacks and mappings are no memory yet. Memory itself is watched."""
_NOT_COMPILED = (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError)

Confinement = Mapping[str, Any]
"""`tier`, `trees` (readable), `as_root`, `landlock` (its version, 0 without), `seccomp` (whether it works), `zygote` (its
process number)."""


def run_cell(role: str, limits: dict[str, int], tier: Confinement, descriptors: list[int]) -> NoReturn:
    """Become a cell. Never returns. `descriptors`: the text, then the host's end, then the other cell's (as far as the role has them)."""
    os.setsid()
    os.dup2(1, 2)  # to /dev/null, not to the host's log
    _shut_in(limits, tier)
    text = _read_all(descriptors[0])
    gc.enable()
    try:
        if role == "program":
            _run_inputs(text, _socket(descriptors[1]), tier)
        elif role == "serve":
            channel = _socket(descriptors[1])
            _shut_in_program(tier)
            _serve(text, channel)
        else:
            assertions.run(text, _socket(descriptors[1]), _socket(descriptors[2]))
    except BaseException:  # noqa: BLE001 - a program may have it fail; that is no success of the program's
        _leave(_FAILED)
    _leave(0)


def _socket(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=True) as file:
        file.seek(0)  # the text's other cells read through the same description
        return file.read()


# --- Confinement


def _shut_in(limits: dict[str, int], tier: Confinement) -> None:
    """Shut in the whole cell.

    A program can end the process that forks it: that is its failure like any other end by a signal.
    """
    kernel.adopt_orphans()
    kernel.limit(
        AS=limits["address_space"] + limits["memory"] + _SLACK,
        CPU=limits["cpu"],
        FSIZE=limits["file"],
    )
    if tier["tier"] == "A" or tier["as_root"]:
        # The user that is counted has nobody else in it. Two are this process and the zygote.
        kernel.limit(NPROC=limits["processes"] + 2)
    kernel.drop_capabilities()
    kernel.set_dumpable(True)  # lets the zygote see which pages processes share; nobody here can trace or has a /proc
    if tier["tier"] == "B":
        kernel.die_with_parent(tier["zygote"])
    if tier["tier"] == "B" and tier["landlock"]:
        kernel.landlock(readable=tier["trees"], writable=["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"])
    if tier["seccomp"]:
        syscalls.refuse_for_cell()


def _shut_in_program(tier: Confinement) -> None:
    """Shut in, without namespaces, the program but not the process that forks it once an input."""
    if tier["tier"] == "A":
        return
    scoped = tier["landlock"] >= 6
    if scoped:
        kernel.landlock(files=False)
    if tier["seccomp"]:
        syscalls.refuse_without_namespaces(signals=not scoped)


# --- Programs that read an input and write an output


def _run_inputs(text: bytes, host: socket.socket, tier: Confinement) -> None:
    try:
        code = compile(text, "main.py", "exec", dont_inherit=True)
    except _NOT_COMPILED as problem:
        send(host, {"event": "broken", "reason": _describe(problem)})
        return
    send(host, {"event": "compiled"})
    fork = os.fork
    # All that can be done before the fork is done once.
    module = _module("__main__", "main.py")
    _use_streams()
    _as_usual()
    forks.arm()
    gc.freeze()
    untouched = kernel.state_of("/tmp")
    while True:
        order, streams = receive(host)
        if order is None:
            return
        if order["last"]:
            host.close()
            _run_main(code, module, streams, tier)
        own = os.getpid()
        child = fork()
        if child == 0:
            host.close()
            if tier["tier"] == "B":
                kernel.die_with_parent(own)
            _run_main(code, module, streams, tier)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        stray = _left_something(untouched)
        send(host, {"event": "ran", "status": status, "stray": stray})
        if stray:
            return  # the zygote sweeps; the host starts another cell for what remains


def _left_something(untouched: tuple[int, ...]) -> bool:
    """A process of a test, or a file or an attribute of its scratch directory, that would be there in the next."""
    try:
        os.waitpid(-1, os.WNOHANG)
        return True
    except ChildProcessError:
        return os.getcwd() == "/tmp" and kernel.state_of("/tmp") != untouched


def _run_main(code: types.CodeType, module: types.ModuleType, streams: list[int], tier: Confinement) -> NoReturn:
    status = _FAILED
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _shut_in_program(tier)
        status = _as_main(code, module)
    finally:
        _leave(status)


_streams: list[TextIO] = []


def open_streams() -> None:
    """Make the standard streams once, in the zygote; what descriptors 0, 1 and 2 are is each process's own affair."""
    _streams.append(open(0, encoding="utf-8", closefd=False))  # noqa: SIM115
    _streams.append(open(1, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    _streams.append(open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115


def _use_streams() -> None:
    sys.stdin = sys.__stdin__ = _streams[0]  # type: ignore[misc,assignment]
    sys.stdout = sys.__stdout__ = _streams[1]  # type: ignore[misc,assignment]
    sys.stderr = sys.__stderr__ = _streams[2]  # type: ignore[misc,assignment]


def _as_usual() -> None:
    """Set up what a program finds in an ordinary interpreter, but for its guard of servers: numbers of any length print."""
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    sys.set_int_max_str_digits(0)


def _module(name: str, file: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(__file__=file, __builtins__=__builtins__)
    sys.modules[name] = module
    sys.argv = [file]
    return module


def _as_main(code: types.CodeType, module: types.ModuleType) -> int:
    """Run it as the interpreter would run a script; returns the exit status."""
    written = sys.stdout
    status = 0
    try:
        exec(code, module.__dict__)
    except SystemExit as leaving:
        status = _exit_status(leaving)
    except BaseException as problem:  # noqa: BLE001 - as the interpreter does
        status = 1
        _show(problem)
    return _finish(module, status, written)


def _exit_status(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF
    print(leaving.code, file=sys.stderr)
    return 1


def _show(problem: BaseException) -> None:
    if problem.__traceback__ is not None:
        problem.__traceback__ = problem.__traceback__.tb_next  # without the frame of this module
    sys.excepthook(type(problem), problem, problem.__traceback__)


def _finish(module: types.ModuleType, status: int, written: Any) -> int:
    """Do what happens at the end of an interpreter: threads, exit functions, buffers; then files that nobody closed."""
    with contextlib.suppress(BaseException):
        if _thread._count():
            threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    try:
        if sys.stdout is not None and not getattr(sys.stdout, "closed", False):
            sys.stdout.flush()
        module.__dict__.clear()
        if not written.closed:
            written.flush()
    except BaseException:  # noqa: BLE001 - as the interpreter does
        return status or 120
    with contextlib.suppress(BaseException):
        sys.stderr.flush()
    return status


# --- Modules whose names the tests call


def _serve(text: bytes, channel: socket.socket) -> None:
    peer = Peer(channel, open_house=True)
    module = _module("solution", "solution.py")
    _use_streams()
    _as_usual()
    forks.arm()
    peer.hand_out(module.__dict__)
    peer.hand_out(lambda: exec(compile(text, "solution.py", "exec", dont_inherit=True), module.__dict__))
    peer.serve()


def _describe(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"[:300]
