"""Attacks that a fresh sandbox must refuse before it is used: a program that tries them all and prints what worked."""

import json

ATTACKS: dict[str, str] = {
    "reading files of the host": "open('/etc/passwd')",
    "listing the root of the host": "os.listdir('/etc')",
    "reading about other processes": "open('/proc/self/environ')",
    "writing beside the interpreter": "write(os.path.dirname(os.__file__))",
    "writing to shared memory": "write('/dev/shm')",
    "a network socket": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "a socket to the hypervisor": "socket.socket(40, socket.SOCK_STREAM)",
    "a socket to local services": "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "a signal to the parent": "os.kill(os.getppid(), signal.SIGCONT) if os.getppid() != 1 else refused()",
    "becoming root": "os.setuid(0)",
    "raising its own limits": "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)",
    "an anonymous memory file": "os.memfd_create('x')",
    "more memory than it may have": "bytearray(1 << 40)",
}
_PROGRAM = """
import json, os, resource, signal, socket
def refused(): raise OSError
def write(folder):
    path = os.path.join(folder, 'rayzero-probe-%d' % os.getpid())
    open(path, 'x').close()
    os.remove(path)
worked = []
for name, attack in json.loads(input()).items():
    try: eval(attack)
    except BaseException: continue
    worked.append(name)
print(json.dumps(worked))
"""


def attacks() -> tuple[str, bytes]:
    """The program and its input."""
    return _PROGRAM, json.dumps(ATTACKS).encode()
