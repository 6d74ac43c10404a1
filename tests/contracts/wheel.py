"""The source of the vLLM that GPU hosts install, whatever is installed here: from its wheel, which is kept in a cache.

`python -m tests.contracts.wheel` fetches it and prints where it is.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


class NoWheelError(Exception):
    """The wheel cannot be had; says why."""


def pinned(name: str) -> str:
    """The version of a package on GPU hosts."""
    text = (ROOT / "deploy" / "constraints-gpu.txt").read_text(encoding="utf-8")
    (version,) = re.findall(rf"^{re.escape(name)}==(.+)$", text, re.MULTILINE)
    return str(version)


def gpu_source(name: str = "vllm") -> Path:
    """A folder that holds the Python files of the pinned wheel. Downloaded once, 336 MB, of which 50 are kept.

    Raises:
        NoWheelError: there is no network, or no such wheel for this Python.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rayzero"
    folder = cache / f"{name}-{pinned(name)}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                shutil.move(_download(f"{name}=={pinned(name)}", Path(scratch)), folder)
    return folder


def _download(requirement: str, scratch: Path) -> Path:
    command = [
        *(sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--only-binary", ":all:"),
        *("--quiet", "--no-cache-dir", "--disable-pip-version-check", "--no-input"),
        *("--retries", "1", "--timeout", "15", "--dest", str(scratch)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise NoWheelError(f"{requirement} did not arrive in 300 s") from None
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        last = next(reversed(done.stderr.strip().splitlines()), f"pip ended with {done.returncode}")
        raise NoWheelError(f"{requirement}: {last}")
    source = scratch / "source"
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(source, [each for each in wheel.namelist() if each.endswith(".py")])
    return source


if __name__ == "__main__":
    print(gpu_source())
