"""Repetition: how much of a completion says again what it has said before.

The share of repeated n-grams is the measure behind the repetition penalty of Yeo et al. (arXiv:2502.03373, algorithm 1),
taken over words, numbers and symbols in place of a tokenizer's tokens. A loop is the same stretch at least three times
in a row, of whatever length.
"""

import re
from typing import NamedTuple

from rollout.errors import InputError

_UNIT = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"  # a character of a script without word spaces
    r"|[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{1,24}+"  # a word; a longer one in pieces
    r"|\d{1,24}+"
    r"|([^\w\s])\1{0,79}+"  # a ruled line is one symbol
    r"|_{1,80}+|\s{24}"  # blanks count only in masses
)
_BASE, _PRIME = 1_000_003, (1 << 61) - 1


def repetition(
    prompt: str, completion: str, reference: str = "", *, n: int = 20, free: float = 0.1
) -> dict[str, float]:
    """How fresh a text is, in [0, 1]: 1.0 when hardly anything repeats, 0.0 when all of it does.

        value = 1 − max(0, (max(repeated, loop) − free) / (1 − free))

    Linear in the length of the text.

    Args:
        prompt: not used.
        completion: the text that is scored, thought and reply.
        reference: not used.
        n: length of the n-grams, in words, numbers and symbols. Checks and summaries share short phrases with what
            they check; twenty units in the same order are a copy.
        free: the share that costs nothing; in [0, 1).

    Returns:
        `value`; `repeated`: share of the n-grams that stood in the text before; `loop`: share of the text that loops.

    Raises:
        InputError: `n` or `free` is out of its range.
    """
    if n < 1 or not 0 <= free < 1:
        raise InputError(f"repetition: n = {n}, free = {free:g}: n is at least 1, free is 0 or more and below 1")
    units = [match.group() for match in _UNIT.finditer(completion)]
    shares = _shares(units, n)
    worst = max(shares.repeated, shares.loop)
    return {
        "value": 1.0 - max(0.0, (worst - free) / (1.0 - free)),
        "repeated": shares.repeated,
        "loop": shares.loop,
    }


class _Shares(NamedTuple):
    repeated: float
    loop: float


def _shares(units: list[str], n: int) -> _Shares:
    grams = len(units) - n + 1
    if grams < 1:
        return _Shares(0.0, 0.0)
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(unit, len(numbers) + 1) for unit in units]
    out = pow(_BASE, n - 1, _PRIME)
    last: dict[int, int] = {}
    repeated = looping = run = period = 0
    value = 0
    for i, code in enumerate(codes):
        # A rolling hash: the n-gram that ends here, in constant time.
        if i >= n:
            value -= codes[i - n] * out
        value = (value * _BASE + code) % _PRIME
        if i < n - 1:
            continue
        before = last.get(value)
        last[value] = i
        repeated += before is not None
        if before is not None and i - before == period:
            run += 1
            continue
        looping += _loop(run, period, n)
        run, period = (0, 0) if before is None else (1, i - before)
    looping += _loop(run, period, n)
    return _Shares(repeated / grams, min(1.0, looping / len(units)))


def _loop(run: int, period: int, n: int) -> int:
    """Units in a stretch of which `run` n-grams in a row stood `period` units before; 0 when it is no loop."""
    length = run + n - 1 + period
    return length if run and length >= 3 * period else 0
