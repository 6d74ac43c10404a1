"""Programs that cheat, break out, hang or explode, and what each must get. Data only: nothing here runs on import.

`CHEATS` try to be judged right, `ESCAPES` try something that the sandbox must refuse and print `contained` when it was,
`BOMBS` try to hurt the machine. Each names the outcomes that its tests may have; after every one the tests of this corpus
look for what it left behind.
"""

import os
from dataclasses import dataclass, field
from typing import Any

from tests.rewards.sandbox.hostile_objects import PRETENCES

SUM = {"tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "10 20\n", "output": "30\n"}]}
ADD = {"tests": [{"assert": "assert add(1, 2) == 3"}, {"assert": "assert add(10, 20) == 30"}]}
CLOSE = {"tests": [{"assert": "assert abs(root(4) - 2.0) < 1e-6"}, {"assert": "assert abs(root(9) - 3.0) < 1e-6"}]}
CHECK = {
    "prompt": 'import math\n\ndef helper(x):\n    return x * x\n\ndef find(y):\n    """x with helper(x) == y"""\n',
    "entry_point": "find",
    "test": "def check(candidate):\n    for y in (4, 9, 16):\n        assert abs(helper(candidate(y)) - y) < 1e-6\n",
}
CONTAINED = {"tests": [{"input": "", "output": "contained\n"}]}
TWICE = {"tests": [{"input": "", "output": "contained\n"}, {"input": "", "output": "contained\n"}]}

FAIL = ("fail",)
PASS = ("pass",)


@dataclass(frozen=True)
class Hostile:
    name: str
    program: str
    fields: dict[str, Any] = field(default_factory=lambda: SUM)
    outcomes: tuple[str, ...] = FAIL
    """What its tests may come out as; `pass` only where the program does nothing wrong in the end."""
    tiers: str = "AB"
    """Where the outcome is this one. Without namespaces nothing can be written and no process started."""


def _add(name: str, body: str, outcomes: tuple[str, ...] = FAIL) -> Hostile:
    return Hostile(name, body, ADD, outcomes)


CHEATS = [
    # --- Of programs that read an input
    Hostile("says nothing and leaves", "raise SystemExit(0)"),
    Hostile("leaves at once", "import os\nos._exit(0)"),
    Hostile("prints success markers", "print('PASSED'); print('OK'); print('{\"status\": \"ok\", \"value\": 1.0}')"),
    Hostile("prints what a host would be told", 'print(\'{"event": "ran", "status": 0}\')'),
    Hostile("prints a prefix", "print(3)", {"tests": [{"input": "", "output": "3\n4\n"}]}),
    Hostile("prints nothing for lines", "", {"tests": [{"input": "", "output": "3\n"}]}),
    Hostile("prints more lines", "print(3)\nprint(4)", {"tests": [{"input": "", "output": "3\n"}]}),
    Hostile("prints another order", "print(4)\nprint(3)", {"tests": [{"input": "", "output": "3\n4\n"}]}),
    Hostile("prints all candidates", "print('3 30')"),
    Hostile("prints close numbers", "print(0.3001)", {"tests": [{"input": "", "output": "0.3\n"}]}),
    Hostile("prints a close whole number", "print(1000000008.0)", {"tests": [{"input": "", "output": "1000000007\n"}]}),
    Hostile("prints what is near everything", "print('nan')", {"tests": [{"input": "", "output": "0.3\n"}]}),
    Hostile("right, then exit status 1", "print(sum(map(int, input().split())))\nraise SystemExit(1)"),
    Hostile("right, then an exception", "print(sum(map(int, input().split())), flush=True)\n1 / 0"),
    Hostile(
        "right, then ends by a signal",
        "import os, signal\nprint(sum(map(int, input().split())), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)",
    ),
    Hostile(
        "right, then hangs",
        "print(sum(map(int, input().split())), flush=True)\nwhile True: pass",
        SUM | {"time_limit_s": 0.3},
        ("timeout",),
    ),
    Hostile(
        "right, then a thread hangs",
        "import threading, time\nprint(sum(map(int, input().split())), flush=True)\n"
        "threading.Thread(target=time.sleep, args=(99,)).start()",
        SUM | {"time_limit_s": 0.3},
        ("timeout",),
    ),
    Hostile(
        "hides an exception from the exit status",
        "import sys\nsys.excepthook = lambda *a: None\nprint(sum(map(int, input().split())))\nraise ValueError",
    ),
    Hostile(
        "looks for the answer in descriptors",
        "import os\nfound = b''\nfor d in range(3, 256):\n    try: found += os.pread(d, 4096, 0)\n"
        "    except OSError: pass\nprint(found.decode('latin-1'))",
    ),
    Hostile(
        "writes verdicts to every descriptor",
        "import os\nfor d in range(3, 256):\n"
        '    try: os.write(d, b\'{"event": "ran", "status": 0, "stray": false}\')\n    except OSError: pass',
    ),
    Hostile(
        "looks for the answer in frames",
        "import sys\nf = sys._getframe()\nwhile f:\n    for v in list(f.f_locals.values()):\n"
        "        if v in (b'30\\n', '30\\n'): print(30)\n    f = f.f_back",
    ),
    Hostile(
        "looks for the answer among all objects",
        "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict):\n"
        "        for v in list(o.values()):\n            if type(v) in (str, bytes) and v in (b'30\\n', '30\\n'): print(30)",
    ),
    Hostile(
        "looks for the answer in its memory",
        "import ctypes\ntry:\n    for line in open('/proc/self/maps'): print(line)\nexcept OSError: print('no maps')",
    ),
    Hostile(
        "looks for the answer in its environment", "import os, sys\nprint(os.environ, sys.argv, sys.flags, sys.path)"
    ),
    Hostile(
        "looks for the tests in files",
        "import os\nfor root, _, files in os.walk('/tmp'):\n    for f in files: print(open(os.path.join(root, f)).read())",
    ),
    Hostile(
        "patches the code round it",
        "import sys\nfor m in list(sys.modules.values()):\n    for n in ('_leave', '_finish', '_exit_status', 'send'):\n"
        "        if hasattr(m, n): setattr(m, n, lambda *a: 0)\nprint('x')\nraise SystemExit(3)",
    ),
    Hostile("patches the ways out", "import os, sys\nos._exit = sys.exit = exit = lambda *a: None\nprint('x')"),
    Hostile("closes its output", "import os\nos.close(1)"),
    Hostile("reads its output back", "import os\nprint(os.pread(1, 100, 0))"),
    Hostile("does not compile", "print(1"),
    Hostile("holds a zero byte", "print(3)\0"),
    Hostile("is empty", ""),
    Hostile("is prose", "The answer is 3, then 30."),
    # --- Of programs under assertions
    _add("equals everything", "class E:\n    def __eq__(s, o): return True\ndef add(a, b): return E()"),
    _add(
        "differs from nothing",
        "class E:\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\ndef add(a, b): return E()",
    ),
    _add(
        "an int that equals everything",
        "class I(int):\n    def __eq__(s, o): return True\n    __hash__ = int.__hash__\ndef add(a, b): return I(0)",
    ),
    _add("a str that equals everything", "class S(str):\n    def __eq__(s, o): return True\ndef add(a, b): return S()"),
    _add(
        "a list that equals everything", "class L(list):\n    def __eq__(s, o): return True\ndef add(a, b): return L()"
    ),
    _add(
        "a class whose class equals everything",
        "class M(type):\n    def __eq__(s, o): return True\n    __hash__ = None\nclass C(metaclass=M): pass\ndef add(a, b): return C",
    ),
    _add(
        "lies about its class",
        "class E:\n    __class__ = property(lambda s: int)\n    def __eq__(s, o): return True\ndef add(a, b): return E()",
    ),
    _add("unittest.mock.ANY", "from unittest.mock import ANY\ndef add(a, b): return ANY"),
    _add(
        "unittest.mock.MagicMock",
        "from unittest.mock import MagicMock\nadd = MagicMock()\nadd.return_value.__eq__.return_value = True",
    ),
    _add("NotImplemented", "def add(a, b): return NotImplemented"),
    _add("leaves the call with status 0", "import os\ndef add(a, b): os._exit(0)"),
    _add("leaves the call by sys.exit", "import sys\ndef add(a, b): sys.exit(0)"),
    _add("leaves the import", "import sys\ndef add(a, b): return 0\nsys.exit(0)"),
    _add("leaves the import for good", "import os\nos._exit(0)"),
    _add(
        "leaves in a thread",
        "import os, threading\ndef add(a, b):\n    threading.Timer(0.01, os._exit, (0,)).start()\n    while True: pass",
    ),
    _add("is killed in the call", "import os\ndef add(a, b): os.kill(os.getpid(), 9)"),
    _add("raises what a test may forgive", "def add(a, b): raise AssertionError"),
    _add("raises an exit of generators", "def add(a, b): raise GeneratorExit"),
    _add("has no such function", "def sub(a, b): return a - b"),
    _add(
        "patches assertions",
        "import builtins\nclass A(BaseException):\n    def __new__(c, *a): import os; os._exit(0)\nbuiltins.AssertionError = A\ndef add(a, b): return 0",
    ),
    _add(
        "patches comparison",
        "import operator, builtins\noperator.eq = lambda a, b: True\nbuiltins.bool = lambda *a: True\ndef add(a, b): return 0",
    ),
    _add(
        "looks for tests in frames",
        "import sys\ndef add(a, b):\n    f = sys._getframe()\n    while f:\n        if 'order' in f.f_locals: return eval(f.f_locals['order']['tests'][0]['code'].split('==')[1])\n        f = f.f_back",
    ),
    _add(
        "looks for tests among objects",
        "import gc\ndef add(a, b):\n    for o in gc.get_objects():\n        if isinstance(o, dict) and 'assert add' in str(o)[:10000] and o is not globals():\n            return int(str(o).split(f'add({a}, {b}) == ')[1].split()[0].strip('\\'\"},]'))",
    ),
    _add(
        "forges the judge's answer",
        'import os\ndef add(a, b):\n    for d in range(3, 64):\n        try: os.write(d, b\'{"event": "result", "index": 0, "outcome": "pass", "reason": ""}\')\n        except OSError: pass\n    os._exit(0)',
    ),
    _add(
        "speaks the protocol itself",
        "import os, struct, json\ndef add(a, b):\n    for d in range(3, 64):\n        for m in (['returned', True, []], ['returned', None, []], ['ask', 'call', [['h', 'yours', 0], [], {}], 0]):\n            t = json.dumps(m).encode()\n            try: os.write(d, struct.pack('<I', len(t)) + t)\n            except OSError: pass\n    return 0",
    ),
    _add(
        "announces a huge frame",
        "import os\ndef add(a, b):\n    for d in range(3, 64):\n        try: os.write(d, b'\\xff\\xff\\xff\\xff')\n        except OSError: pass\n    return 0",
    ),
    _add(
        "asks the judge for its globals",
        "import gc, sys\ndef add(a, b):\n    peer = next(o for o in gc.get_objects() if type(o).__name__ == 'Peer')\n    for n in range(50):\n        for name in ('__globals__', 'f_back', '__dict__', 'gi_frame'):\n            try: print(peer.ask('get', type('R', (), {})(), name))\n            except Exception: pass\n    return 0",
    ),
    _add("a list that holds itself", "def add(a, b):\n    l = []\n    l.append(l)\n    return l"),
    _add("a list too deep", "def add(a, b):\n    l = []\n    for _ in range(100000): l = [l]\n    return l"),
    _add("a value too large", "def add(a, b): return 'x' * (40 << 20)"),
    _add("a number too large", "def add(a, b): return 1 << (1 << 22)"),
    _add("a generator without end", "import itertools\ndef add(a, b): return itertools.count()"),
    Hostile("a helper of the prompt replaced", "def helper(x): return 4\ndef find(y): return 0", CHECK),
    Hostile("the check replaced", "def check(c): pass\ndef find(y): return 0", CHECK),
    Hostile(
        "the check replaced where it is called",
        "import sys\nfor m in list(sys.modules.values()):\n    try: m.check = lambda c: None\n    except Exception: pass\ndef find(y): return 0",
        CHECK,
    ),
    Hostile("abs replaced", "def abs(x): return 0.0\ndef root(x): return 0", CLOSE),
    Hostile("abs patched", "import builtins\nbuiltins.abs = lambda x: 0.0\ndef root(x): return 0", CLOSE),
    Hostile(
        "a difference made up",
        "class N:\n    def __sub__(s, o): return 0.0\n    __rsub__ = __sub__\ndef root(x): return N()",
        CLOSE,
        ("unsupported",),
    ),
    Hostile(
        "a difference and its size made up",
        "class N:\n    def __sub__(s, o): return s\n    def __abs__(s): return 0.0\n    def __lt__(s, o): return True\ndef root(x): return N()",
        {"tests": [{"assert": "assert root(4) - 2.0 < 1e-6"}]},
        ("unsupported",),
    ),
    Hostile(
        "an order made up",
        "class N:\n    def __lt__(s, o): return True\n    __gt__ = __le__ = __ge__ = __lt__\ndef root(x): return N()",
        {"tests": [{"assert": "assert root(4) < 3"}, {"assert": "assert 1 < root(4)"}]},
        ("unsupported",),
    ),
    Hostile(
        "membership made up",
        "class N:\n    def __contains__(s, o): return True\n    def __iter__(s): return iter(())\ndef root(x): return N()",
        {"tests": [{"assert": "assert 2 in root(4)"}]},
    ),
    Hostile(
        "ends a loop of the test's",
        "def root(x): raise StopIteration",
        {"tests": [{"assert": "assert all(map(lambda x: root(x) == 2, [4]))"}]},
    ),
    Hostile("nan", "def root(x): return float('nan')", {"tests": [{"assert": "assert root(4) == 2"}]}),
    Hostile(
        "a call by name, equal to everything",
        "class E:\n    def __eq__(s, o): return True\ndef f(x): return E()",
        {"tests": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[3], [4]]}},
    ),
    Hostile(
        "sorted replaced",
        "def sorted(x): return 1\ndef tidy(x): return 1",
        {"tests": [{"assert": "assert sorted(tidy([2, 1])) == [1, 2]"}]},
    ),
]

