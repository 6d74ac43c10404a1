"""Everything that only a GPU can tell, in one command for a host with one card, in at most nine minutes.

    python -m tests.bench.gpu [--out DIR] [--only PART,PART] [--minutes 9]

Parts, in this order, each in a process of its own with a limit of its own (`--limit PART=SECONDS` sets another):

    environment  card, driver, versions, rate of a bfloat16 matrix product, rate of a copy
    tests        the tests marked `gpu`
    attention    packed attention in bfloat16 beside its definition in float32, with shared prompts; speed of 16k and 32k packs
    publish      weights from one rank to one engine on one card
    steps        GRPO steps on a random 0.5B Qwen2: publish, digest, audit
    learner      training steps at 1.5B with packs of 16k tokens: tokens/s, MFU, memory, kernels
    long         packs of one 32k and one 64k sequence, forward and backward
    rollout      the engine behind our verbs beside plain vLLM with the same arguments
    train        `rayzero train arithmetic`, a few steps of each stage, with its phases

After each part DIR gets report.md, report.json and logs.txt anew, so a host that goes away takes one part along at most. A part
that fails or hangs is reported with its last lines, what it started is ended, and the next one runs. Models and whole logs are
in a scratch folder (`--work`).

Without a card, or with `--tiny`, every part runs in toy sizes on the CPU: to try the script, not to measure.
To add a part: a module in tests/bench/gpu_parts/ with `run(bench)`, and a line in PARTS.
"""

import argparse
import contextlib
import datetime
import faulthandler
import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from tests.bench.gpu_parts import report
from tests.bench.gpu_parts.bench import Bench, child_command, read_result
from tests.bench.gpu_parts.processes import run_limited

ROOT = Path(__file__).parents[2]
PARTS = {
    "environment": 60,
    "tests": 90,
    "attention": 60,
    "publish": 90,
    "steps": 120,
    "learner": 170,
    "long": 80,
    "rollout": 170,
    "train": 150,
}
"""Part → seconds that it may take."""
TINY_FACTOR = 4
"""Times as long on the CPU, where a hundred imports of torch take minutes."""
LEAST_SECONDS = 15
"""With less time left a part is not begun."""


def main() -> None:
    given = arguments().parse_args()
    if given.part:
        run_part(given)
    out = Path(given.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    work = Path(given.work or tempfile.mkdtemp(prefix="rayzero-gpu-")).resolve()
    # Whoever ends this script wants what is known so far, and nothing left running.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    try:
        failed = Runner(given, out, work).run_all()
    finally:
        if not given.work:
            shutil.rmtree(work, ignore_errors=True)
    raise SystemExit(1 if failed else 0)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="gpu-report", metavar="DIR", help="folder of the report [gpu-report]")
    parser.add_argument("--only", default="", metavar="PART,PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=9, help="for all parts together [9]")
    parser.add_argument("--limit", action="append", default=[], metavar="PART=SECONDS")
    parser.add_argument("--tiny", action="store_true", help="toy sizes on the CPU; of itself where no card is")
    parser.add_argument("--work", default="", metavar="DIR", help="scratch folder, kept [a new one, removed]")
    parser.add_argument("--train-keys", default="", metavar="'key=value …'", help="keys of the recipe in `train`")
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=600, help=argparse.SUPPRESS)
    return parser


