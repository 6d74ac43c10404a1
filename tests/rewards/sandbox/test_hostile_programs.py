"""Every hostile program gets the verdict that it must get, and leaves nothing behind."""

import asyncio
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.code.score import score_code
from rewards.code.tasks import parse_task
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import Tier
from tests.rewards.sandbox.hostile_numpy import WITH_NUMPY
from tests.rewards.sandbox.hostile_programs import CHEATS, CORPUS, ESCAPES, MARK, Hostile

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the corpus makes raw system calls of x86-64")


class Judge:
    """A sandbox of one slot and what it looked like before the first program."""

    def __init__(self, tier: Tier, packages: tuple[str, ...] = ()) -> None:
        self.tier = tier
        self.runner = asyncio.Runner()
        self.sandbox = Sandbox(slots=1, tier=tier, packages=packages)
        self.runner.run(self.sandbox.start())
        for fields in ({"tests": [{"input": "", "output": ""}]}, {"tests": [{"assert": "assert f() is None"}]}):
            result = self.runner.run(score_code(self.sandbox, "def f(): pass", parse_task(fields)))
            assert result.value == 1, result
        self.workers = self.living()
        self.descriptors = len(os.listdir("/proc/self/fd"))

    def living(self) -> set[int]:
        """Every process below this one."""
        found: set[int] = set()
        waiting = [os.getpid()]
        while waiting:
            process = waiting.pop()
            try:
                tasks = list(Path(f"/proc/{process}/task").iterdir())
                children = [int(word) for task in tasks for word in (task / "children").read_text().split()]
            except OSError:
                continue
            found.update(children)
            waiting += children
        return found

    def close(self) -> None:
        self.sandbox.close()
        self.runner.close()


@pytest.fixture(scope="module", params=["A", "B"])
def judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    judge = Judge(request.param)
    yield judge
    judge.close()


@pytest.fixture(scope="module", params=["A", "B"])
def judge_with_numpy(request: pytest.FixtureRequest) -> Iterator[Judge]:
    judge = Judge(request.param, ("numpy",))
    yield judge
    judge.close()


@pytest.mark.parametrize("hostile", CORPUS, ids=[hostile.name for hostile in CORPUS])
def test_a_hostile_program_gets_its_verdict_and_leaves_nothing(judge: Judge, hostile: Hostile) -> None:
    assert_verdict(judge, hostile)


@pytest.mark.parametrize("hostile", WITH_NUMPY, ids=[hostile.name for hostile in WITH_NUMPY])
def test_a_hostile_program_with_numpy_gets_its_verdict_too(judge_with_numpy: Judge, hostile: Hostile) -> None:
    assert_verdict(judge_with_numpy, hostile)


def test_a_program_leaves_the_next_one_its_own_numpy(judge_with_numpy: Judge) -> None:
    spoil = "import numpy as np\nnp.sum = np.array = lambda *a: 3\nnp.random.seed(7)\nprint(3)"
    look = "import numpy as np\nprint(np.sum([1, 3]), np.random.rand())"
    same = [{"input": "", "output": "4 0.5488135039273248"}]
    for program, tests in ((spoil, [{"input": "", "output": "3"}]), (look, same), (look, same * 2)):
        task = parse_task({"tests": tests, "tolerance": 0})
        result = judge_with_numpy.runner.run(score_code(judge_with_numpy.sandbox, program, task))
        assert result.value == 1, result


def assert_verdict(judge: Judge, hostile: Hostile) -> None:
    task = parse_task(hostile.fields)
    response = f"```python\n{hostile.program}\n```"
    result = judge.runner.run(score_code(judge.sandbox, response, task, "fraction"))
    assert result.status != "error", result
    if judge.tier in hostile.tiers:
        assert {test.outcome for test in result.tests} <= set(hostile.outcomes), result
        assert len(result.tests) == task.total
    else:
        assert "contained" not in hostile.outcomes
    assert_nothing_is_left(judge)


def assert_nothing_is_left(judge: Judge) -> None:
    assert judge.sandbox.num_restarts == 0
    assert judge.living() == judge.workers
    assert len(os.listdir("/proc/self/fd")) == judge.descriptors
    for folder in ("/", "/usr", "/usr/lib", "/dev", "/dev/shm", "/tmp", "/var/tmp", "/etc", "/run"):
        assert not [name for name in os.listdir(folder) if name.startswith(MARK)], folder
    for worker in judge.workers:
        scratch = Path(f"/proc/{worker}/root/tmp")
        if judge.tier == "A" and os.access(scratch, os.R_OK) and Path(f"/proc/{worker}/cwd").samefile(scratch):
            assert list(scratch.iterdir()) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 45671)) != 0


def test_the_corpus_is_what_it_says() -> None:
    names = [hostile.name for hostile in CORPUS]
    assert len(names) == len(set(names)) >= 60
    assert all("pass" not in hostile.outcomes for hostile in CHEATS)
    assert all(hostile.outcomes == ("pass",) for hostile in ESCAPES)
