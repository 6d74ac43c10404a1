"""Packages that a recipe allows: where they are found, how they are imported, and what does not come in with them."""

import asyncio
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.code.score import CodeResult, score_code
from rewards.code.tasks import parse_task
from rewards.sandbox.packages import find_packages
from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import Assertions, BrokenPackage, Limits, Run, Tier
from rewards.sandbox.worker import _system_trees
from rollout.errors import InputError


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules of this interpreter's. Not below /tmp, of which programs have one of their own."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    monkeypatch.syspath_prepend(str(folder))
    find_packages.cache_clear()
    yield folder
    shutil.rmtree(folder)


def runs(tier: Tier, packages: tuple[str, ...], program: str, num: int = 1) -> list[Run]:
    async def run() -> list[Run]:
        async with Sandbox(slots=1, tier=tier, packages=packages) as sandbox:
            assert sandbox.tier == tier
            return await sandbox.run_inputs(program, [b""] * num, Limits())

    return asyncio.run(run())


def package(site: Path, name: str, text: str) -> Path:
    folder = site / name
    folder.mkdir()
    (folder / "__init__.py").write_text(text)
    return folder


# --- Finding


def test_a_package_comes_with_its_libraries_and_with_what_it_requires() -> None:
    found = find_packages(("sympy", "numpy.linalg"))
    assert found.warm == ("sympy", "numpy.linalg")
    assert {"sympy", "mpmath", "numpy"} <= found.modules.keys()
    names = {Path(tree).name for tree in found.trees}
    assert {"sympy", "mpmath", "numpy"} <= names
    assert not {"pydantic", "pip", "site-packages"} & names
    libraries = Path(found.modules["numpy"]["folders"][0] + ".libs")
    assert not libraries.exists() or str(libraries) in found.trees


def test_a_distribution_is_found_by_its_name() -> None:
    assert find_packages(("PyYAML",)).warm == ("yaml",)


def test_the_standard_library_needs_no_packages() -> None:
    assert find_packages(("math", "os.path")).warm == ()


def test_finding_a_package_imports_nothing(site: Path) -> None:
    package(site, "never_imported", "raise SystemExit")
    assert find_packages(("never_imported",)).trees == (str(site / "never_imported"),)
    assert "never_imported" not in sys.modules


@pytest.mark.parametrize(
    ("name", "words"),
    [("nunpy", "'nunpy' is not installed here; did you mean 'numpy'?"), ("", "'' is not"), ("../x", "'../x' is not"), ("a b", "'a b' is not")],
)  # fmt: skip
def test_a_package_that_is_not_installed_is_a_mistake_of_the_user(name: str, words: str) -> None:
    with pytest.raises(InputError, match=r"sandbox\.packages: ") as caught:
        Sandbox(slots=1, packages=(name,))
    assert words in str(caught.value)
    assert "install it beside rayzero, or take it out" in str(caught.value)


