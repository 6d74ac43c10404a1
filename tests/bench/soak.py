"""Soak of the reward service: thousands of mixed scorings, a few of them hanging, crashing or hostile.

    python -m tests.bench.soak [--count 20000] [--hostile 0.02] [--replicas 2]

Every scoring has a verdict that it must get, so that a lost or misattributed one is seen. The same load is run first
without the hostile ones; the times of both, the sum of the deadlines that the hostile ones may cost, and the memory of the
workers and all their children over time are printed. Exit status 1 when a verdict is not as it must be.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from orchestrator.cluster.session import ray_session
from orchestrator.config.sections.cluster import ClusterSection
from rewards.resources import ResourceSettings
from rewards.service import RewardPool
from rewards.types import FunctionSpec, Sample, Score

FUNCTION_TIMEOUT_S = 1.0
TEST_TIMEOUT_S = 1.0
USER = """
import os, signal, time

def letters(prompt, completion, reference):
    if completion == "hang":
        time.sleep(600)
    if completion == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if completion == "eat":
        bytearray(1 << 34)
    return len(completion)
"""


@dataclass(frozen=True, slots=True)
class Case:
    rubric: str
    sample: Sample
    status: str
    value: float | None
    """None: any (there is none with status `error`)."""
    deadline_s: float = 0.0
    """What it may cost beyond ordinary work."""


def ordinary(i: int, rng: np.random.Generator) -> Case:
    """Mostly exact math, some symbolic math, user functions and programs; each with an answer of its own."""
    kind = rng.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    right = bool(rng.integers(2))
    shown = i if right else i + 1
    if kind == 0:
        return Case(
            "math", Sample(prompt="", completion=f"<answer>{shown:,}</answer>", answer=str(i)), "ok", float(right)
        )
    if kind == 1:
        expanded = f"x^2+{2 * i + 1}x+{i * (i + 1)}"
        response = f"\\boxed{{(x+{shown})(x+{i + 1})}}"
        return Case("math", Sample(prompt="", completion=response, answer=expanded), "ok", float(right))
    if kind == 2:
        return Case("letters", Sample(prompt="", completion="x" * (i % 997)), "ok", float(i % 997))
    if kind == 3:
        text = f"<think>{i}</think><answer>{i}</answer>" if right else f"<answer>{i}</answer>"
        return Case("format", Sample(prompt="", completion=text), "ok", float(right))
    tests = f'[{{"input": "{i}", "output": "{2 * i}"}}]'
    program = f"```python\nprint({2 if right else 3} * int(input()))\n```"
    passes = right or i == 0
    return Case("code", Sample(prompt="", completion=program, fields={"tests": tests}), "ok", float(passes))


def hostile(i: int, rng: np.random.Generator) -> Case:
    tests = f'[{{"input": "", "output": "{i}"}}]'

    def program(text: str, status: str, deadline_s: float = 0.0) -> Case:
        response = f"```python\n{text}\n```"
        sample = Sample(prompt="", completion=response, fields={"tests": tests, "time_limit_s": str(TEST_TIMEOUT_S)})
        return Case("code", sample, status, 0.0, deadline_s)

    kinds = [
        lambda: program("while True: pass", "timeout", TEST_TIMEOUT_S),
        lambda: program("import os\nwhile True: os.fork()", "any", TEST_TIMEOUT_S),
        lambda: program("x = [0] * (1 << 40)", "ok"),
        lambda: program("import os, signal\nos.kill(os.getppid(), 9); os.kill(0, 9)", "ok"),
        lambda: program(f"import os\nprint({i + 1}); os._exit(0)", "ok"),
        # An error is tried twice.
        lambda: Case("letters", Sample(prompt="", completion="hang"), "error", None, 2 * FUNCTION_TIMEOUT_S),
        lambda: Case("letters", Sample(prompt="", completion="crash"), "error", None),
        lambda: Case("letters", Sample(prompt="", completion="eat"), "error", None),
        lambda: Case("math", Sample(prompt="", completion="\\boxed{9^{9^{9^{9}}}}", answer=str(i)), "any", 0.0, 2.0),
        lambda: Case("math", Sample(prompt="", completion="\\boxed{" * 50_000, answer=str(i)), "ok", 0.0),
    ]
    return kinds[int(rng.integers(len(kinds)))]()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--hostile", type=float, default=0.02)
    parser.add_argument("--replicas", type=int, default=2)
    args = parser.parse_args(argv)
    rng = np.random.default_rng(7)
    clean = [ordinary(i, rng) for i in range(args.count)]
    places = set(rng.permutation(args.count)[: int(args.count * args.hostile)].tolist())
    mixed = [hostile(i, rng) if i in places else case for i, case in enumerate(clean)]
    with TemporaryDirectory() as folder, ray_session(ClusterSection(), "soak"):
        (Path(folder) / "mine.py").write_text(USER)
        return asyncio.run(_soak(f"{folder}/mine.py:letters", clean, mixed, args.replicas))


async def _soak(letters: str, clean: list[Case], mixed: list[Case], replicas: int) -> int:
    names = {"math": "accuracy", "format": "format", "code": "code_tests", "letters": letters}
    rubrics = {rubric: (FunctionSpec(name=name, label=rubric),) for rubric, name in names.items()}
    settings = ResourceSettings(
        processes=2, function_timeout_s=FUNCTION_TIMEOUT_S, preload=(letters.rpartition(":")[0],)
    )
    pool = await RewardPool.start(
        rubrics,
        settings,
        {"letters": Sample(prompt="", completion="x")},
        replicas=replicas,
        timeout_s=120,
        max_error_rate=1.0,
        start_timeout_s=120,
    )
    try:
        await _run(pool, clean[:1000], "warm-up")
        base, faults = await _run(pool, clean, "clean")
        spent, more = await _run(pool, mixed, "mixed")
    finally:
        await pool.close()
    deadlines = sum(case.deadline_s for case in mixed)
    slots = 2 * replicas
    print(f"\nclean {base:.1f} s, mixed {spent:.1f} s; deadlines {deadlines:.0f} s over {slots} processes")
    print(f"bound 1.5 × clean + deadlines / processes = {1.5 * base + deadlines / slots:.1f} s")
    return 1 if faults or more else 0


async def _run(pool: RewardPool, cases: list[Case], label: str) -> tuple[float, int]:
    """(seconds, verdicts that are not as they must be)."""
    began = time.perf_counter()
    done = 0

    async def one(case: Case) -> Score:
        nonlocal done
        score = await pool.score(case.rubric, case.sample)
        done += 1
        if done % max(1, len(cases) // 4) == 0:
            count, memory = _family()
            print(f"{label}: {done:,} scored, {time.perf_counter() - began:.1f} s, {count} processes, {memory} MB")
        return score

    scores = await asyncio.gather(*(one(case) for case in cases))
    seconds = time.perf_counter() - began
    statuses = Counter(score.status for score in scores)
    wrong = [(case, score) for case, score in zip(cases, scores, strict=True) if not _as_it_must_be(case, score)]
    print(f"{label}: {len(cases) / seconds:,.0f} scorings/s, {dict(statuses)}, {len(wrong)} not as they must be")
    for case, score in wrong[:5]:
        print(f"  {case.rubric} {case.sample.completion[:80]!r} {case.status} {case.value} → {score}", file=sys.stderr)
    return seconds, len(wrong)


def _as_it_must_be(case: Case, score: Score) -> bool:
    return case.status in (score.status, "any") and (case.value is None or score.value == case.value)


def _family() -> tuple[int, int]:
    """(number, resident MB) of the reward workers with all that they started."""
    members: dict[int, Any] = {}
    for process in psutil.process_iter(["cmdline"]):
        if "RewardWorker" in " ".join(process.info["cmdline"] or ()):
            members |= {each.pid: each for each in (process, *process.children(recursive=True))}
    total = 0
    for process in members.values():
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return len(members), total >> 20


if __name__ == "__main__":
    sys.exit(main())