_TRY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
bad = []
def attempt(name, action):
    try:
        result = action()
    except BaseException as e:
        return
    if isinstance(result, int) and not isinstance(result, bool) and result < 0:
        return
    bad.append((name, result))
"""
_SAY = "\nprint('contained' if not bad else bad)\n"


MARK = f"rayzero-escape-{os.getpid()}"
"""What escaped files are called; another run of these tests looks for others."""


def escape(name: str, body: str, tiers: str = "AB") -> Hostile:
    return Hostile(name, _TRY + body.replace("MARK-HERE", MARK) + _SAY, CONTAINED, PASS, tiers)


def _calls(*calls: str) -> str:
    """Raw system calls, as (number on x86-64, arguments)."""
    return "\n".join(f"attempt({call!r}, lambda: libc.syscall({call}))" for call in calls)


ESCAPES = [
    escape(
        "sockets of every family",
        "import socket\nfor f in (1, 2, 10, 16, 17, 38, 40, 44):\n    for k in (1, 2, 3, 5): attempt(f'family {f} kind {k}', lambda: socket.socket(f, k))",
    ),
    escape(
        "vsock to the hypervisor",
        "import socket\ndef vsock():\n    s = socket.socket(40, 1)\n    s.connect((2, 80))\nattempt('vsock', vsock)",
    ),
    escape("a listening port", "import socket\nattempt('listen', lambda: socket.create_server(('127.0.0.1', 45671)))"),
    escape("name look-up", "import socket\nattempt('dns', lambda: socket.getaddrinfo('example.com', 80))"),
    escape(
        "datagram pairs",
        "import socket\nattempt('dgram', lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))\nattempt('seqpacket', lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))",
    ),
    escape("io_uring", _calls("425, 8, ctypes.create_string_buffer(256)")),
    escape("tracing", _calls("101, 16, 1, 0, 0", "101, 0, 0, 0, 0", "101, 16, os.getppid(), 0, 0")),
    escape(
        "memory of others",
        _calls("310, os.getppid(), 0, 0, 0, 0, 0", "311, os.getppid(), 0, 0, 0, 0, 0", "434, os.getppid(), 0"),
    ),
    escape(
        "namespaces", _calls("272, 0x10000000", "272, 0x20000", "56, 0x10000011, 0, 0, 0, 0", "308, 0, 0", "435, 0, 88")
    ),
    escape(
        "mounts",
        _calls(
            "165, b'none', b'/tmp', b'tmpfs', 0, 0",
            "166, b'/tmp', 2",
            "428, -100, b'/', 1",
            "430, b'tmpfs', 0",
            "155, b'.', b'.'",
            "161, b'/tmp'",
        ),
    ),
    escape(
        "keys, bpf, perf, userfaultfd",
        _calls("250, 0, -3, 1", "248, b'user', b'x', b'y', 1, -3", "321, 0, 0, 0", "298, 0, 0, -1, -1, 0", "323, 0"),
    ),
    escape(
        "shared memory and queues",
        _calls(
            "29, 4242, 4096, 0o1666",
            "64, 4242, 1, 0o1666",
            "68, 4242, 0o1666",
            "240, b'x', 0o102, 0o600, 0",
            "319, b'x', 0",
            "447, 0",
        ),
    ),
    escape(
        "clock, host name, personality",
        _calls(
            "227, 0, ctypes.create_string_buffer(16)",
            "170, b'x', 1",
            "135, 0x0040000",
            "169, 0xfee1dead, 672274793, 0, 0",
        ),
    ),
    escape(
        "priorities and affinity of others",
        _calls(
            "141, 2, os.getuid(), 5",
            "141, 0, 0, 5",
            "203, os.getppid(), 8, ctypes.create_string_buffer(b'\\x01' * 8)",
            "251, 1, os.getppid(), 0",
        ),
    ),
    escape("limits of others", _calls("302, os.getppid(), 7, ctypes.create_string_buffer(16), 0")),
    escape(
        "limits raised",
        "import resource\nfor r in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_CORE):\n    attempt(r, lambda: resource.setrlimit(r, (resource.RLIM_INFINITY,) * 2))",
    ),
    escape(
        "signals to others",
        "for p in (1, os.getppid(), -1, -os.getppid()):\n    for s in (9, 19, 15): attempt((p, s), lambda: (os.kill(p, s), None)[1] if p != 1 else (_ for _ in ()).throw(OSError))",
    ),
    escape(
        "other users",
        "attempt('setuid', lambda: os.setuid(0))\nattempt('setgid', lambda: os.setgid(0))\nattempt('groups', lambda: os.setgroups([0]))\nattempt('uid', lambda: 1 if os.getuid() == 0 else -1)",
    ),
    escape(
        "capabilities",
        _calls(
            "126, ctypes.create_string_buffer(b'\\x22\\x05\\x08\\x20\\0\\0\\0\\0'), ctypes.create_string_buffer(b'\\xff' * 24)"
        ),
    ),
    escape(
        "files of the host",
        "for p in ('/etc/passwd', '/etc/shadow', '/etc/hostname', '/proc/1/environ', '/proc/self/mem', '/proc/self/maps', '/proc/cpuinfo', '/sys/kernel/notes', '/dev/vda', '/dev/mem', '/dev/kmsg', '/dev/tty', '/var/log/lastlog', '/root/.bashrc', '/root/.profile', '/home', '/run', '/boot'):\n    attempt(p, lambda: open(p, 'rb').read(1))\n    attempt(p, lambda: os.listdir(p))",
    ),
    escape(
        "other descriptors by paths of streams",
        "import io, pathlib\nfor p in ('/dev/fd/3', '/proc/self/fd/3', '/dev/stdin/../null/x', '/proc/self/fd', '/dev/fd/'):\n"
        "    for f in (open, io.open, io.FileIO, lambda p: os.open(p, 0), os.listdir, lambda p: pathlib.Path(p).read_bytes()): attempt((p, f), lambda: f(p))\n"
        "attempt('of another', lambda: open('/dev/stdin', opener=lambda p, f: 3).read(1))",
    ),
    escape(
        "the expected output by paths of streams",
        "for p in ('/dev/stdin', '/dev/stdout', '/dev/stderr'):\n    if open(p, 'rb').read(): bad.append(p)",
    ),
    escape(
        "the package itself",
        "attempt('import', lambda: __import__('rewards.sandbox.pool'))\nattempt('import', lambda: __import__('rewards.code.score'))\nattempt('numpy', lambda: __import__('pydantic'))",
    ),
    escape(
        "writing elsewhere",
        "for d in ('/', '/usr', '/usr/lib', '/dev', '/dev/shm', '/var/tmp', '/etc', '/root', '/home', '/proc', sys.prefix, '/run'):\n    attempt(d, lambda: open(d + '/MARK-HERE', 'w'))\n    attempt(d, lambda: os.mkdir(d + '/MARK-HERE-d'))\n    attempt(d, lambda: os.symlink('/', d + '/MARK-HERE-l'))",
    ),
    escape(
        "changing what is there",
        "import os\nfor p in (os.__file__, sys.executable, '/usr/bin/env', '/usr'):\n    attempt(p, lambda: open(p, 'r+b'))\n    attempt(p, lambda: os.truncate(p, 0))\n    attempt(p, lambda: os.chmod(p, 0o777))\n    attempt(p, lambda: os.utime(p))\n    attempt(p, lambda: os.unlink(p))\n    attempt(p, lambda: os.rename(p, p + 'x'))\n    attempt(p, lambda: os.chown(p, os.getuid(), -1))\n    attempt(p, lambda: os.setxattr(p, 'user.x', b'1'))",
    ),
    escape(
        "devices",
        "attempt('mknod', lambda: os.mknod('/tmp/MARK-HERE', 0o20666, os.makedev(1, 1)))\nattempt('mknod', lambda: os.mknod('/tmp/MARK-HERE-b', 0o60666, os.makedev(254, 0)))",
    ),
    escape(
        "links out",
        "def out():\n    os.symlink('/etc/passwd', '/tmp/l')\n    return open('/tmp/l').read()\nattempt('link', out)\nattempt('hard', lambda: os.link('/usr/bin/env', '/tmp/MARK-HERE'))",
    ),
    escape(
        "climbing out",
        "os.chdir('/')\nfor _ in range(20): os.chdir('..')\nattempt('root', lambda: -1 if not os.path.exists('/etc/passwd') else open('/etc/passwd').read())",
    ),
    escape(
        "programs with more rights",
        "import subprocess\nfor p in ('/usr/bin/su', '/usr/bin/mount', '/usr/bin/passwd', '/bin/ping'):\n    attempt(p, lambda: -subprocess.run([p], stdin=subprocess.DEVNULL, capture_output=True).returncode or 1)",
        "A",
    ),
    escape(
        "descriptors of the host",
        "for d in range(3, 1024): attempt(d, lambda: os.fstat(d) and None)\nbad = [b for b in bad if b[1] is None]",
    ),
    escape(
        "environment of the host",
        "attempt('env', lambda: -1 if set(os.environ) <= {'HOME', 'PATH', 'LANG', 'PYTHONHASHSEED', 'PYTHONUTF8', 'PYTHONDONTWRITEBYTECODE', 'MALLOC_ARENA_MAX'} else dict(os.environ))",
    ),
    escape("terminal input", "import fcntl\nfor d in (0, 1, 2): attempt(d, lambda: fcntl.ioctl(d, 0x5412, b'x'))"),
    escape(
        "signals by ownership", "import fcntl\nattempt('own', lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid()))"
    ),
    Hostile(
        "a file for the next test",
        "import os\nprint('contained' if not os.listdir('/tmp') else 'seen')\nopen('/tmp/left', 'w').write('x')\nos.mkdir('/tmp/d')",
        TWICE,
        PASS,
        "A",
    ),
    Hostile(
        "a process for the next test",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)\n"
        "print('contained')",
        TWICE,
        PASS,
        "A",
    ),
    Hostile(
        "a daemon that no signal ends",
        "import os, signal, time\nif os.fork() == 0:\n    os.setsid()\n    for s in range(1, 65):\n"
        "        try: signal.signal(s, signal.SIG_IGN)\n        except (OSError, ValueError): pass\n"
        "    while True: time.sleep(1)\nprint('contained')",
        TWICE,
        PASS,
        "A",
    ),
    Hostile(
        "a writer that goes on after the test",
        "import os, time\nif os.fork() == 0:\n    time.sleep(0.05)\n    while True: os.write(1, b'late')\nprint('contained')",
        TWICE,
        PASS,
        "A",
    ),
]

_SOON = {"time_limit_s": 0.1, "memory_mb": 64}
"""For what only goes on: it does in a second what it does in a tenth."""
_GROWING = {"time_limit_s": 0.3}
"""For what gets worse for as long as it may run."""
_LATER = {"time_limit_s": 5}
"""For what ends by itself: a loaded machine must not make a timeout of it."""
STALLS = ("timeout", "fail", "memory")


def _bomb(name: str, program: str, outcomes: tuple[str, ...] = STALLS, **fields: Any) -> Hostile:
    return Hostile(name, program, SUM | _SOON | ({} if "timeout" in outcomes else _LATER) | fields, outcomes)


BOMBS = [
    _bomb("a loop", "while True: pass", ("timeout",)),
    _bomb("a sleep", "import time\ntime.sleep(1000)", ("timeout",)),
    _bomb("one long call", "print(len(str(7 ** (10 ** 8))))", ("timeout", "fail")),
    _bomb("a pattern without end", "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')", ("timeout",)),
    _bomb(
        "exceptions swallowed",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        ("timeout",),
    ),
    _bomb(
        "signals ignored",
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass",
        ("timeout",),
    ),
    _bomb("stops itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", ("timeout",)),
    _bomb(
        "waits for more input",
        "import sys\nsys.stdin.read(); sys.stdin.read()\nimport select\nselect.select([], [], [])",
        ("timeout",),
    ),
    _bomb("memory in one piece", "x = bytearray(1 << 40)", ("fail",)),
    _bomb(
        "memory in small pieces",
        "x = []\nwhile True: x.append(bytearray(1 << 16))",
        ("memory", "fail", "timeout"),
        time_limit_s=5,
    ),
    _bomb(
        "memory in a dictionary",
        "d = {}\ni = 0\nwhile True:\n    d[i] = i\n    i += 1",
        ("memory", "fail", "timeout"),
        time_limit_s=5,
    ),
    _bomb(
        "shared mappings",
        "import mmap\nm = []\nwhile True:\n    p = mmap.mmap(-1, 1 << 24)\n    p.write(b'x' * (1 << 24))\n    m.append(p)",
        ("memory", "fail"),
    ),
    _bomb(
        "memory in children",
        "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n        x = bytearray(b'x') * (48 << 20)\n        time.sleep(100)\ntime.sleep(100)",
        ("memory", "fail"),
    ),
    _bomb(
        "forks", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", ("timeout", "fail"), **_GROWING
    ),
    _bomb(
        "forks that leave their parents",
        "import os\nwhile True:\n    try:\n        if os.fork(): os._exit(0)\n        os.setsid()\n    except OSError: pass",
        ("timeout", "fail"),
        **_GROWING,
    ),
    _bomb(
        "threads",
        "import threading, time\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n    except RuntimeError: pass",
        STALLS,
        **_GROWING,
    ),
    _bomb("output", "while True: print('x' * 65536)", ("fail",)),
    _bomb("error output", "import sys\nwhile True: sys.stderr.write('x' * 65536)", ("fail",)),
    _bomb("a large file", "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))", ("fail",)),
    _bomb("a sparse file", "f = open('/tmp/x', 'wb')\nf.truncate(1 << 40)\nraise SystemExit(1)", ("fail",)),
    _bomb(
        "many files",
        "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'wb').write(b'x' * 65536)\n    i += 1",
        ("fail",),
        time_limit_s=5,
    ),
    _bomb("many empty files", "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'wb')\n    i += 1", ("fail",)),
    _bomb("a deep directory", "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')", ("fail",)),
    _bomb("descriptors", "import os\nwhile True: os.dup(0)", ("fail",)),
    _bomb("recursion", "def f(n): return f(n + 1)\nf(0)", ("fail",)),
    _bomb(
        "recursion without a limit",
        "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(n): return [f(n + 1)]\nf(0)",
        STALLS,
        time_limit_s=5,
    ),
    _bomb(
        "recursion in C",
        "import sys\nsys.setrecursionlimit(1 << 30)\nx = []\nfor _ in range(10 ** 6): x = [x]\nrepr(x)",
        STALLS,
        time_limit_s=5,
    ),
    _bomb("source too deep", "(" * 50000 + ")" * 50000, ("fail",)),
    _bomb("source with a long chain", "x = " + "-" * 100000 + "1", ("fail",)),
    _bomb("source with many branches", "if 0: pass\n" + "elif 0: pass\n" * 20000, STALLS),
    _bomb("a null pointer", "import ctypes\nctypes.string_at(0)", ("fail",)),
    _bomb("a call of another architecture", "import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 39)", ("fail",)),
    _bomb("an abort", "import os\nos.abort()", ("fail",)),
    Hostile("a loop in a call", "def add(a, b):\n    while True: pass", ADD | _SOON, ("timeout",)),
    Hostile("a loop in an import", "while True: pass", ADD | _SOON, ("timeout",)),
    Hostile(
        "memory in a call",
        "def add(a, b):\n    x = []\n    while True: x.append(bytearray(1 << 16))",
        ADD | _SOON | _LATER,
        ("memory", "fail"),
    ),
    Hostile(
        "forks in a call",
        "import os\ndef add(a, b):\n    while True:\n        try: os.fork()\n        except OSError: pass",
        ADD | _SOON | _GROWING,
        ("timeout", "fail"),
    ),
    Hostile(
        "a generator that never yields",
        "def add(a, b):\n    def g():\n        while True: pass\n        yield\n    return g()",
        {"tests": [{"assert": "assert list(add(1, 2)) == [3]"}]} | _SOON,
        ("timeout",),
    ),
    Hostile(
        "a generator that never ends",
        "import itertools\ndef add(a, b): return itertools.count()",
        {"tests": [{"assert": "assert sum(add(1, 2)) == 3"}]} | _SOON,
        ("timeout",),
    ),
    Hostile(
        "a call that floods the judge",
        "import itertools\ndef add(a, b): return ['x' * 1000] * 10000",
        ADD | _SOON | _LATER,
        ("fail",),
    ),
    Hostile(
        "a comparison without end",
        "class L:\n    def __iter__(s):\n        while True: pass\ndef add(a, b): return L()",
        {"tests": [{"assert": "assert 3 in add(1, 2)"}]} | _SOON,
        ("timeout",),
    ),
]

CHEATS += [Hostile(each.name, each.program, each.fields, ("fail", "unsupported")) for each in PRETENCES]

CORPUS = [*CHEATS, *ESCAPES, *BOMBS]