@pytest.mark.parametrize("package", ["pillow.libs", "some/lib"])
def test_libraries_that_other_packages_brought_into_the_host_are_not_read(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"{os.path.realpath(sysconfig.get_path('platlib'))}/{package}"
    maps = f"0-1 r 0 0:0 1 {folder}/libz-1234.so.1\n0-1 r 0 0:0 1 /opt/runtime/libc.so.6\n"
    monkeypatch.setattr(Path, "read_text", lambda self: maps)
    trees, _ = _system_trees(())
    assert "/opt/runtime" in trees
    assert folder not in trees


# --- Importing


@pytest.mark.parametrize("tier", ["A", "B"])
def test_programs_and_tests_find_a_package_warm(tier: Tier) -> None:
    program = "import sys\nprint('numpy' in sys.modules, 'numpy.random' in sys.modules)\nimport numpy as np\nprint(np.arange(5).sum())"
    for run in runs(tier, ("numpy",), program, num=2):
        assert (run.stdout, run.reason) == (b"True True\n10\n", "")

    async def tested() -> list[str]:
        async with Sandbox(slots=1, tier=tier, packages=("numpy",)) as sandbox:
            tests = Assertions(setup="import numpy as np", tests=[{"code": "assert np.allclose(f(3), np.arange(3.0))"}])
            text = "import numpy as np\ndef f(n): return np.arange(n)"
            return [result.outcome for result in await sandbox.run_tests(text, tests, Limits())]

    assert asyncio.run(tested()) == ["pass"]


@pytest.mark.parametrize("tier", ["A", "B"])
def test_modules_beside_a_package_are_not_there(site: Path, tier: Tier) -> None:
    package(site, "allowed", "x = 3")
    package(site, "beside", "x = 4")
    (site / "single.py").write_text("x = 5")
    program = "import allowed, single\nprint(allowed.x, single.x)\nimport beside"
    (run,) = runs(tier, ("allowed", "single"), program)
    assert (run.stdout, run.reason) == (b"3 5\n", "ModuleNotFoundError: No module named 'beside'")


@pytest.mark.parametrize("tier", ["A", "B"])
def test_a_package_is_read_only_and_links_in_it_lead_nowhere_else(site: Path, tier: Tier) -> None:
    outside = site / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    linked = package(site, "real", "x = 3")
    (linked / "passwd").symlink_to("/etc/passwd")
    (linked / "up").symlink_to("..")
    (linked / "aside").symlink_to(outside)
    (site / "linked").symlink_to(linked)
    linked.chmod(0o777)  # what may be written is not a matter of modes
    (linked / "__init__.py").chmod(0o666)
    program = """
import linked, os
home = os.path.dirname(linked.__file__)
for name in ('passwd', 'up/outside/secret', 'aside/secret', '../outside/secret'):
    try: print(open(os.path.join(home, name)).read())
    except OSError as problem: print('refused')
for call in (lambda: open(home + '/x', 'w'), lambda: open(linked.__file__, 'r+'), lambda: os.chmod(home, 0o700), lambda: os.remove(home + '/up'), lambda: os.symlink('/', home + '/y')):
    try: call(); print('written')
    except OSError: print('refused')
"""
    (run,) = runs(tier, ("linked",), program)
    assert run.stdout.decode().split() == ["refused"] * 9, run


@pytest.mark.parametrize("tier", ["A", "B"])
def test_a_package_that_starts_threads_stays_cold(site: Path, tier: Tier) -> None:
    text = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    package(site, "threaded", text)
    package(site, "plain", "")
    (run,) = runs(
        tier,
        ("threaded", "plain"),
        "import sys\nprint(*(n in sys.modules for n in ('threaded', 'plain')))\nimport threaded",
    )
    assert (run.stdout, run.reason) == (b"False True\n", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('no licence')", "broken_one: RuntimeError: no licence"),
        ("import not_there", "broken_one: ModuleNotFoundError: No module named 'not_there'"),
        ("import os\nos._exit(0)", "broken_one: its import ends the interpreter"),
        ("import ctypes\nctypes.string_at(0)", "broken_one: its import ends the interpreter"),
        ("raise SystemExit", "broken_one: SystemExit"),
        ("import socket\nsocket.socket()", "broken_one: PermissionError"),
        ("import os, threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nif os.getpid() != 1: raise ValueError", "broken_one: ValueError"),
    ],
)  # fmt: skip
def test_a_package_that_cannot_be_imported_is_refused_and_does_not_weaken_the_tier(
    site: Path, text: str, words: str
) -> None:
    package(site, "broken_one", text)

    async def start() -> None:
        sandbox = Sandbox(slots=1, packages=("broken_one",), allow_weak=True)
        try:
            await sandbox.start()
        finally:
            sandbox.close()

    with pytest.raises(BrokenPackage, match=r"sandbox\.packages: ") as caught:
        asyncio.run(start())
    assert words in str(caught.value)
    assert "take it out of sandbox.packages, or install what it lacks" in str(caught.value)


def test_what_a_package_leaves_in_the_scratch_directory_is_gone(site: Path) -> None:
    package(site, "caching", "open('/tmp/cache', 'w').write('x')")
    for run in runs("A", ("caching",), "import os\nprint(os.listdir('/tmp'))\nopen('/tmp/x', 'w')", num=2):
        assert run.stdout == b"[]\n"


# --- Missing


class Scored:
    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.sandbox = Sandbox(slots=1)
        self.runner.run(self.sandbox.start())

    def score(self, program: str, **fields: object) -> CodeResult:
        return self.runner.run(score_code(self.sandbox, program, parse_task(fields)))


