"""Runs inside the sandbox: an input on which a mutant of a function differs from the original, if one turns up.

Reads JSON (`original`, `mutant`, `test`, `entry_point`) and prints JSON: `[arguments, original's answer, mutant's]` as
text, or null. Inputs are those of the test and what random changes make of them; where the original raises or takes long
the input is outside what it is for, and does not count.
"""

import contextlib
import copy
import json
import random
import signal
import time
from collections.abc import Callable
from typing import Any

SECONDS = 4.0
ORIGINAL_S, MUTANT_S = 0.05, 1.0
"""An input that takes the original longer is left out; a mutant that takes so much longer has no end."""


class TooLong(BaseException):
    pass


def ring(*_: object) -> None:
    raise TooLong


def answer(function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> str:
    """What it returns and leaves in its arguments, as text; the type of what it raises; `no end` after CPU seconds."""
    own = copy.deepcopy(arguments)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        try:
            returned = function(*own)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return f"{returned!r}" + ("" if own == arguments else f" and {own!r}")
    except TooLong:
        return "no end"
    except Exception as problem:  # noqa: BLE001 - any of them is an answer
        return f"raises {type(problem).__name__}"


def inputs_of(original: Callable[..., Any], test: str) -> list[tuple[Any, ...]]:
    seen: list[tuple[Any, ...]] = []

    def recorder(*arguments: Any) -> Any:
        seen.append(copy.deepcopy(arguments))
        return original(*arguments)

    namespace: dict[str, Any] = {}
    exec(test, namespace)
    with contextlib.suppress(
        AssertionError, NameError
    ):  # some tests use helpers of the prompt: the first inputs will do
        namespace["check"](recorder)
    return seen


def changed(value: Any) -> Any:
    """Like `value`, but different in a small way, of the same type."""
    pick = random.random
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice([value + 1, value - 1, -value, 0, 1, 2, value * 2, value // 2, random.randint(-20, 120)])
    if isinstance(value, float):
        return random.choice([value + 1, value - 0.5, -value, 0.0, value * 2, round(value), random.uniform(-9, 9)])
    if isinstance(value, str):
        at = random.randint(0, len(value))
        letter = random.choice((value or "a") + "aZ 0e(.,-" + "".join(sorted(set(value))))
        cut = at + random.randint(0, 2)
        return random.choice(
            [value[:at] + letter + value[at:], value[:at] + value[cut:], value[::-1], "", value + value]
        )
    if isinstance(value, list | tuple):
        items = list(value)
        if items and pick() < 0.5:
            at = random.randrange(len(items))
            items[at] = changed(items[at])
        else:
            at = random.randint(0, len(items))
            items = random.choice(
                [
                    items[:at] + items[at + 1 :],
                    items[:at] + items[at - 1 : at] + items[at:],
                    items[::-1],
                    [],
                    items + items,
                ]
            )
            random.shuffle(items) if pick() < 0.2 else None
        return type(value)(items)
    if isinstance(value, dict):
        pairs = [(changed(k) if pick() < 0.3 else k, changed(v) if pick() < 0.3 else v) for k, v in value.items()]
        return dict(pairs[: random.randint(0, len(pairs))] if pick() < 0.3 else pairs)
    return value


def seek(original: Callable[..., Any], mutant: Callable[..., Any], inputs: list[tuple[Any, ...]]) -> list[str] | None:
    end = time.monotonic() + SECONDS
    small = [tuple(0 if isinstance(v, int) else v for v in inputs[0])] if inputs else []
    waiting = [*inputs, *small]
    while time.monotonic() < end and waiting:
        arguments = waiting.pop(0)
        first = answer(original, arguments, ORIGINAL_S)
        if not first.startswith(("raises", "no end")):
            second = answer(mutant, arguments, MUTANT_S)
            if first != second and len(repr(arguments)) < 2000:
                return [repr(arguments), first, second]
        while inputs and len(waiting) < 2:
            variant = random.choice(inputs)
            for _ in range(random.randint(1, 4)):
                at = random.randrange(len(variant)) if variant else 0
                variant = tuple(changed(v) if i == at else v for i, v in enumerate(variant))
            waiting.append(variant)
    return None


def main() -> None:
    order = json.loads(input())
    signal.signal(signal.SIGVTALRM, ring)
    functions = []
    for name in ("original", "mutant"):
        namespace: dict[str, Any] = {}
        exec(order[name], namespace)
        functions.append(namespace[order["entry_point"]])
    print(json.dumps(seek(functions[0], functions[1], inputs_of(functions[0], order["test"]))))


main()
