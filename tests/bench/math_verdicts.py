"""Math verdicts a second on one core, beside plain math-verify on the same pairs.

    python -m tests.bench.math_verdicts [--gsm8k PATH] [--seconds S]

GSM8K-like: the data set's answers in the forms that models give them, each against its own and against another's
reference. MATH-like: the pairs below, each with its right verdict. Every pair is judged with caches emptied before each
pass; the symbolic rung runs in one child of a pool, so that parent and child take turns on what is one core of work.
math-verify gets the same response and the reference in `\\boxed{}`, alarms off, in this process. "agrees" is the share
of verdicts that are as listed; math-verify's rest is mostly what section "known weaknesses" of its own issues names.
"""

import argparse
import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rewards.math import numbers as math_numbers
from rewards.math import read as math_read
from rewards.math import spelling as math_spelling
from rewards.math import verdict as math_verdict
from rewards.math.verdict import SYMBOLIC
from rewards.processes.pool import KillablePool

Pair = tuple[str, str, bool]
"""response, reference, whether it is right"""

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k" / "test.jsonl"

# Groups of answers as competition problems have them: within a row all are equal; each is also paired with the next row.
MATH = (
    (r"\frac{3}{4}", r"0.75", r"\dfrac{3}{4}"),
    (r"\frac{7}{2}", r"3.5", r"3\frac{1}{2}"),
    (r"2\sqrt{3}", r"\sqrt{12}", r"2\sqrt3"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", r"\dfrac{\sqrt2}{2}"),
    (r"\frac{3\pi}{4}", r"\frac{3}{4}\pi", r"0.75\pi"),
    (r"25\pi", r"25 \pi", r"\pi\cdot 25"),
    (r"x^2+2x+1", r"(x+1)^2", r"1+2x+x^2"),
    (r"x^2-6x+9", r"(x-3)^2", r"(3-x)^2"),
    (r"(3, 4)", r"\left(3,4\right)", r"(3,\ 4)"),
    (r"(-\infty, 2) \cup (5, \infty)", r"(5,\infty)\cup(-\infty,2)", r"\left(-\infty,2\right)\cup\left(5,\infty\right)"),
    (r"[0, 1)", r"\left[0,1\right)", r"[0,1)"),
    (r"\{1, 2, 3\}", r"\{3,2,1\}", r"\left\{1,2,3\right\}"),
    (r"-3, 5", r"5, -3", r"5,-3"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}",
     r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\begin{pmatrix} -7 \\ 2 \end{pmatrix}", r"\begin{pmatrix}-7\\2\end{pmatrix}", r"\begin{pmatrix}-7.0\\2\end{pmatrix}"),
    (r"y = 2x + 3", r"2x - y + 3 = 0", r"y=2x+3"),
    (r"\text{(B)}", r"B", r"(B)"),
    (r"\text{Tuesday}", r"Tuesday", r"\text{tuesday}"),
    (r"45^\circ", r"45", r"45^{\circ}"),
    (r"12\text{ cm}^2", r"12", r"12 \mathrm{cm}^2"),
    (r"\$1,250.50", r"1250.5", r"1{,}250.50"),
    (r"40\%", r"40", r"40\text{ percent}"),
    (r"1.5 \times 10^{6}", r"1500000", r"1,500,000"),
    (r"1011_2", r"1011_{2}", r"1011_2"),
    (r"3 + 4i", r"4i+3", r"3+4i"),
    (r"\frac{1 + \sqrt{5}}{2}", r"\frac{\sqrt5+1}{2}", r"\frac{1}{2}+\frac{\sqrt{5}}{2}"),
    (r"\frac{x^2-1}{x+2}", r"\frac{(x-1)(x+1)}{x+2}", r"\frac{x^2 - 1}{x + 2}"),
    (r"2^{n+1}", r"2\cdot 2^n", r"2^{n + 1}"),
    (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}", r"\frac{1}{2}n(n+1)"),
    (r"\ln 2", r"\ln(2)", r"\frac{1}{2}\ln 4"),
    (r"\sin x + 1", r"1+\sin x", r"\sin(x)+1"),
    (r"11\sqrt{2}", r"\sqrt{242}", r"11\sqrt2"),
    (r"x \ge 3", r"[3,\infty)", r"x\geq3"),
    (r"-1 < x < 4", r"(-1,4)", r"-1<x<4"),
    (r"3 \pm \sqrt{7}", r"3+\sqrt7, 3-\sqrt7", r"3\pm\sqrt7"),
    (r"x=7", r"7", r"7.0"),
    (r"\sqrt[3]{2}", r"2^{1/3}", r"\sqrt[3]2"),
    (r"e^{2}", r"e^2", r"e\cdot e"),
    (r"\binom{8}{3}", r"56", r"56.0"),
    (r"6!", r"720", r"720"),
)  # fmt: skip


@dataclass(frozen=True)
class Rate:
    per_second: float
    agrees: float
    symbolic: float = 0.0
    """Share of verdicts that needed sympy."""


def math_bench(gsm8k: Path = GSM8K, seconds: float = 5.0) -> dict[str, dict[str, Rate]]:
    """By set, the rates of this verifier and of plain math-verify."""
    sets = {"MATH-like": math_pairs()}
    if gsm8k.exists():
        sets = {"GSM8K-like": gsm8k_pairs(gsm8k), **sets}
    return {
        name: {"rayzero": asyncio.run(ours(pairs, seconds)), "math-verify": plain(pairs, seconds)}
        for name, pairs in sets.items()
    }


def math_pairs() -> list[Pair]:
    pairs = []
    for row, following in zip(MATH, (*MATH[1:], MATH[0]), strict=True):
        gold = row[0]
        pairs += [(boxed(answer), gold, True) for answer in row[1:]]
        pairs.append((boxed(following[1]), gold, False))
    return pairs


def gsm8k_pairs(path: Path) -> list[Pair]:
    golds = [json.loads(line)["answer"].rpartition("####")[2].strip() for line in path.read_text().splitlines()]
    shapes: list[Callable[[str], str]] = [
        boxed,
        lambda answer: f"Some work first.\n#### {answer}",
        lambda answer: f"<think>some thought</think><answer>{answer}</answer>",
        lambda answer: boxed(f"\\${answer}.00"),
    ]
    pairs = []
    for i, gold in enumerate(golds):
        other = golds[(i + 1) % len(golds)]
        pairs.append((shapes[i % 4](gold), gold, True))
        pairs.append((shapes[i % 4](other), gold, other.replace(",", "") == gold.replace(",", "")))
    return pairs


def boxed(answer: str) -> str:
    return f"We add both sides and divide. Therefore the answer is $\\boxed{{{answer}}}$."


async def ours(pairs: Sequence[Pair], seconds: float) -> Rate:
    """One verdict after the other; the child of the pool works only while this process waits for it."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    async with KillablePool(1, preload=(SYMBOLIC,), start_timeout_s=300) as pool:

        async def verdict(pair: Pair) -> bool:
            return (await math_verdict.verdict(pair[0], pair[1], pool, deadline_s=30)).status == "correct"

        symbolic = sum(math_verdict.decide(pair[0], pair[1]).status == "needs_symbolic" for pair in pairs)
        return await measure(pairs, verdict, seconds, symbolic / len(pairs))


def plain(pairs: Sequence[Pair], seconds: float) -> Rate:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)

    async def verdict(pair: Pair) -> bool:
        gold = parse(f"$\\boxed{{{pair[1]}}}$", parsing_timeout=None)  # type: ignore[arg-type]
        return verify(gold, parse(pair[0], parsing_timeout=None), timeout_seconds=None)  # type: ignore[arg-type]

    return asyncio.run(measure(pairs, verdict, seconds, 0.0))


async def measure(
    pairs: Sequence[Pair], verdict: Callable[[Pair], Coroutine[Any, Any, bool]], seconds: float, symbolic: float
) -> Rate:
    """Whole passes until the time is up, the first of them, which warms the grammars, not counted."""
    agreed = [await verdict(pair) == pair[2] for pair in pairs]
    spent, judged = 0.0, 0
    while spent < seconds:
        forget()
        began = time.perf_counter()
        for pair in pairs:
            await verdict(pair)
        spent += time.perf_counter() - began
        judged += len(pairs)
    return Rate(judged / spent, sum(agreed) / len(agreed), symbolic)


def forget() -> None:
    """Empty every cache, so that each pass judges anew; within a pass a repeated reference is still read once."""
    math_verdict._proved.clear()
    for cached in (
        math_verdict._compare,
        math_verdict.gold_answer,
        math_read.read,
        math_numbers.plain_number,
        math_spelling.normal,
    ):
        cached.cache_clear()


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--gsm8k", type=Path, default=GSM8K)
    arguments.add_argument("--seconds", type=float, default=5.0)
    given = arguments.parse_args()
    table = Table("set", "verifier", "verdicts/s", "agrees", "symbolic")
    for name, rates in math_bench(given.gsm8k, given.seconds).items():
        for verifier, rate in rates.items():
            table.add_row(name, verifier, f"{rate.per_second:,.0f}", f"{rate.agrees:.1%}", f"{rate.symbolic:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
