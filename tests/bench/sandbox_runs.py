"""Sandboxed runs of small programs a second, beside the same program in a bare interpreter with no sandbox at all.

    python -m tests.bench.sandbox_runs [--rounds 5] [--slots 2] [--tier A|B]

Rounds of both alternate, so that a busy machine slows both. A program adds one to a number that it reads; the unguarded
run is `subprocess.run([python, "-I", "-S", "-c", program])`, one process a test, as many at a time as there are slots.
"""

import argparse
import asyncio
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from rewards.sandbox.pool import Sandbox
from rewards.sandbox.types import Limits, Tier
from rewards.sandbox.worker import interpreter

PROGRAM = "print(int(input()) + 1)"
INPUT, OUTPUT = b"41\n", b"42\n"


async def sandboxed(sandbox: Sandbox, programs: int, tests: int) -> None:
    async def one() -> None:
        runs = await sandbox.run_inputs(PROGRAM, [INPUT] * tests, Limits())
        assert [run.stdout for run in runs] == [OUTPUT] * tests, runs

    await asyncio.gather(*(one() for _ in range(programs)))


def unguarded(programs: int, tests: int, slots: int) -> None:
    def one(_: int) -> None:
        for _ in range(tests):
            done = subprocess.run(
                [interpreter(), "-I", "-S", "-c", PROGRAM], input=INPUT, capture_output=True, check=True
            )
            assert done.stdout == OUTPUT

    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(one, range(programs)))


async def rate(programs: int, run: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await run()
    return programs / (time.perf_counter() - began)


async def compare(sandbox: Sandbox, slots: int, programs: int, tests: int, rounds: int) -> None:
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(await rate(programs, lambda: sandboxed(sandbox, programs, tests)))
        few = max(slots, programs // 5)
        bare.append(await rate(few, lambda few=few: asyncio.to_thread(unguarded, few, tests, slots)))  # type: ignore[misc]
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    print(
        f"{tests:2} tests a program: {statistics.median(ours):6.0f} programs/s sandboxed, "
        f"{statistics.median(bare):6.1f} bare, {statistics.median(ratios):.1f} times "
        f"(rounds {min(ratios):.1f} to {max(ratios):.1f})"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--tier", choices=["A", "B"])
    options = parser.parse_args()
    tier: Tier | None = options.tier
    async with Sandbox(slots=options.slots, tier=tier) as sandbox:
        print(f"tier {sandbox.tier}, {options.slots} slots")
        await sandboxed(sandbox, 50, 2)
        await compare(sandbox, options.slots, 200, 1, options.rounds)
        await compare(sandbox, options.slots, 40, 10, options.rounds)


if __name__ == "__main__":
    asyncio.run(main())
