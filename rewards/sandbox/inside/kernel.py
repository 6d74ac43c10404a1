"""The kernel's own means of containment, by system call: namespaces, mounts, capabilities, Landlock, limits.

Numbers and layouts are those of the Linux user API headers (x86-64 and AArch64, kernel 5.13 or later). Every function
raises OSError naming the call that failed.
"""

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Iterable

MACHINE = platform.machine()
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# --- Numbers of the system calls that Python does not wrap

_X86 = {"mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "capset": 126, "prctl": 157}
_ARM = {"mount": 40, "umount2": 39, "pivot_root": 41, "unshare": 97, "capset": 91, "prctl": 167}
_BOTH = {
    "open_tree": 428,
    "move_mount": 429,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_NUMBERS = {"x86_64": _X86 | _BOTH, "aarch64": _ARM | _BOTH}

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_SIGKILL = 9


def call(name: str, *arguments: int | bytes | None) -> int:
    """One system call by name; returns its result.

    Raises:
        OSError: the call failed, or this machine's numbers are not known.
    """
    numbers = _NUMBERS.get(MACHINE)
    if numbers is None:
        raise OSError(38, f"system calls of {MACHINE} are not known here")
    passed = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    result = int(_libc.syscall(ctypes.c_long(numbers[name]), *passed))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


# --- Processes


def die_with_parent(parent: int | None = None) -> None:
    """SIGKILL for this process when its parent ends. A change of credentials clears it: call it after those.

    `parent`: who that must be; if it has ended already, so does this process.
    """
    call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def set_dumpable(yes: bool) -> None:
    """Let processes of the same user trace this one and read its memory, or forbid it."""
    call("prctl", _PR_SET_DUMPABLE, int(yes), 0, 0, 0)


def adopt_orphans() -> None:
    """Descendants whose parent ended become children of this process."""
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def no_new_privileges() -> None:
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def drop_bounding_set() -> None:
    """No capability can come back through an exec. Those held now stay."""
    for capability in range(64):
        try:
            call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError:
            if capability > 40:
                return  # the kernel knows no more of them
            raise


def drop_capabilities() -> None:
    header = struct.pack("<Ii", 0x20080522, 0)
    call("capset", header, bytes(24))


def limit(**limits: int) -> None:
    """`limit(NOFILE=64)`: hard and soft at once; a limit that is lower already stays."""
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def stack(size: int) -> None:
    """How far the stack may grow. A program may ask for more, as those that recurse deeply do: other limits hold its memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


# --- Namespaces and mounts


def unshare(flags: int) -> None:
    call("unshare", flags)


def map_own_user(uid: int, gid: int, proc: int) -> None:
    """Map this user and group to themselves in a fresh user namespace, where nobody else exists.

    `proc`: directory descriptor of a proc file system in which this process is visible.
    """
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        descriptor = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def mount(kind: str | None, target: str, flags: int, options: str = "") -> None:
    """Mount a file system of `kind` (tmpfs, proc), or change the flags of a mount when `kind` is None."""
    name = kind.encode() if kind else None
    call("mount", name or b"none", os.fsencode(target), name, flags, options.encode() if options else None)


def unmount(target: str) -> None:
    """Away from the tree at once; it ends when its last user does."""
    call("umount2", os.fsencode(target), MNT_DETACH)


def state_of(folder: str) -> tuple[int, ...]:
    """Differs once something was made, removed or renamed in a directory, or its owner, mode or attributes changed.

    The time of change is one that a program cannot set; as it may be no finer than a tick, the rest is looked at too.
    """
    found = os.stat(folder)
    return (found.st_ctime_ns, found.st_mtime_ns, found.st_mode, found.st_nlink, found.st_size)


def clone_tree(path: str, *, device: bool = False) -> int:
    """A detached, read-only copy of the mounts at `path`, as a descriptor for `attach`."""
    tree = call("open_tree", _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC)
    flags = _ATTR_RDONLY | _ATTR_NOSUID | (_ATTR_NOEXEC if device else _ATTR_NODEV)
    attributes = struct.pack("<QQQQ", flags, 0, 0, 0)
    call("mount_setattr", tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes, len(attributes))
    return tree


def attach(tree: int, target: str) -> None:
    """Put a tree of `clone_tree` in its place and close it."""
    call("move_mount", tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)


def pivot_into(root: str) -> None:
    """Make the mount at `root` the root directory and drop the old one."""
    os.chdir(root)
    call("pivot_root", b".", b".")
    unmount(".")
    os.chdir("/")


# --- Landlock

_FS_EXECUTE, _FS_READ_FILE, _FS_READ_DIR = 1 << 0, 1 << 2, 1 << 3
_FS_WRITE_FILE = 1 << 1
_FS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_NET_BIND_CONNECT = 3
_SCOPE_ABSTRACT_AND_SIGNALS = 3


def landlock_abi() -> int:
    """Version of Landlock that the kernel offers, 0 for none."""
    try:
        return call("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def landlock(*, readable: Iterable[str] = (), writable: Iterable[str] = (), files: bool = True) -> None:
    """From here on only `readable` trees can be opened for reading and `writable` files for both.

    Nothing can be created, removed, truncated or renamed. No TCP (ABI 4), no signal and no abstract socket beyond the
    domain that starts here (ABI 6). `files=False`: only those last three. Needs no_new_privileges.
    """
    abi = landlock_abi()
    if not abi:
        raise OSError(95, "landlock: not offered by this kernel")
    handled = _FS_BY_ABI[min(abi, 5)] if files else 0
    network = _NET_BIND_CONNECT if abi >= 4 else 0
    scoped = _SCOPE_ABSTRACT_AND_SIGNALS if abi >= 6 else 0
    if not (handled or network or scoped):
        return
    attributes = struct.pack("<QQQ", handled, network, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    rules = call("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        if files:
            for path in readable:
                _landlock_allow(rules, path, _FS_EXECUTE | _FS_READ_FILE | _FS_READ_DIR)
            for path in writable:
                _landlock_allow(rules, path, _FS_READ_FILE | _FS_WRITE_FILE)
        call("landlock_restrict_self", rules, 0)
    finally:
        os.close(rules)


def _landlock_allow(rules: int, path: str, access: int) -> None:
    if not os.path.exists(path):
        return
    if not os.path.isdir(path):
        access &= ~_FS_READ_DIR
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        call("landlock_add_rule", rules, 1, struct.pack("<Qi", access, beneath), 0)
    finally:
        os.close(beneath)
