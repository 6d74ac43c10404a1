"""The warm parent of cells: a bare interpreter that shuts itself in once and then forks a cell for every program.

Started by the host in an interpreter without site-packages, with one end of a socket as standard input. It never sees a
program, an input or a test: those go to the cell through descriptors that it only hands on. After each cell it ends every
process that is left, replaces a scratch directory that was written to, and only then says so.

With namespaces (tier A) it is process 1 of its own process namespace, with its own mounts, network, IPC and user
namespace; without (tier B) cells are shut in by Landlock and seccomp alone and cannot start processes.
"""

import contextlib
import gc
import json
import os
import random
import select
import signal
import socket
import sys
import time
import traceback
from typing import Any, NoReturn

# All of it before the shutting in: these files cannot be read after it.
from rewards.sandbox.inside import cell, kernel, packages, syscalls
from rewards.sandbox.inside.messages import receive, send

_POLL_S = 0.02
"""Seconds between two looks at the memory of a running cell."""
_PRELOADED = """
abc bisect collections collections.abc contextlib copy dataclasses datetime decimal enum fractions functools heapq io 
itertools json math numbers operator queue random re string struct textwrap threading traceback types typing
"""
_DEVICES = ("null", "zero", "full", "random", "urandom")
_STACK = 120 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EVERYTHING = """
__future__ argparse array asyncio ast base64 binascii bz2 cProfile calendar cmath colorsys concurrent.futures 
concurrent.futures.thread configparser contextvars csv difflib dis doctest email encodings.ascii encodings.idna 
encodings.latin_1 encodings.utf_16 errno fileinput fnmatch getopt glob graphlib gzip hashlib hmac html html.parser 
importlib.metadata importlib.resources importlib.util inspect ipaddress keyword linecache locale logging lzma mmap numbers optparse pathlib pickle pickletools 
platform pprint profile pstats reprlib resource sched secrets select selectors shelve shlex shutil signal socket sqlite3 
stat statistics string stringprep subprocess symtable tarfile tempfile time timeit token tokenize trace tracemalloc types 
unicodedata unittest unittest.mock urllib.parse uuid weakref xml.etree.ElementTree zipfile zlib zoneinfo
"""
"""Modules that are imported as well where cells may be unable to read the interpreter's own files (tier B as another user)."""


