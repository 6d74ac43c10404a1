"""Which system calls a hostile program may make: a seccomp filter, assembled here as classic BPF.

Everything is allowed but what is listed, and what is newer than this list is "not implemented". Refused calls fail with
EPERM, so that an honest program sees an ordinary error.
"""

import ctypes
import struct

from rewards.sandbox.inside import kernel

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}
_FIRST_UNKNOWN = 457
_X32_BIT = 0x40000000

# Name: (number on x86-64, number on AArch64); None: the architecture has no such call.
_Table = dict[str, tuple[int | None, int | None]]

_TRACING: _Table = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
_SCHEDULING: _Table = {
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "ioprio_set": (251, 30),
}
_KERNEL_SURFACE: _Table = {
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "fanotify_init": (300, 262),
    "acct": (163, 89),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "sync": (162, 81),
    "syncfs": (306, 267),
}
_NAMESPACES_AND_MOUNTS: _Table = {
    "setns": (308, 268),
    "unshare": (272, 97),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
}
_SHARED_OBJECTS: _Table = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
_NETWORK: _Table = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
}
_FILE_ATTRIBUTES: _Table = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),
}
_SIGNALS: _Table = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131)}
_OTHERS: _Table = {
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "socketpair": (53, 199),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "prlimit64": (302, 261),
    "prctl": (157, 167),
}
_REFUSED = _TRACING | _SCHEDULING | _KERNEL_SURFACE | _NAMESPACES_AND_MOUNTS | _SHARED_OBJECTS | _NETWORK
_ZYGOTE_NEEDS = {"mount", "umount2", "pidfd_open"}
_ALL = _REFUSED | _FILE_ATTRIBUTES | _SIGNALS | _OTHERS

_CLONE_NEW = 0x7E020000
_CLONE_THREAD = 0x00010000
_AF_UNIX, _SOCK_STREAM, _SOCK_KIND = 1, 1, 0xFF
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_F_SETOWN, _F_SETOWN_EX = 8, 15

# Classic BPF: operation codes, and where `struct seccomp_data` keeps what they look at.
_LOAD, _AND, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT = 0, 4
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_PR_SET_SECCOMP, _FILTER_MODE = 22, 2
_PR_SET_PDEATHSIG = 1


def refuse_for_worker() -> None:
    """The filter of the zygote and all below it: everything refused that the zygote does not need itself.

    It costs most to install; cells inherit it. Needs no_new_privileges.
    """
    code = _Assembler()
    for name in _REFUSED.keys() - _ZYGOTE_NEEDS:
        code.refuse(name)
    code.refuse("clone3", _ENOSYS)  # the C library falls back to clone, whose flags can be seen
    code.refuse_if_bits("clone", 0, _CLONE_NEW)
    code.refuse_unless("socketpair", [(0, 0xFFFFFFFF, _AF_UNIX), (1, _SOCK_KIND, _SOCK_STREAM)])
    code.refuse_values("ioctl", 1, [_TIOCSTI, _TIOCLINUX])
    code.refuse_values("fcntl", 1, [_F_SETOWN, _F_SETOWN_EX])
    code.refuse_unless("prlimit64", [(0, 0xFFFFFFFF, 0)])
    code.install()


def refuse_for_cell() -> None:
    """Refuse what the zygote still may and a cell may not. Needs no_new_privileges."""
    code = _Assembler()
    for name in _ZYGOTE_NEEDS:
        code.refuse(name)
    code.install()


def refuse_without_namespaces(signals: bool) -> None:
    """Refuse what namespaces would have contained: other processes, and attributes of files that belong to the same user.

    `signals`: refuse every signal as well, for kernels whose Landlock does not scope them.
    """
    code = _Assembler()
    for name in _FILE_ATTRIBUTES:
        code.refuse(name)
    for name in ("fork", "vfork"):
        code.refuse(name)
    code.refuse_unless("clone", [(0, _CLONE_THREAD, _CLONE_THREAD)])
    code.refuse_values("prctl", 0, [_PR_SET_PDEATHSIG])
    for name in _SIGNALS if signals else ():
        code.refuse(name)
    if not signals:
        code.refuse_values("kill", 0, [-1])
    code.install()


class _Assembler:
    """Collects checks of single calls. Each ends in a return, so that no jump is longer than the check itself."""

    def __init__(self) -> None:
        self._column = _COLUMN[kernel.MACHINE]
        arch = _AUDIT_ARCH[kernel.MACHINE]
        self._code: list[tuple[int, int, int, int]] = [
            (_LOAD, 0, 0, _ARCH_AT),
            (_JEQ, 1, 0, arch),
            (_RETURN, 0, 0, _KILL),
            (_LOAD, 0, 0, _NUMBER_AT),
            (_JGE, 0, 1, _X32_BIT),
            (_RETURN, 0, 0, _KILL),
            (_JGE, 0, 1, _FIRST_UNKNOWN),
            (_RETURN, 0, 0, _ENOSYS),
        ]

    def refuse(self, name: str, answer: int = _EPERM) -> None:
        self._check(name, [(_RETURN, 0, 0, answer)])

    def refuse_values(self, name: str, argument: int, values: list[int]) -> None:
        """EPERM where the low half of the argument is one of the values."""
        body = [_load(argument)]
        for value in values:
            body += [(_JEQ, 0, 1, value & 0xFFFFFFFF), (_RETURN, 0, 0, _EPERM)]
        self._check(name, [*body, (_RETURN, 0, 0, _ALLOW)])

    def refuse_if_bits(self, name: str, argument: int, bits: int) -> None:
        body = [_load(argument), (_JSET, 0, 1, bits), (_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
        self._check(name, body)

    def refuse_unless(self, name: str, wanted: list[tuple[int, int, int]]) -> None:
        """EPERM unless for every (argument, mask, value) the masked low half of the argument is the value."""
        body: list[tuple[int, int, int, int]] = []
        for argument, mask, value in wanted:
            body += [_load(argument), (_AND, 0, 0, mask), (_JEQ, 1, 0, value), (_RETURN, 0, 0, _EPERM)]
        self._check(name, [*body, (_RETURN, 0, 0, _ALLOW)])

    def install(self) -> None:
        code = [*self._code, (_RETURN, 0, 0, _ALLOW)]
        program = b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
        held = ctypes.create_string_buffer(program, len(program))
        header = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(held))
        kernel.call("prctl", _PR_SET_SECCOMP, _FILTER_MODE, header, 0, 0)

    def _check(self, name: str, body: list[tuple[int, int, int, int]]) -> None:
        number = _ALL[name][self._column]
        if number is not None:
            self._code += [(_JEQ, 0, len(body), number), *body]


def _load(argument: int) -> tuple[int, int, int, int]:
    """Load the low half of an argument (both architectures are little-endian)."""
    return (_LOAD, 0, 0, 16 + 8 * argument)