@pytest.fixture(scope="module")
def scored() -> Iterator[Scored]:
    scored = Scored()
    yield scored
    scored.sandbox.close()
    scored.runner.close()


TEN = [{"input": "", "output": "10"}]
CALL = [{"assert": "assert f(4) == 10"}]


@pytest.mark.parametrize(
    ("program", "tests", "reason"),
    [
        ("import numpy as np\nprint(10)", TEN, "test 1 of 1: exit status 1: ModuleNotFoundError: No module named 'numpy'"),
        ("from sklearn.svm import SVC\nprint(10)", TEN * 2, "test 1 of 2: exit status 1: ModuleNotFoundError: No module named 'sklearn'"),
        ("import numpy\ndef f(x): return 10", CALL, "test 1 of 1: ModuleNotFoundError: No module named 'numpy'"),
        ("def f(x):\n    import pandas\n    return 10", CALL, "test 1 of 1: ModuleNotFoundError: No module named 'pandas'"),
    ],
)  # fmt: skip
def test_a_program_that_lacks_a_package_is_counted_apart(
    scored: Scored, program: str, tests: list[object], reason: str
) -> None:
    result = scored.score(program, tests=tests)
    assert (result.status, result.value, result.lacks_package) == ("ok", 0, True)
    assert result.reason == f"{reason}; sandbox.packages may name it"
    assert {test.outcome for test in result.tests} == {"missing"}


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("try:\n    import numpy\nexcept ImportError:\n    print(10)", 1),
        ("try:\n    import numpy\nexcept ImportError:\n    print(11)", 0),
        ("import sys\nsys.stderr.write('ModuleNotFoundError: No module named x')\nprint(10)", 1),
        ("import sys\nsys.stderr.write('ModuleNotFoundError: No module named x')\nprint(11)", 0),
        ("1 / 0", 0),
    ],
)
def test_a_program_that_does_without_lacks_nothing(scored: Scored, program: str, value: float) -> None:
    result = scored.score(program, tests=TEN)
    assert (result.status, result.value, result.lacks_package) == ("ok", value, False)


def test_tests_that_lack_a_package_are_an_error_that_says_so(scored: Scored) -> None:
    for tests in (
        [{"assert": "import numpy as np\nassert np.all(f(4))"}],
        [{"assert": "assert np.allclose(f(4), 10)"}],
    ):
        result = scored.score("def f(x): return 10", tests=tests)
        assert result.status == "error"
        assert result.error.endswith("No module named 'numpy'; sandbox.packages may name it")


# --- Values of numpy's


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="Linux alone has such a sandbox")
def test_values_of_numpy_mean_what_they_are() -> None:
    asserts = [
        "assert f(3) == 3 and type(f(3)) is int",
        "assert f(0.5) == 0.5",
        "assert f(True) is True",
        "assert a([1, 2]).tolist() == [1, 2] and a([[1.5]]).shape == (1, 1)",
        "assert (a([1, 2]) == np.array([1, 2])).all()",
        "assert np.array_equal(a([1j, 2]), np.array([1j, 2]))",
        "assert (a([True, False]) == [True, False]).all()",
        "assert len(a([])) == 0 and np.allclose(a([]), [])",
        "assert total(np.array([1, 2, 3])) == 6",
        "assert {'x': a([1])}['x'][0] == 1",
        "assert [f(1), f(2)] == [1, 2]",
        "np.testing.assert_allclose(a([0.1]) * 3, [0.3])",
    ]
    program = "import numpy as np\ndef f(x): return np.array([x])[0]\ndef a(x): return np.array(x)\ndef total(x): return x.sum()"

    async def judged() -> tuple[CodeResult, CodeResult]:
        async with Sandbox(slots=1, packages=("numpy",)) as sandbox:
            task = parse_task({"tests": [{"assert": text} for text in asserts], "setup": "import numpy as np"})
            called = {"fn_name": "a", "inputs": [[[0.1, 0.2]]], "outputs": [[0.1, 0.2]]}
            return (
                await score_code(sandbox, program, task, "fraction"),
                await score_code(sandbox, program, parse_task({"tests": called})),
            )

    asserted, called = asyncio.run(judged())
    assert [
        (text, test.reason) for text, test in zip(asserts, asserted.tests, strict=True) if test.outcome != "pass"
    ] == []
    assert called.value == 1
