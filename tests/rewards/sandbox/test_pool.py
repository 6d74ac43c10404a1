"""What a program sees in the sandbox, what becomes of it, and what the host does when the sandbox itself fails."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rewards.resources import Resources, ResourceSettings
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.probe import probe
from rewards.sandbox.types import Assertions, Limits, Run, SandboxFault, SandboxUnavailable, Tier

REPOSITORY = Path(__file__).parents[3]
SYSTEM_PYTHON = "/usr/bin/python3"
SOON = Limits(test_s=0.3)


class Held:
    """A started sandbox and the loop that it belongs to."""

    def __init__(self, slots: int = 1) -> None:
        self.runner = asyncio.Runner()
        self.sandbox = Sandbox(slots=slots)
        self.runner.run(self.sandbox.start())

    def runs(self, program: str, *inputs: bytes, limits: Limits | None = None) -> list[Run]:
        return self.runner.run(self.sandbox.run_inputs(program, inputs or [b""], limits or Limits()))

    def run(self, program: str, given: bytes = b"", limits: Limits | None = None) -> Run:
        return self.runs(program, given, limits=limits)[0]

    def close(self) -> None:
        self.sandbox.close()
        self.runner.close()


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.close()


# --- A program is run as the interpreter would run it


@pytest.mark.parametrize(
    ("program", "given", "printed"),
    [
        ("print(int(input()) + 1)", b"41\n", b"42\n"),
        ("import sys\nprint(sys.stdin.buffer.read())", b"\xff\n", b"b'\\xff\\n'\n"),
        ("import os\nprint(os.read(0, os.fstat(0).st_size))", b"a b\n", b"b'a b\\n'\n"),
        ("print(open(0).read())", b"x", b"x\n"),
        ("print(open('/dev/stdin').read())", b"a\nb", b"a\nb\n"),
        ("print([line for line in open('/dev/stdin')])", b"a\r\nb", b"['a\\n', 'b']\n"),
        ("with open('/dev/stdin', 'rb', buffering=0) as f: print(f.read(), f.name)", b"\xff", b"b'\\xff' /dev/stdin\n"),
        ("print(input(), open('/dev/stdin').read())", b"a\n", b"a \n"),
        ("import pathlib\np = pathlib.Path('/dev/stdin')\nprint(p.exists(), p.read_text())", b"x", b"True x\n"),
        ("import fileinput\nprint([line for line in fileinput.input('/dev/stdin')])", b"x\n", b"['x\\n']\n"),
        ("import os\nprint(os.read(os.open('/dev/stdin', os.O_RDONLY), 9), os.stat('/dev/stdin').st_size)", b"x", b"b'x' 1\n"),
        ("print(open('/proc/self/fd/0').read(), open(b'/dev/fd/0').read())", b"x", b"x \n"),
        ("import codecs\nprint(codecs.open('/dev/stdin', encoding='utf-8').read())", "é".encode(), "é\n".encode()),
        ("print(1, file=open('/dev/stdout', 'w'), flush=True)\nopen('/dev/fd/1', 'a').write('2\\n')\nprint(3)", b"", b"1\n2\n3\n"),
        ("import sys\nopen('/dev/stderr', 'w').write('x')\nprint(open.__name__)", b"", b"open\n"),
        ("import sys\nprint([line for line in sys.stdin])", b"a\r\nb", b"['a\\n', 'b']\n"),
        ("import sys\nsys.stdout.buffer.write(b'\\x00\\xff')", b"", b"\x00\xff"),
        ("print('é∑')", b"", "é∑\n".encode()),
        ("import os\nos.write(1, b'1')\nprint(2)", b"", b"12\n"),
        ("f = open(1, 'w', closefd=False)\nf.write('unflushed')", b"", b"unflushed"),
        ("import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer)\nprint('wrapped')", b"", b"wrapped\n"),
        ("import atexit\natexit.register(print, 'bye')\nprint('hi')", b"", b"hi\nbye\n"),
        ("import threading\nthreading.Thread(target=print, args=('late',)).start()", b"", b"late\n"),
        ("import os\nprint('buffered', flush=True)\nos._exit(0)", b"", b"buffered\n"),
        ("import sys\nprint(__name__, __file__, sys.argv)", b"", b"__main__ main.py ['main.py']\n"),
        ("import __main__\nx = 3\nprint(__main__.x)", b"", b"3\n"),
        ("import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and f(n - 1)\nprint(f(50000))", b"", b"0\n"),
        ("import dataclasses, pickle\n@dataclasses.dataclass\nclass A: x: int\nprint(pickle.loads(pickle.dumps(A(1))))", b"", b"A(x=1)\n"),
        ("import threading, sys\nsys.setrecursionlimit(10**6)\nthreading.stack_size(256 << 20)\n"
         "t = threading.Thread(target=lambda: print('deep'))\nt.start()\nt.join()", b"", b"deep\n"),
        ("import decimal, fractions, heapq, bisect, statistics, functools, zlib, hashlib, sqlite3\nprint('ok')", b"", b"ok\n"),
        ("import asyncio\nasync def f(): print('async')\nasyncio.run(f())", b"", b"async\n"),
        ("import tempfile\nwith tempfile.TemporaryFile() as f: f.write(b'x'); print('file')", b"", b"file\n"),
        ("import multiprocessing as m\np = m.get_context('fork').Process(target=print, args=('child',))\np.start()\np.join()", b"", b"child\n"),
        ("# -*- coding: latin-1 -*-\nprint(1)", b"", b"1\n"),
    ],
)  # fmt: skip
def test_a_program_finds_what_it_would_find_outside(held: Held, program: str, given: bytes, printed: bytes) -> None:
    for runs in (
        held.runs(program, given),
        held.runs(program, given, given),
    ):  # in the cell itself, and in a fork of it
        assert [(run.outcome, run.code, run.stdout) for run in runs] == [("exited", 0, printed)] * len(runs), runs


@pytest.mark.parametrize(
    ("program", "outcome", "code", "reason"),
    [
        ("", "exited", 0, ""),
        ("raise SystemExit", "exited", 0, ""),
        ("raise SystemExit(3)", "exited", 3, ""),
        ("raise SystemExit('gone')", "exited", 1, "gone"),
        ("1 / 0", "exited", 1, "ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt", "exited", 1, "KeyboardInterrupt"),
        ("import os\nos._exit(7)", "exited", 7, ""),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "signal", 15, ""),
        ("import os\nos.close(1)\nprint('x')", "exited", 120, ""),
        ("import sys\nsys.stderr.write('a\\nlast words')", "exited", 0, "last words"),
        ("def f(:", "broken", 0, "SyntaxError: invalid syntax (main.py, line 1)"),
        ("x = '\udc80'", "broken", 0, "SyntaxError"),
        ("while True: pass", "timeout", 0, ""),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "output", 1, "File too large"),
    ],
)
def test_how_a_run_ends(held: Held, program: str, outcome: str, code: int, reason: str) -> None:
    limits = SOON if outcome == "timeout" else None
    for run in (held.run(program, limits=limits), *held.runs(program, b"", b"", limits=limits)):
        assert (run.outcome, run.code) == (outcome, code)
        assert reason in run.reason


def test_each_input_has_its_own_process(held: Held) -> None:
    program = "import os\nx = globals().get('x', 0) + 1\nopen('/tmp/n', 'a').write('1')\nprint(x, os.path.getsize('/tmp/n'), input())"
    assert [run.stdout for run in held.runs(program, b"a", b"b", b"c")] == [b"1 1 a\n", b"1 1 b\n", b"1 1 c\n"]


@pytest.mark.parametrize(
    "leave",
    [
        "os.chmod('/tmp', 0o700)",
        "open('/tmp/x', 'w').close(); os.utime('/tmp', ns=(was.st_atime_ns, was.st_mtime_ns))",
        "os.utime('/tmp', ns=(1, 1))",
    ],
)
def test_the_scratch_directory_is_as_it_was_for_the_next_test_and_the_next_program(held: Held, leave: str) -> None:
    look = "was = os.stat('/tmp')\nprint(oct(was.st_mode), os.listdir('/tmp'), was.st_mtime_ns > 1)"
    program = f"import os\n{look}\n{leave}"
    for _ in range(2):
        assert {run.stdout for run in held.runs(program, b"", b"")} == {b"0o41777 [] True\n"}


@pytest.mark.parametrize(
    "spoil",
    ["os.chmod('/tmp', 0)", "os.kill(os.getppid(), signal.SIGKILL)", "os.kill(os.getppid(), signal.SIGSEGV)"],
)
def test_a_test_cannot_hide_its_exit_status_behind_its_cell(held: Held, spoil: str) -> None:
    program = f"import os, signal\nprint('right', flush=True)\n{spoil}\nos._exit(3)"
    for run in held.runs(program, b"", b""):
        assert (run.outcome, run.code) in (("exited", 3), ("signal", 9), ("signal", 11))


def test_the_caller_ends_the_tests_early(held: Held) -> None:
    seen: list[int] = []

    def go_on(index: int, run: Run) -> bool:
        seen.append(index)
        return index < 1

    inputs = [b"1", b"2", b"3"]
    runs = held.runner.run(held.sandbox.run_inputs("print(input())", inputs, Limits(), go_on))
    assert [run.stdout for run in runs] == [b"1\n", b"2\n"]
    assert seen == [0, 1]


def test_a_slow_test_costs_its_own_time_and_no_other_test(held: Held) -> None:
    limits = Limits(test_s=1.5)  # a loaded machine may take long for the start of a cell
    runs = held.runs("n = int(input())\nwhile n == 2: pass\nprint(n)", b"1", b"2", b"3", limits=limits)
    assert [(run.outcome, run.stdout) for run in runs] == [("exited", b"1\n"), ("timeout", b""), ("exited", b"3\n")]


def test_the_total_time_ends_what_is_left(held: Held) -> None:
    runs = held.runs("while True: pass", *[b""] * 50, limits=Limits(test_s=0.2, total_s=0.3))
    assert [run.outcome for run in runs] == ["timeout"] * 50
    assert sum(run.seconds for run in runs) < 5


def test_memory_is_that_of_all_processes(held: Held) -> None:
    program = (
        "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n        x = b'x' * (40 << 20)\n        time.sleep(20)\n"
        "time.sleep(20)"
    )
    assert held.run(program, limits=Limits(memory_mb=100, test_s=10)).outcome == "memory"
    assert held.run("x = b'x' * (40 << 20)\nprint(len(x))", limits=Limits(memory_mb=100)).outcome == "exited"


def test_processes_of_one_program_share_what_they_did_not_change(held: Held) -> None:
    program = (
        "import os, time\nx = b'x' * (60 << 20)\nchildren = []\nfor _ in range(6):\n    children.append(os.fork())\n"
        "    if children[-1] == 0:\n        time.sleep(0.2)\n        os._exit(0)\n"
        "for child in children: os.waitpid(child, 0)\nprint('shared')"
    )
    run = held.run(program, limits=Limits(memory_mb=150, test_s=10))
    assert (run.outcome, run.stdout) == ("exited", b"shared\n")


def test_programs_behave_alike_wherever_they_run() -> None:
    held = Held(slots=3)
    program = "import random\nprint(random.random(), hash('x'), list({'a', 'b', 'c'}))"

    async def many() -> list[list[Run]]:
        return await asyncio.gather(*(held.sandbox.run_inputs(program, [b"", b""], Limits()) for _ in range(6)))

    outputs = {run.stdout for runs in held.runner.run(many()) for run in runs}
    held.close()
    assert len(outputs) == 1


def test_many_at_once_are_not_mixed_up() -> None:
    held = Held(slots=3)

    async def many() -> list[bool]:
        return await asyncio.gather(*(one(number) for number in range(60)))

    async def one(number: int) -> bool:
        if number % 3 == 0:
            tests = Assertions(tests=[{"code": f"assert f({number}) == {number * 2}"}])
            results = await held.sandbox.run_tests(f"def f(x): return x + {number}", tests, Limits())
            return [result.outcome for result in results] == ["pass"]
        runs = await held.sandbox.run_inputs(f"print({number}, input())", [b"a", b"b"], Limits())
        return [run.stdout for run in runs] == [f"{number} {letter}\n".encode() for letter in "ab"]

    assert all(held.runner.run(many()))
    assert held.sandbox.num_restarts == 0
    held.close()


# --- When the sandbox itself fails


def workers(sandbox: Sandbox) -> list[int]:
    return [worker.process.pid for slot in sandbox._all for worker in slot.workers.values()]


def descendants(process: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return []
    return [below for child in children for below in (child, *descendants(child))]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_dead_worker_is_a_fault_and_replaced() -> None:
    held = Held()
    (worker,) = workers(held.sandbox)
    whole = [worker, *descendants(worker)]
    os.kill(worker, signal.SIGKILL)
    # A signal that has been sent has not arrived: until the kernel has ended this process, and then the first one of its
    # process namespace, which does the work, a program may well run to its end.
    assert eventually(lambda: not any(map(alive, whole)))
    with pytest.raises(SandboxFault, match="worker is gone"):
        held.run("print(1)")
    assert held.sandbox.num_restarts == 1
    assert held.run("print(1)").stdout == b"1\n"
    held.close()


def test_a_worker_that_dies_under_a_program_is_a_fault() -> None:
    held = Held()

    async def kill_under_way() -> None:
        running = asyncio.ensure_future(held.sandbox.run_inputs("while True: pass", [b""], Limits()))
        await asyncio.sleep(0.1)
        os.kill(workers(held.sandbox)[0], signal.SIGKILL)
        await running

    with pytest.raises(SandboxFault):
        held.runner.run(kill_under_way())
    assert held.run("print(1)").stdout == b"1\n"
    held.close()


@pytest.mark.parametrize("under_way", [True, False])
def test_a_worker_that_is_stopped_is_a_fault_and_replaced(monkeypatch: pytest.MonkeyPatch, under_way: bool) -> None:
    monkeypatch.setattr("rewards.sandbox.worker.END_TIMEOUT_S", 0.3)
    held = Held()
    (worker,) = workers(held.sandbox)

    def stop_it() -> None:
        for process in (worker, *descendants(worker)):
            os.kill(process, signal.SIGSTOP)

    async def run_it() -> None:
        if not under_way:
            stop_it()
        running = asyncio.ensure_future(held.sandbox.run_inputs("while True: pass", [b""], SOON))
        await asyncio.sleep(0.1)
        if under_way:
            stop_it()
        await running

    with pytest.raises(SandboxFault, match="does not end its cell"):  # and not a program that took too long
        held.runner.run(asyncio.wait_for(run_it(), 10))
    assert not alive(worker)
    assert held.run("print(1)").stdout == b"1\n"
    held.close()


def test_everybody_who_waits_for_a_slot_is_told_that_the_sandbox_was_closed() -> None:
    held = Held()

    async def close_it() -> list[Any]:
        running = [asyncio.ensure_future(held.sandbox.run_inputs("while True: pass", [b""], SOON)) for _ in range(4)]
        await asyncio.sleep(0.1)
        held.sandbox.close()
        return await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 10)

    assert [type(each) for each in held.runner.run(close_it())] == [SandboxFault] * 4
    held.close()


def test_a_sandbox_that_does_not_start_is_tried_again_later_and_not_by_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = []

    async def refuse(self: Sandbox) -> None:
        tries.append(self)
        if len(tries) == 1:
            raise SandboxUnavailable("not just now")

    monkeypatch.setattr(Sandbox, "start", refuse)

    async def ask() -> None:
        resources = Resources(ResourceSettings())
        refused = await asyncio.gather(*(resources.sandbox() for _ in range(5)), return_exceptions=True)
        assert [str(each) for each in refused] == ["not just now"] * 5
        monkeypatch.setattr("rewards.resources.RETRY_S", 0.0)
        await resources.sandbox()
        await resources.close()

    asyncio.run(ask())
    assert len(tries) == 2


def test_a_caller_that_goes_away_leaves_nothing_running() -> None:
    held = Held()

    async def cancel() -> list[int]:
        running = asyncio.ensure_future(held.sandbox.run_inputs("while True: pass", [b""], Limits()))
        await asyncio.sleep(0.1)
        below = [process for worker in workers(held.sandbox) for process in (worker, *descendants(worker))]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return below

    below = held.runner.run(cancel())
    assert len(below) >= 2
    assert eventually(lambda: not any(map(alive, below)))
    assert held.run("print(1)").stdout == b"1\n"
    held.close()


def test_close_ends_every_process() -> None:
    held = Held(slots=2)
    held.runner.run(held.sandbox.run_tests("def f(): pass", Assertions(tests=[{"code": "f()"}]), Limits()))
    below = [process for worker in workers(held.sandbox) for process in (worker, *descendants(worker))]
    assert len(below) >= 2
    held.close()
    assert eventually(lambda: not any(map(alive, below)))


@pytest.mark.parametrize("tier", ["A", "B"])
def test_a_program_ends_with_its_worker(tier: Tier) -> None:
    runner = asyncio.Runner()
    sandbox = Sandbox(slots=1, tier=tier)
    stubborn = "import ctypes\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\nwhile True: pass"

    async def kill_under_way() -> list[int]:
        await sandbox.start()
        running = asyncio.ensure_future(sandbox.run_inputs(stubborn, [b"", b""], Limits()))
        await asyncio.sleep(0.2)
        (worker,) = workers(sandbox)
        below = descendants(worker)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(SandboxFault):
            await running
        return below

    below = runner.run(kill_under_way())
    assert len(below) >= 2
    assert eventually(lambda: not any(map(alive, below)))
    sandbox.close()
    runner.close()


def test_a_closed_sandbox_runs_nothing() -> None:
    held = Held()
    held.sandbox.close()
    with pytest.raises(SandboxFault, match="the sandbox is closed"):
        held.run("print(1)")
    held.close()


def test_the_sandbox_ends_with_its_host(tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(
        "import asyncio\nfrom rewards.sandbox.pool import Sandbox\nfrom rewards.sandbox.types import Limits\nasync def main():\n"
        "    async with Sandbox(slots=1) as sandbox:\n        print('started', flush=True)\n"
        "        await sandbox.run_inputs('while True: pass', [b''], Limits(test_s=60))\nasyncio.run(main())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"started\n"
        assert eventually(lambda: len(descendants(host.pid)) >= 2)
        below = descendants(host.pid)
        host.kill()
    assert eventually(lambda: not any(map(alive, below)))


# --- Tiers

_AS_ANOTHER = """
import asyncio, json
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import Assertions, Limits
from rewards.sandbox.probe import probe
async def main():
    found = await probe()
    outcomes = []
    for tier in [finding.tier for finding in found.findings if finding.holds]:
        async with Sandbox(slots=1, tier=tier) as sandbox:
            runs = await sandbox.run_inputs("print(int(input()) + 1)", [b"1", b"2"], Limits())
            tests = Assertions(tests=[{"code": "assert f(1) == 2"}, {"code": "assert f(1) == 3"}])
            results = await sandbox.run_tests("def f(x): return x + 1", tests, Limits())
            outcomes.append([[run.stdout.decode() for run in runs], [result.outcome for result in results]])
    print(json.dumps([found.tier, [[f.tier, f.holds, f.detail, f.way_out] for f in found.findings], outcomes]))
