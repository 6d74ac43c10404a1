"""The runner of the GPU measurements: whatever a part does, the others run, the report tells it, and nothing is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench import gpu
from tests.bench.gpu_parts import processes, report
from tests.bench.gpu_parts.bench import Bench, read_result
from tests.bench.gpu_parts.processes import run_limited

RECORD = "from pathlib import Path; from tests.bench.gpu_parts.bench import Bench; Bench({!r}, Path(), Path({!r}), True, 0).record(rate=7.5);"
STUBBORN = "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: dict[str, str], *options: str) -> gpu.Runner:
    """A runner whose parts are scripts."""
    monkeypatch.setattr(gpu, "PARTS", dict.fromkeys(scripts, 60))
    monkeypatch.setattr(gpu, "child_command", lambda bench, **_: [sys.executable, "-c", scripts[bench.name]])
    given = gpu.arguments().parse_args(["--tiny", *options])
    (tmp_path / "out").mkdir()
    return gpu.Runner(given, tmp_path / "out", tmp_path / "work")


class Clock:
    """Stands still until a process has written a line, so that a limit is not used up by the start of an interpreter."""

    def __init__(self, log: Path) -> None:
        self.log, self.began = log, time.monotonic()
        self.sleep = time.sleep
        self._ready = 0.0

    def monotonic(self) -> float:
        if not self._ready and self.log.exists() and self.log.read_text().endswith("\n"):
            self._ready = time.monotonic()
        return self.began + (time.monotonic() - self._ready if self._ready else 0)


def parts(tmp_path: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    return {part["name"]: part for part in found["parts"]}


def test_parts_that_fail_hang_and_die_do_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = str(tmp_path / "work")
    scripts = {
        "environment": RECORD.format("environment", work) + "raise ValueError('no such kernel')",
        "attention": RECORD.format("attention", work) + "print('waits', flush=True); import time; time.sleep(60)",
        "learner": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "long": "print('fine')",
    }
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 0)
    monkeypatch.setattr(processes, "time", Clock(tmp_path / "work" / "logs" / "attention.log"))
    assert runner(tmp_path, monkeypatch, scripts, "--limit", "attention=1").run_all() == 3
    found = parts(tmp_path)
    assert [part["status"] for part in found.values()] == ["failed", "no end after 1 s", "ended by SIGKILL", "ok"]
    assert "ValueError: no such kernel" in found["environment"]["error"]
    assert found["attention"]["figures"] == {"rate": 7.5}
    assert found["attention"]["error"].endswith("waits")
    told = (tmp_path / "out" / "report.md").read_text()
    assert "## attention: no end after 1 s" in told
    assert "| rate | 7.5 |" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["logs.txt", "report.json", "report.md"]
    assert "===== long (ok)\nfine" in (tmp_path / "out" / "logs.txt").read_text()


def test_a_part_without_time_or_module_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = runner(tmp_path, monkeypatch, {"nothing": "", "environment": ""}, "--minutes", "0.3")
    one._run("nothing")
    one.deadline = time.monotonic() + 3
    one._run("environment")
    found = parts(tmp_path)
    assert found["nothing"]["status"] == "missing"
    assert "gpu_parts/nothing.py" in found["nothing"]["error"]
    assert found["environment"]["status"] == "skipped"
    assert found["environment"]["error"] in ("2 s were left", "3 s were left")


@pytest.mark.parametrize(("ends", "code"), [(True, 0), (False, None)])
def test_what_took_a_session_of_its_own_and_ignores_the_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool, code: int | None
) -> None:
    log = tmp_path / "log"
    script = (
        "import subprocess, sys, time; from pathlib import Path;"
        f"subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]);"
        f"log = Path({str(log)!r});"
        f"[time.sleep(0.02) for _ in iter(lambda: {ends} and log.read_text().endswith(chr(10)), True)]"
    )
    monkeypatch.setattr(processes, "time", Clock(log))
    ended = run_limited([sys.executable, "-c", script], log, 10 if ends else 0.5, os.environ, patience_s=0.3)
    assert ended.code == code
    assert ended.left == 1
    assert not is_there(int(log.read_text()))


def test_an_end_from_outside_keeps_the_report_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from tests.bench import gpu;"
        "gpu.child_command = lambda *_, **__: [sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'];"
        "gpu.main()"
    )
    options = ["--tiny", "--only", "environment,long", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    process = subprocess.Popen([sys.executable, "-c", script, *options], stdout=subprocess.DEVNULL)
    log = tmp_path / "work" / "logs" / "environment.log"
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert not is_there(int(log.read_text()))
    assert {name: part["status"] for name, part in parts(tmp_path).items()} == {"environment": "interrupted"}


def wait_for(ready: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


def test_a_case_that_fails_becomes_a_note_and_keeps_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "from pathlib import Path; from tests.bench.gpu_parts.bench import Bench;"
        f"bench = Bench('learner', Path(), Path({str(tmp_path)!r}), True, 0, case='large');"
        "bench.record(open_s=1.5); bench.fail(MemoryError('out of memory\\nat the second step')); raise SystemExit(1)"
    )
    monkeypatch.setattr("tests.bench.gpu_parts.bench.child_command", lambda *_, **__: [sys.executable, "-c", script])
    bench = Bench("learner", tmp_path, tmp_path, True, time.time() + 60)
    figures = bench.apart("large", limit_s=30)
    assert figures["open_s"] == 1.5
    found = read_result(tmp_path, "learner")
    assert found["figures"]["large"]["open_s"] == 1.5
    assert found["notes"] == ["large: failed (1): MemoryError: out of memory"]


def test_a_case_without_time_is_not_begun(tmp_path: Path) -> None:
    bench = Bench("learner", tmp_path, tmp_path, True, time.time() + 12)
    assert bench.apart("large", limit_s=30) == {}
    assert bench.notes == ["large: no time was left"]


def test_the_real_child_reports_what_raised(tmp_path: Path) -> None:
    """`--part` of a module that is not there: the process ends with its traceback in the log and the reason on disk."""
    command = [sys.executable, "-m", "tests.bench.gpu", "--part", "nothing", "--work", str(tmp_path), "--seconds", "20"]
    done = subprocess.run(command, cwd=gpu.ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert read_result(tmp_path, "nothing")["error"].startswith("ModuleNotFoundError: ")


def test_a_long_log_keeps_both_ends(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "settings\n" + "line\n" * 200_000 + "Traceback (most recent call last)\n" + "  deep\n" * 30 + "Error: x\n"
    )
    kept = report.log_text(log)
    assert kept.startswith("settings\n")
    assert len(kept) < 500_000
    last = report.last_lines(log)
    assert last.startswith("Traceback (most recent call last)")
    assert last.endswith("Error: x")


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = gpu.arguments().parse_args(["--only", "environment,speed"])
    with pytest.raises(SystemExit):
        gpu.Runner(given, tmp_path, tmp_path)
    assert "no part speed" in capsys.readouterr().err
