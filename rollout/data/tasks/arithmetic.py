"""Additions, worked column by column: `27+48=` → `<think>7+8=15,2+4+1=7</think><answer>75</answer>`.

A chain of thought carries from the units upwards, as on paper; the answer then has to be read off the columns in
reverse, which is the part that a model stopped early in training gets wrong.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Literal, cast

import numpy as np

from rollout.data.tasks import rows
from rollout.data.tasks.rows import Options, TaskOptions, TaskRow

Style = Literal["worked", "mixed"]


def arithmetic_rows(split: str, seed: int, limit: int, options: TaskOptions) -> Iterator[TaskRow]:
    """Distinct additions of two numbers with `digits` digits each, in random order.

    Options:
        digits: digits of each summand (default 2).
        style: `worked` (the R1 form, default) or `mixed` (bare answers, bare chains, half of the tags, and the full
            form for one row in eight: text such as a base model has read, for R1-Zero).
        shown: share of `worked` completions that write their working out (default 1); the others only repeat the
            problem between the think tags and answer at once, as one who takes it for easy.
        count: number of problems when `limit` is 0 (default 20,000, or all when there are fewer).

    The held-out problems are the same for every seed, so that runs can be compared.
    """
    digits, style, shown, count = _parse(options)
    rng = np.random.default_rng([seed if split == "train" else 0, digits])
    problems = (pair for pair in _pairs(digits, rng) if is_held_out(*pair) == (split == "held-out"))
    for a, b in islice(problems, limit or count):
        yield TaskRow(f"{a}+{b}", f"{a}+{b}=", str(a + b), _completion(a, b, style, shown, rng))


def _pairs(digits: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Distinct pairs of numbers with `digits` digits, in random order."""
    low = 10 ** (digits - 1)
    width = 9 * low
    if width * width <= 1 << 20:
        for i in rng.permutation(width * width).tolist():
            yield low + i // width, low + i % width
        return
    seen: set[tuple[int, int]] = set()
    while True:
        for a, b in rng.integers(low, low + width, size=(1024, 2)).tolist():
            if (a, b) not in seen:
                seen.add((a, b))
                yield a, b


def is_held_out(a: int, b: int) -> bool:
    """Whether a + b is held out. Symmetric, so that b + a does not give the answer away."""
    return rows.is_held_out(f"{min(a, b)}+{max(a, b)}")


def chain_of_thought(a: int, b: int) -> str:
    """Column sums from the units upwards: 27 + 48 → `7+8=15,2+4+1=7`."""
    columns, carry = [], 0
    while a or b:
        total = a % 10 + b % 10 + carry
        columns.append(f"{a % 10}+{b % 10}{'+1' if carry else ''}={total}")
        carry, a, b = total // 10, a // 10, b // 10
    return ",".join(columns)


def _completion(a: int, b: int, style: Style, shown: float, rng: np.random.Generator) -> str:
    thought, answer = chain_of_thought(a, b), str(a + b)
    if style == "worked":
        return f"<think>{thought if rng.random() < shown else f'{a}+{b}'}</think><answer>{answer}</answer>"
    worked = f"<think>{thought}</think><answer>{answer}</answer>"
    forms = (
        worked,
        answer,
        f"<answer>{answer}</answer>",
        f"{thought};{answer}",
        f"{thought};{answer}",
        f"<think>{thought}</think>{answer}",
        f"<think>{thought}</think>{answer}",
        f"{thought}<answer>{answer}</answer>",
    )
    return forms[int(rng.integers(len(forms)))]


def _parse(given: TaskOptions) -> tuple[int, Style, float, int]:
    options = Options("arithmetic", given)
    options.check_names("count", "digits", "shown", "style")
    style = cast(Style, options.one_of("style", "worked", ("worked", "mixed")))
    return options.whole("digits", 2, 1, 9), style, options.share("shown", 1.0), options.whole("count", 20_000, 1)