asyncio.run(main())
"""
_WITHOUT_NAMESPACES = """
import os, sys
from rewards.sandbox.inside import kernel, syscalls
kernel.no_new_privileges()
code = syscalls._Assembler()
for name in ("unshare", "mount", "setns", "pivot_root"): code.refuse(name)
code.refuse_if_bits("clone", 0, 0x7E020000)
if sys.argv[1] == "landlock":
    syscalls._ALL["landlock_create_ruleset"] = (444, 444)
    code.refuse("landlock_create_ruleset")
code.install()
os.execv(sys.argv[2], sys.argv[2:])
"""
GOOD = [["2\n", "3\n"], ["pass", "fail"]]


def as_another(script: str, *before: str, python: str = sys.executable) -> Any:
    environment = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run([*before, python, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_both_tiers_hold_here() -> None:
    found = asyncio.run(probe())
    assert found.tier == "A"
    assert found.summary.startswith("tier A: ")
    assert [finding.holds for finding in found.findings] == [True, True]


def readable_by_others(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become somebody else")
@pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason="no interpreter that everybody can run")
@pytest.mark.skipif(not readable_by_others(REPOSITORY), reason="this checkout is not readable by other users")
def test_an_ordinary_user_has_both_tiers() -> None:
    become = ("setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups")
    version = as_another("import sys; print(list(sys.version_info[:2]))", python=SYSTEM_PYTHON)
    if tuple(version) < (3, 11):
        pytest.skip(f"{SYSTEM_PYTHON} is Python {version}")
    tier, _, outcomes = as_another(_AS_ANOTHER, *become, python=SYSTEM_PYTHON)
    assert (tier, outcomes) == ("A", [GOOD, GOOD])


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become somebody else")
@pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason="no interpreter that everybody can run")
@pytest.mark.skipif(not readable_by_others(REPOSITORY), reason="this checkout is not readable by other users")
@pytest.mark.parametrize(
    ("masks", "tier", "told"),
    [("", "A", ""), ("mount -t tmpfs -o ro tmpfs /proc/sys/fs;", "B", "systempaths=unconfined")],
    ids=["open", "masked"],
)
def test_in_a_container_an_ordinary_user_without_any_rights_has_tier_a_unless_proc_is_masked(
    masks: str, tier: str, told: str
) -> None:
    """deploy/README.md tells what to open in a container; nothing of it is a capability."""
    user = "setpriv --reuid 12345 --regid 12345 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
    before = ("unshare", "-m", "sh", "-c", f'{masks} exec {user} "$@"', "sh")
    found, findings, outcomes = as_another(_AS_ANOTHER, *before, python=SYSTEM_PYTHON)
    assert found == tier
    assert outcomes[-1] == GOOD
    assert told in findings[0][3]


def test_without_namespaces_tier_b_holds() -> None:
    tier, findings, outcomes = as_another(_AS_ANOTHER, sys.executable, "-c", _WITHOUT_NAMESPACES, "nothing")
    assert (tier, outcomes) == ("B", [GOOD])
    assert [holds for _, holds, _, _ in findings] == [False, True]
    assert "unshare" in findings[0][2]
    assert "user namespaces" in findings[0][3]


def test_below_tier_b_nothing_runs_unless_it_is_allowed() -> None:
    refuse = (sys.executable, "-c", _WITHOUT_NAMESPACES, "landlock")
    script = """
import asyncio, json
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import Limits, SandboxUnavailable
async def main():
    try:
        await Sandbox(slots=1).start()
    except SandboxUnavailable as problem:
        said = str(problem)
    async with Sandbox(slots=1, allow_weak=True) as sandbox:
        (run,) = await sandbox.run_inputs("print(1)", [b""], Limits())
        print(json.dumps([said, sandbox.tier, run.stdout.decode(), sandbox.weaknesses]))
asyncio.run(main())
"""
    said, tier, printed, weaknesses = as_another(script, *refuse)
    assert "tier A: unshare" in said
    assert "tier B: landlock" in said
    assert (tier, printed) == ("weak", "1\n")
    assert "reading files of the host" in weaknesses
    assert "a network socket" not in weaknesses


def test_a_tier_that_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewards.sandbox.attacks.ATTACKS", {"harmless": "1 + 1", "refused": "1 / 0"})
    with pytest.raises(SandboxUnavailable, match="tier A: does not hold: harmless"):
        asyncio.run(Sandbox(slots=1, tier="A").start())
