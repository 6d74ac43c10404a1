"""The pool of killable processes: what a poisonous call costs, and that nothing is left behind."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rewards.processes.pool import KillablePool, Outcome
from rollout.errors import ServiceError

FUNCTIONS = """
import ctypes, os, signal, sys, time

def add(a, b):
    return a + b

def hang(*_):
    while True:
        pass

def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def crash():
    ctypes.string_at(0)

def leave():
    os._exit(3)

def stop():
    os.kill(os.getpid(), signal.SIGSTOP)

def bomb():
    return len(bytearray(1 << 40))

def hoard():
    kept = []
    while True:
        kept.append(bytearray(1 << 20))

def shout(size):
    print("x" * 100)
    os.write(1, b"not a frame")
    return "x" * size

def fail(n):
    if n > 2:
        raise ValueError(f"no such n: {n}")

def quit():
    sys.exit("done")

def odd():
    return {1, 2}

def pid():
    return os.getpid()

def read_stdin():
    return sys.stdin.read()

def lines():
    return os.getcwd(), sys.path[:]

async def later(value):
    import asyncio
    await asyncio.sleep(0)
    return {"value": value}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("isolate") / "my_reward.py"
    file.write_text(FUNCTIONS)
    return str(file)


def with_pool(path: str, body: Callable[[KillablePool], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run `body` on a pool that has the functions loaded; afterwards none of its processes may be left."""

    async def run() -> None:
        async with KillablePool(**{"workers": 2, "preload": (path,), "memory_bytes": 256 << 20, **options}) as pool:
            await body(pool)

    before = offspring(os.getpid())
    asyncio.run(run())
    assert offspring(os.getpid()) - before == set()


def offspring(pid: int) -> set[int]:
    """All processes below `pid`."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | (offspring(child) if Path(f"/proc/{child}").exists() else set())
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_values_and_arguments(path: str) -> None:
    async def body(pool: KillablePool) -> None:
        first = await pool.call(f"{path}:add", [1, 2], deadline_s=10)
        assert (first.kind, first.value) == ("ok", 3)
        assert first.run_s > 0
        assert first.queue_s >= 0
        assert (await pool.call(f"{path}:add", ["x"], {"b": "y"}, deadline_s=10)).value == "xy"
        assert (await pool.call("math:sqrt", [16], deadline_s=10)).value == 4.0
        assert (await pool.call(f"{path}:later", [[1, None]], deadline_s=10)).value == {"value": [1, None]}
        large = await pool.call(f"{path}:add", ["a" * 3_000_000, "b" * 3_000_000], deadline_s=30)
        assert large.value == "a" * 3_000_000 + "b" * 3_000_000
        assert (await pool.call(f"{path}:read_stdin", deadline_s=10)).value == ""
        assert (await pool.call(f"{path}:lines", deadline_s=10)).value == [
            os.getcwd(),
            [str(Path(path).parent), *sys.path],
        ]

    with_pool(path, body)


@pytest.mark.parametrize(
    ("name", "args", "kind", "text"),
    [
        ("hang", [], "timeout", "took more than 0.3 s"),
        ("deaf", [], "timeout", "took more than 0.3 s"),
        ("stop", [], "timeout", "took more than 0.3 s"),
        ("crash", [], "crashed", "SIGSEGV"),
        ("leave", [], "crashed", "exit code 3"),
        ("bomb", [], "crashed", "memory"),
        ("fail", [3], "raised", "ValueError: no such n: 3, at {path}:44 in fail: raise ValueError"),
        ("quit", [], "raised", "SystemExit: done, at {path}:47 in quit"),
        ("odd", [], "raised", "not JSON"),
        ("shout", [20_000_000], "raised", "returned 2000"),
        ("missing", [], "raised", "AttributeError"),
        ("add", [1], "raised", "TypeError: add() missing"),
    ],
)
def test_what_can_go_wrong_is_told_apart_and_costs_one_child(
    path: str, name: str, args: list[Any], kind: str, text: str
) -> None:
    async def body(pool: KillablePool) -> None:
        deadline_s = 0.3 if kind == "timeout" else 30
        outcome = await pool.call(f"{path}:{name}", args, deadline_s=deadline_s)
        assert outcome.kind == kind
        assert text.format(path=path) in outcome.error
        assert [(await pool.call(f"{path}:add", [i, 1], deadline_s=10)).value for i in range(4)] == [1, 2, 3, 4]

    with_pool(path, body)


def test_memory_that_grows_is_stopped(path: str) -> None:
    async def body(pool: KillablePool) -> None:
        assert (await pool.call(f"{path}:hoard", deadline_s=30)).kind == "crashed"

    with_pool(path, body)


def test_what_a_function_prints_does_not_reach_the_protocol_or_standard_output(
    path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def body(pool: KillablePool) -> None:
        assert (await pool.call(f"{path}:shout", [5], deadline_s=10)).value == "xxxxx"

    with_pool(path, body)
    assert capfd.readouterr().out == ""


def test_neighbours_are_unharmed(path: str) -> None:
    """Poisonous and good calls at once: every good one gets its own answer."""

    async def body(pool: KillablePool) -> None:
        async def call(i: int) -> Outcome:
            if i % 10 == 3:
                return await pool.call(f"{path}:hang", [i], deadline_s=0.1)
            if i % 10 == 7:
                return await pool.call(f"{path}:leave", deadline_s=30)
            return await pool.call(f"{path}:add", [i, 1000], deadline_s=30)

        outcomes = await asyncio.gather(*(call(i) for i in range(60)))
        assert [outcome.kind for outcome in outcomes] == [
            {3: "timeout", 7: "crashed"}.get(i % 10, "ok") for i in range(60)
        ]
        assert all(outcome.value == i + 1000 for i, outcome in enumerate(outcomes) if outcome.kind == "ok")
        assert outcomes[-1].queue_s > outcomes[0].queue_s

    with_pool(path, body, workers=3)


def test_children_are_replaced_after_so_many_calls_and_when_they_die_idle(path: str) -> None:
    async def body(pool: KillablePool) -> None:
        pids = [(await pool.call(f"{path}:pid", deadline_s=30)).value for _ in range(7)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
        os.kill(pids[-1], signal.SIGKILL)
        assert (await pool.call(f"{path}:add", [1, 1], deadline_s=30)).kind in ("ok", "crashed")
        assert (await pool.call(f"{path}:add", [1, 1], deadline_s=30)).value == 2

    with_pool(path, body, workers=1, calls_per_child=3)


def test_a_cancelled_call_leaves_no_child_busy(path: str) -> None:
    async def body(pool: KillablePool) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.call(f"{path}:hang", deadline_s=60), 0.2)
        waiting = asyncio.create_task(pool.call(f"{path}:hang", deadline_s=0.3))
        late = asyncio.create_task(pool.call(f"{path}:add", [1, 1], deadline_s=30))
        await asyncio.sleep(0.05)
        late.cancel()
        assert (await waiting).kind == "timeout"
        assert (await pool.call(f"{path}:add", [2, 2], deadline_s=30)).value == 4

    with_pool(path, body, workers=1)


def test_what_hangs_is_killed_at_its_deadline(path: str) -> None:
    async def body(pool: KillablePool) -> None:
        pid = (await pool.call(f"{path}:pid", deadline_s=30)).value
        assert (await pool.call(f"{path}:deaf", deadline_s=0.2)).kind == "timeout"
        assert until(lambda: not alive(pid))

    with_pool(path, body, workers=1)


def test_the_zygote_is_replaced_when_it_dies(path: str) -> None:
    async def body(pool: KillablePool) -> None:
        first = (await pool.call(f"{path}:pid", deadline_s=30)).value
        zygote = zygote_of(first)
        running = asyncio.create_task(pool.call(f"{path}:hang", deadline_s=60))
        await asyncio.sleep(0.05)
        os.kill(zygote, signal.SIGKILL)
        assert (await running).kind == "crashed"
        assert (await pool.call(f"{path}:add", [2, 2], deadline_s=30)).value == 4
        assert until(lambda: not alive(first))

    with_pool(path, body, workers=1)


def zygote_of(child: int) -> int:
    return int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("waiting", [True, False])
def test_a_zygote_that_is_stopped_is_replaced_and_nobody_waits_for_it(
    path: str, monkeypatch: pytest.MonkeyPatch, waiting: bool
) -> None:
    monkeypatch.setattr("rewards.processes.pool.FORK_S", 0.5)

    async def body(pool: KillablePool) -> None:
        first = (await pool.call(f"{path}:pid", deadline_s=30)).value
        zygote = zygote_of(first)
        os.kill(zygote, signal.SIGSTOP)
        assert (await pool.call(f"{path}:hang", deadline_s=0.1)).kind == "timeout"  # its child is the last there was
        if not waiting:
            assert await asyncio.to_thread(until, lambda: not alive(zygote))
        answers = await asyncio.gather(*(pool.call(f"{path}:add", [i, 1], deadline_s=30) for i in range(3)))
        assert [answer.value for answer in answers] == [1, 2, 3]
        assert not alive(zygote)

    with_pool(path, body, workers=1)


def test_a_stopped_zygote_does_not_keep_a_pool_from_closing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewards.processes.pool.END_S", 0.2)

    async def body(pool: KillablePool) -> None:
        os.kill(zygote_of((await pool.call(f"{path}:pid", deadline_s=30)).value), signal.SIGSTOP)

    with_pool(path, body, workers=1)


def test_when_nothing_can_be_forked_callers_are_told_and_served_again_when_it_can(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewards.processes.pool.NO_ROOM_S", 0.3)
    opened = socket.socketpair
    full = False

    def socketpair(*args: Any) -> Any:
        if full:
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(*args)

    monkeypatch.setattr(socket, "socketpair", socketpair)

    async def body(pool: KillablePool) -> None:
        nonlocal full
        assert (await pool.call(f"{path}:add", [1, 1], deadline_s=30)).value == 2
        full = True
        assert (await pool.call(f"{path}:leave", deadline_s=30)).kind == "crashed"
        with pytest.raises(ServiceError, match=r"no process can be forked: .*Too many open files"):
            await pool.call(f"{path}:add", [1, 1], deadline_s=30)
        full = False
        assert (await pool.call(f"{path}:add", [2, 1], deadline_s=30)).value == 3

    with_pool(path, body, workers=1)


def test_a_start_that_failed_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = tmp_path / "late.py"

    async def run() -> None:
        pool = KillablePool(1, preload=(str(late),))
        try:
            with pytest.raises(ServiceError, match="no file"):
                await pool.call("math:sqrt", [4], deadline_s=10)
            late.write_text("")
            began = time.monotonic()
            with pytest.raises(ServiceError, match="no file"):  # at once, without another start
                await pool.call("math:sqrt", [4], deadline_s=10)
            assert time.monotonic() - began < 0.1
            monkeypatch.setattr("rewards.processes.pool.RETRY_S", 0.0)
            assert (await pool.call("math:sqrt", [4], deadline_s=10)).value == 2.0
        finally:
            await pool.close()

    asyncio.run(run())


def test_a_preload_that_does_not_import_is_told(path: str, tmp_path: Path) -> None:
    before = offspring(os.getpid())
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_that_name\n")

    async def run(preload: str) -> None:
        pool = KillablePool(1, preload=(preload,))
        try:
            await pool.call("math:sqrt", [1], deadline_s=10)
        finally:
            await pool.close()

    with pytest.raises(ServiceError, match="nothing_of_that_name"):
        asyncio.run(run(str(broken)))
    with pytest.raises(ServiceError, match="no_such_module"):
        asyncio.run(run("no_such_module"))
    assert not any(alive(pid) for pid in offspring(os.getpid()) - before)


def test_close_wakes_those_who_wait_and_a_closed_pool_says_so(path: str) -> None:
    async def run() -> None:
        pool = KillablePool(1, preload=(path,))
        await pool.start()
        running = asyncio.create_task(pool.call(f"{path}:hang", deadline_s=60))
        await asyncio.sleep(0.2)
        waiting = asyncio.create_task(pool.call(f"{path}:add", [1, 1], deadline_s=60))
        await asyncio.sleep(0.05)
        await pool.close()
        with pytest.raises(ServiceError, match="closed"):
            await waiting
        assert (await running).kind == "crashed"
        with pytest.raises(ServiceError, match="closed"):
            await pool.call(f"{path}:add", [1, 1], deadline_s=60)
        await pool.close()

    asyncio.run(run())


PARENT = """
import asyncio, sys
from rewards.processes.pool import KillablePool

async def main():
    pool = KillablePool(2, preload=(sys.argv[1],))
    pids = [(await pool.call(f"{sys.argv[1]}:pid", deadline_s=30)).value for _ in range(2)]
    asyncio.get_running_loop().create_task(pool.call(f"{sys.argv[1]}:deaf", deadline_s=600))
    await asyncio.sleep(0.1)
    print("up", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("with_zygote", [False, True])
def test_nothing_survives_the_death_of_the_parent(path: str, with_zygote: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, path], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        below = offspring(parent.pid)
        assert len(below) == 3
        if with_zygote:
            # Both at once: neither can kill the children any more.
            zygote = next(pid for pid in below if offspring(pid))
            os.kill(parent.pid, signal.SIGSTOP)
            os.kill(zygote, signal.SIGKILL)
        parent.kill()
        parent.wait()
    assert until(lambda: not any(alive(pid) for pid in below))


def test_files_beside_a_function_are_importable_and_two_folders_do_not_mix(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder / "package").mkdir(parents=True)
        (tmp_path / folder / "helper.py").write_text(f"VALUE = {value}\n")
        (tmp_path / folder / "package" / "__init__.py").write_text("")
        (tmp_path / folder / "package" / "late.py").write_text(f"VALUE = {10 * value}\n")
        (tmp_path / folder / "score.py").write_text(
            "from helper import VALUE\n\n"
            "def f():\n    import helper\n    from package import late\n    return [VALUE, helper.VALUE, late.VALUE]\n"
        )
    names = [f"{tmp_path}/{folder}/score.py" for folder in "ab"]

    async def body(pool: KillablePool) -> None:
        for name, value in [*zip(names, (1, 2), strict=True)] * 2:
            assert (await pool.call(f"{name}:f", deadline_s=10)).value == [value, value, 10 * value]
        # What is no file of the user's sees none of them.
        assert (
            "No module named 'helper'" in (await pool.call("importlib:import_module", ["helper"], deadline_s=10)).error
        )

    with_pool("", body, preload=names, workers=1)
