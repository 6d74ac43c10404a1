"""Plain numbers: by far the most frequent answers, read in a microsecond or two."""

import re
from fractions import Fraction
from functools import lru_cache

_THOUSANDS = re.compile(r"\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)")
_MAX_DIGITS = 400
_DECIMAL = re.compile(r"([-+]?) ?(\d*)(?:\.(\d*))?")


@lru_cache(maxsize=8192)
def plain_number(text: str) -> Fraction | int | None:
    """`27`, `-1,234.50`, `1 234`, `3/4` in normal spelling → an exact rational; None for anything else."""
    if text.isdigit() and text.isascii() and len(text) <= _MAX_DIGITS:
        return int(text)
    if not text or len(text) > _MAX_DIGITS or text[0] not in "0123456789-+.":
        return None
    top, slash, bottom = text.partition("/")
    if slash and " " in top.strip():
        return None  # 2 191/500 is a mixed fraction
    numerator = _decimal(top.strip())
    if not slash or numerator is None:
        return numerator
    denominator = _decimal(bottom.strip())
    return Fraction(numerator) / denominator if denominator else None


def _decimal(text: str) -> Fraction | int | None:
    body = text.lstrip("+-").lstrip()
    if "," in body or " " in body:
        whole = body.partition(".")[0]
        if not _THOUSANDS.fullmatch(whole):
            return None
        text = text[: len(text) - len(body)] + body.replace(",", "").replace(" ", "")
    match = _DECIMAL.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    part = match[3] or ""
    value: Fraction | int = int(match[2] or 0)
    if part:
        value = Fraction(int((match[2] or "0") + part), 10 ** len(part))
    return -value if match[1] == "-" else value