class Zygote:
    """One cell at a time."""

    def __init__(self, control: socket.socket, config: dict[str, Any], proc: int) -> None:
        self._control = control
        self._config = config
        self._proc = proc
        self._namespaces = config["tier"] == "A"
        self._baseline = _resident(proc, os.getpid())
        self._memory_limit = 0
        self._untouched = kernel.state_of("/tmp")
        self._address_space = _address_space(proc, os.getpid())

    def serve(self) -> None:
        """Run cells until the host closes its end."""
        while True:
            order, descriptors = receive(self._control)
            if order is None:
                return
            if order["order"] == "cell":
                self._run_cell(order, descriptors)

    def _run_cell(self, order: dict[str, Any], descriptors: list[int]) -> None:
        self._memory_limit = order["limits"]["memory"]
        child = os.fork()
        if child == 0:
            self._become_cell(order, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        why, left = self._watch(child)
        status = self._sweep(child)
        if left:
            os._exit(0)  # the host is gone; so is everything that ran here
        send(self._control, {"event": "ended", "why": why, "status": status})

    def _become_cell(self, order: dict[str, Any], descriptors: list[int]) -> NoReturn:
        self._control.close()
        os.close(self._proc)
        limits = order["limits"] | {"address_space": self._address_space}
        cell.run_cell(order["role"], limits, self._config, descriptors)

    def _watch(self, child: int) -> tuple[str, bool]:
        """Wait for the end of the cell's main process. Returns why it was ended from here, and whether the host left."""
        pidfd = os.pidfd_open(child)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.register(self._control, select.POLLIN)
            next_look = time.monotonic() + _POLL_S
            while True:
                ready = dict(poll.poll(max(0.0, next_look - time.monotonic()) * 1000))
                if pidfd in ready:
                    return "", False
                if ready:
                    order, descriptors = receive(self._control)
                    for descriptor in descriptors:
                        os.close(descriptor)
                    if order is None or order["order"] == "kill":
                        return "killed", order is None
                if time.monotonic() >= next_look:
                    if self._memory(child) > self._memory_limit:
                        return "memory", False
                    next_look = time.monotonic() + _POLL_S
        finally:
            os.close(pidfd)

    def _sweep(self, child: int) -> int:
        """End and reap everything below; the wait status of the cell's main process."""
        status = 0
        self._kill()
        while True:
            try:
                ended, how = os.waitpid(-1, 0)
            except ChildProcessError:
                break
            if ended == child:
                status = how
                self._kill()  # orphans have only now become children of this process
        if self._namespaces and kernel.state_of("/tmp") != self._untouched:
            kernel.unmount("/tmp")
            mount_scratch(self._config)
            self._untouched = kernel.state_of("/tmp")
        return status

    def _kill(self) -> None:
        if self._namespaces:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # everybody in this process namespace but this process, which is its first
            return
        for child in self._children(os.getpid()):
            for process in (*self._children(child), child):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def _memory(self, child: int) -> int:
        """Bytes held by all processes of the cell beyond what they share with this one."""
        if self._namespaces:
            own = os.getpid()
            processes = [int(name) for name in os.listdir(self._proc) if name.isdigit() and int(name) != own]
        else:
            processes = [child, *self._children(child)]
        held = sum(max(0, _resident(self._proc, process) - self._baseline) for process in processes)
        if held <= self._memory_limit or len(processes) <= 2:
            return held
        # A program's own forks share pages with it: before a decision, count each page once.
        return sum(_proportional(self._proc, process) for process in processes)

    def _children(self, process: int) -> list[int]:
        text = _read(self._proc, f"{process}/task/{process}/children")
        return [int(word) for word in text.split()]


def main() -> None:
    config = json.loads(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    step = ["start"]
    try:
        sys.meta_path.append(packages.Finder(config["modules"]))
        proc = _shut_in(config, control, step)
        step[0] = "preload"
        _preload(config)
        _import_packages(config, control, proc)
        _settle()
    except packages.StartsThreads as problem:
        send(control, {"event": "threads", "package": str(problem)})
        os._exit(1)
    except Exception as problem:  # noqa: BLE001 - the host is told which step failed, whatever it was
        send(control, {"event": "failed", "step": step[0], "problem": str(problem) or type(problem).__name__})
        os._exit(1)
    send(control, {"event": "ready"})
    try:
        Zygote(control, config, proc).serve()
    except Exception:  # noqa: BLE001 - its words reach the host, which sees the socket close
        traceback.print_exc()
        os._exit(1)


def _shut_in(config: dict[str, Any], control: socket.socket, step: list[str]) -> int:
    """Set up the tier; returns a descriptor of /proc for looking at the cell's memory."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    uid, gid = config["uid"], config["gid"]
    as_root = os.geteuid() == 0
    if config["tier"] == "A":
        proc = _enter_namespaces(config, as_root, step)
    else:
        step[0] = "open /proc"
        proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        kernel.adopt_orphans()
        if as_root:
            _preload(config)  # while the interpreter's own files can still be read
            _import_packages(config, control, proc)
            step[0] = "setuid"
            _become(uid, gid)
    step[0] = "capabilities"
    try:
        kernel.drop_bounding_set()
    except OSError:
        if config["tier"] == "A":  # else this is an ordinary user, who has no right to drop them and none to lose
            raise
    kernel.no_new_privileges()
    if config["tier"] == "B":
        kernel.drop_capabilities()
    _filter(config, step)
    step[0] = "limits"
    kernel.stack(_STACK)
    kernel.limit(CORE=0, NOFILE=64, MEMLOCK=65536, SIGPENDING=64, NICE=0, RTPRIO=0)
    if config["tier"] == "A":
        kernel.die_with_parent()  # else the parent is the host, whose end closes the control socket
    kernel.set_dumpable(False)
    config["zygote"] = os.getpid()
    return proc


def _filter(config: dict[str, Any], step: list[str]) -> None:
    """System calls and, where there are no namespaces, files. Only `weak` goes on without one of them."""
    config["landlock"] = kernel.landlock_abi()
    config["seccomp"] = True
    step[0] = "landlock"
    if config["tier"] == "B" and not config["landlock"] and not config["weak"]:
        raise OSError("Landlock is not offered by this kernel")
    step[0] = "seccomp"
    try:
        syscalls.refuse_for_worker()
    except (OSError, KeyError):
        if not config["weak"]:
            raise
        config["seccomp"] = False


def _enter_namespaces(config: dict[str, Any], as_root: bool, step: list[str]) -> int:
    uid, gid = config["uid"], config["gid"]
    flags = (
        kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    ) | kernel.CLONE_NEWCGROUP
    step[0] = "unshare namespaces"
    host_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    if as_root:
        kernel.unshare(flags)
    else:
        kernel.unshare(flags | kernel.CLONE_NEWUSER)
        step[0] = "map user"
        kernel.map_own_user(uid, gid, host_proc)
    os.close(host_proc)
    first = os.fork()
    if first:
        _wait_for(first)
    kernel.die_with_parent()
    step[0] = "mounts"
    _build_root(config)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    kernel.unmount("/proc")
    if as_root:
        step[0] = "setuid"
        _become(uid, gid)
        kernel.set_dumpable(True)  # else the files of this process in /proc belong to root
        step[0] = "unshare user namespace"
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        kernel.map_own_user(uid, gid, proc)
    step[0] = "scratch"
    mount_scratch(config)
    return proc


def _wait_for(first: int) -> NoReturn:
    """The process that the host started: it ends when the first of the new process namespace does, and the other way."""
    os.closerange(0, 2)
    os.closerange(3, 64)
    _, status = os.waitpid(first, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _build_root(config: dict[str, Any]) -> None:
    """A read-only root that holds the interpreter, the system's libraries, five devices and an empty /tmp."""
    kernel.mount(None, "/", kernel.MS_REC | kernel.MS_PRIVATE)
    trees = [(path, kernel.clone_tree(path)) for path in config["trees"]]
    devices = [(name, kernel.clone_tree(f"/dev/{name}", device=True)) for name in _DEVICES]
    links = [(path, os.readlink(path)) for path in config["links"]]
    root = "/tmp"
    kernel.mount("tmpfs", root, kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,nr_inodes=4096,mode=755")
    for name in ("proc", "tmp", "dev"):
        os.mkdir(f"{root}/{name}", 0o755)
    for path, tree in trees:
        _make_place(f"{root}{path}", os.path.isdir(path))
        kernel.attach(tree, f"{root}{path}")
    for name, tree in devices:
        _make_place(f"{root}/dev/{name}", False)
        kernel.attach(tree, f"{root}/dev/{name}")
    for path, target in links:
        os.symlink(target, f"{root}{path}")
    kernel.mount("proc", f"{root}/proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.pivot_into(root)
    kernel.mount(None, "/", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)


def _make_place(path: str, folder: bool) -> None:
    """Something to mount a folder or a file on."""
    os.makedirs(path if folder else os.path.dirname(path), 0o755, exist_ok=True)
    if not folder:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def mount_scratch(config: dict[str, Any]) -> None:
    options = f"size={config['scratch']},nr_inodes={config['inodes']},mode=1777"
    kernel.mount("tmpfs", "/tmp", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    os.chdir("/tmp")


def _preload(config: dict[str, Any]) -> None:
    """Import what programs use, so that each finds it there."""
    unreadable_later = config["tier"] == "B" and config["as_root"]
    for name in (_PRELOADED + _EVERYTHING if unreadable_later else _PRELOADED).split():
        with contextlib.suppress(ImportError):
            __import__(name)
    random.seed(0)  # a program behaves alike wherever and whenever it runs


def _import_packages(config: dict[str, Any], control: socket.socket, proc: int) -> None:
    """Import the packages of the recipe; what they leave in the scratch directory goes.

    The host is told which is next: its failure is then no weakness of the tier.
    """
    untouched = kernel.state_of("/tmp")

    def announce(name: str) -> None:
        send(control, {"event": "importing", "package": name})

    packages.import_all(config["warm"], config["cold"], proc, announce)
    if config["tier"] == "A" and kernel.state_of("/tmp") != untouched:
        kernel.unmount("/tmp")
        mount_scratch(config)


def _settle() -> None:
    """Make what is here now the part that cells share."""
    cell.open_streams()
    gc.collect()
    gc.freeze()
    gc.disable()


def _read(proc: int, path: str) -> str:
    """A file below /proc; empty when the process is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY, dir_fd=proc)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 65536).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _resident(proc: int, process: int) -> int:
    fields = _read(proc, f"{process}/statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def _address_space(proc: int, process: int) -> int:
    fields = _read(proc, f"{process}/statm").split()
    return int(fields[0]) * _PAGE if fields else 0


def _proportional(proc: int, process: int) -> int:
    for line in _read(proc, f"{process}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return _resident(proc, process)  # more than its share, where the kernel does not say