def _interrupted(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


# --- The process of one part


def run_part(given: argparse.Namespace) -> NoReturn:
    """Run one part, or one case of it, and end this process without waiting for anything it left."""
    faulthandler.enable()
    # Where a part hangs, the log says in which line.
    faulthandler.dump_traceback_later(max(given.seconds - 4, 1), exit=False)
    bench = Bench(
        name=given.part,
        out=Path(given.out),
        work=Path(given.work),
        tiny=given.tiny,
        deadline=time.time() + given.seconds,
        case=given.case,
        train_keys=tuple(given.train_keys.split()),
    )
    code = 0
    try:
        importlib.import_module(f"tests.bench.gpu_parts.{given.part}").run(bench)
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is told, and the process ends
        bench.fail(error)
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# --- The script itself


class Runner:
    """Runs the parts one after the other and reports."""

    def __init__(self, given: argparse.Namespace, out: Path, work: Path) -> None:
        self.out, self.work = out, work
        self.logs = work / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.deadline = time.monotonic() + 60 * given.minutes
        self.card = query_card()
        self.tiny = given.tiny or not self.card
        self.train_keys = tuple(given.train_keys.split())
        self.limits = dict(PARTS)
        if self.tiny:
            self.limits = {name: TINY_FACTOR * limit for name, limit in self.limits.items()}
        self.names = [name for name in given.only.split(",") if name] or list(PARTS)
        if unknown := set(self.names) - set(PARTS):
            arguments().error(f"--only: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
        for pair in given.limit:
            name, _, seconds = pair.partition("=")
            if name not in PARTS or not seconds.isdigit():
                arguments().error(f"--limit: {pair!r} is not PART=SECONDS")
            self.limits[name] = int(seconds)
        self.head: dict[str, object] = {
            "card": self.card or "none (toy sizes on the CPU)",
            "driver": query("driver_version"),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "command": " ".join(["python -m tests.bench.gpu", *sys.argv[1:]]),
            "commit": commit(),
        }
        self.parts: list[dict[str, Any]] = []

    def run_all(self) -> int:
        """Number of parts that did not end well."""
        began = time.monotonic()
        for name in self.names:
            self._run(name)
        self.head["seconds"] = round(time.monotonic() - began)
        self._write()
        print("\n" + report.text(self.head, self.parts), flush=True)
        return sum(part["status"] != "ok" for part in self.parts)

    def _run(self, name: str) -> None:
        part: dict[str, Any] = {"name": name, "status": "running", "seconds": 0.0}
        self.parts.append(part)
        limit = min(self.limits[name], self.deadline - time.monotonic())
        if limit < LEAST_SECONDS:
            part |= {"status": "skipped", "error": f"{max(limit, 0):.0f} s were left"}
        elif importlib.util.find_spec(f"tests.bench.gpu_parts.{name}") is None:
            part |= {"status": "missing", "error": f"there is no tests/bench/gpu_parts/{name}.py"}
        else:
            self._run_process(part, limit)
        print(f"{name}: {part['status']}, {part['seconds']:.0f} s", flush=True)
        if part.get("error"):
            print("    " + part["error"].replace("\n", "\n    "), flush=True)
        self._write()

    def _run_process(self, part: dict[str, Any], limit: float) -> None:
        name, log = part["name"], self.logs / f"{part['name']}.log"
        log.unlink(missing_ok=True)
        bench = Bench(name, self.out, self.work, self.tiny, time.time() + limit, train_keys=self.train_keys)
        used_before = memory_used()

        def so_far() -> None:
            found = read_result(self.work, name)
            part.update(figures=found.get("figures", {}), notes=found.get("notes", []))

        def meanwhile() -> None:
            so_far()
            self._write()

        try:
            ended = run_limited(child_command(bench, seconds=limit), log, limit, environment(self.tiny), meanwhile)
        except BaseException:
            so_far()
            part |= {"status": "interrupted", "error": report.last_lines(log)}
            self._write()
            raise
        so_far()
        part |= {"seconds": round(ended.seconds, 1), "status": "ok" if ended.code == 0 else "failed"}
        if ended.code is None:
            part["status"] = f"no end after {limit:.0f} s"
        elif ended.code < 0:
            part["status"] = f"ended by {signal.Signals(-ended.code).name}"
        if ended.code != 0:
            part["error"] = report.last_lines(log)
        if ended.left:
            part["notes"] = [*part["notes"], f"{ended.left} processes of it were ended afterwards"]
        if used_before is not None:
            held = memory_held(used_before)
            if held > 300:
                part["notes"] = [*part["notes"], f"{held} MiB of GPU memory were not given back"]

    def _write(self) -> None:
        # A full disk is no reason to lose the parts that are still to come.
        try:
            report.write(self.out, self.head, self.parts, self.logs)
        except OSError as error:
            print(f"the report could not be written: {error}", flush=True)


def environment(tiny: bool) -> dict[str, str]:
    """Environment of the parts."""
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(ROOT)])),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "INFO",
        "RAY_DEDUP_LOGS": "0",
    }
    if tiny:
        settings |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    return {**os.environ, **settings}


def query(field: str) -> str:
    """A field of nvidia-smi for the first card; empty where there is none."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def query_card() -> str:
    return query("name")


def memory_used() -> int | None:
    """MiB that are taken on the first card; None where that cannot be asked."""
    found = query("memory.used")
    return int(found) if found.isdigit() else None


def memory_held(before: int, patience_s: float = 10) -> int:
    """MiB more than before, once that has fallen or patience is over: the driver frees a little later."""
    until = time.monotonic() + patience_s
    while True:
        held = (memory_used() or before) - before
        if held <= 300 or time.monotonic() > until:
            return held
        time.sleep(0.5)


def commit() -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""


if __name__ == "__main__":
    main()
