"""The tests that are marked `gpu`."""

import re
import subprocess
import sys
from pathlib import Path

from tests.bench.gpu_parts.bench import Bench

ROOT = Path(__file__).parents[3]


def run(bench: Bench) -> None:
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py") if _has_mark(path))
    assert files, "no test is marked gpu"
    # A warning of a library that is new to us is to be read in the log, not to fail a test of ours.
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider", *files]
    command += ["--collect-only"] if bench.tiny else []
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    print(done.stdout, flush=True)
    told = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error|skipped|tests)", done.stdout)}
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)(?: - (.*))?$", done.stdout, re.MULTILINE)
    bench.record(files=len(files), **told)
    for name, reason in failures:
        bench.note(f"{name}: {reason[:300]}")
    if done.returncode:
        raise RuntimeError(f"pytest ended with status {done.returncode}: {told}")


def _has_mark(path: Path) -> bool:
    return "mark.gpu" in path.read_text(encoding="utf-8")
