"""The final answer of a completion, and whether it equals the reference.

The answer is what stands in the last `<answer>…</answer>`; failing that, in the last `\\boxed{…}`; failing that, behind
the last `####`; and, where a reply holds none of these, its last line. All are sought outside the thinking part. Numbers
are compared as exact rationals (separators, percent, currency signs and fractions understood), other text as normalised
strings. Nothing is evaluated.
"""

import re
from fractions import Fraction

_NUMBER = re.compile(r"[-+]?\$?\s?(\d{1,3}(?:,\d{3})+|\d+)?(?:\.(\d+))?")
_MAX_DIGITS = 400
"""Longer digit strings are compared as text: exact arithmetic on them would cost more than an answer is worth."""


def accuracy_reward(completion: str, answer: str) -> float:
    """1.0 when the completion's final answer equals the reference, else 0.0."""
    found = final_answer(completion)
    return 1.0 if found is not None and same_answer(found, answer) else 0.0


def final_answer(completion: str) -> str | None:
    """The answer that a completion commits itself to; None when it gives none. Linear in its length."""
    _, closed, after = completion.rpartition("</think>")
    reply = after if closed else completion
    for find in (_tagged, _boxed, _marked):
        found = find(reply)
        if found is not None:
            return found.strip() or None
    lines = reply.strip().splitlines()
    return lines[-1].strip() if lines else None


def same_answer(found: str, reference: str) -> bool:
    """Equal as numbers where both are numbers, else equal as text without case and outer punctuation."""
    left, right = parse_number(found), parse_number(reference)
    if left is not None and right is not None:
        return left == right
    return normal_text(found) == normal_text(reference)


def parse_number(text: str) -> Fraction | None:
    """`1,234.50`, `$12`, `-3/4`, `75%` (as 75), `75 .` → an exact rational; None for anything else."""
    text = text.strip().strip("$").rstrip(".").removesuffix("%").removesuffix("\\").strip()
    if len(text) > _MAX_DIGITS:
        return None
    numerator, slash, denominator = text.partition("/")
    top = _decimal(numerator.strip())
    if not slash:
        return top
    bottom = _decimal(denominator.strip())
    return top / bottom if top is not None and bottom else None


def _decimal(text: str) -> Fraction | None:
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        return None
    whole, part = (match[1] or "0").replace(",", ""), match[2] or ""
    value = Fraction(int(whole + part), 10 ** len(part))
    return -value if text.startswith("-") else value


def _tagged(reply: str) -> str | None:
    start = reply.rfind("<answer>")
    end = reply.find("</answer>", start)
    return None if start < 0 or end < 0 else reply[start + len("<answer>") : end]


def _boxed(reply: str) -> str | None:
    start = reply.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for i in range(begin, len(reply)):
        depth += {"{": 1, "}": -1}.get(reply[i], 0)
        if depth == 0:
            return reply[begin:i]
    return None


def _marked(reply: str) -> str | None:
    _, marker, after = reply.rpartition("####")
    return after.strip().split("\n")[0] if marker else None


def normal_text(text: str) -> str:
    """Text answers are compared without case, outer punctuation and runs of white space."""
    return " ".join(text.lower().strip(" .,;:!$").split())
