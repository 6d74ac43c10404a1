"""What may stand before an = as the name of what was computed: x, f(x), \\angle ABC, a few words."""

import re

from rewards.math.units import is_doubt

_SUB = r"(?:\s*_\s*(?:\{[A-Za-z0-9, ]{1,12}\}|[A-Za-z0-9]|\{?\s*(?:\\(?:max|min)|\\text\s*\{[A-Za-z ]{1,20}\})\s*\}?))?"
_ARGUMENTS = r"(?:\s*\((?:[^()]|\([^()]{1,20}\)){1,40}\))"
_COUNT = r"(?:[_^]\s*\{?\s*\d{1,4}\s*\}?\s*)"
_NAME = re.compile(
    r"(?:m?\s*\\(?:angle|triangle|overline|vec|hat|text|m|measuredangle|det|dim|mathbb|Pr)\s*)*"
    r"\{?\s*(?:\\[A-Za-z]+|[A-Za-z]{1,3}|[A-Za-z ]{4,30})'?\s*\}?"
    rf"{_SUB}(?:\s*\^\s*\{{\s*-1\s*\}}(?={_ARGUMENTS}))?{_ARGUMENTS}?"
    # |AB|, a norm, the inverse of a matrix, a derivative, a number of choices
    r"|\|\s*(?:[A-Z][A-Za-z]?|\\(?:vec|text|overline)\s*\{[A-Za-z]{1,3}\})\s*\|"
    r"|\\(?:\||lVert)\s*(?:\\(?:vec|text)\s*\{)?[A-Za-z]{1,3}\}?\s*\\(?:\||rVert)"
    r"|(?:\\text\s*\{)?[A-Z]\}?\s*\^\s*(?:\{\s*(?:-1|T)\s*\}|T)"
    r"|\\frac\s*\{\s*d\^?2?\s*[A-Za-z]?\s*\}\s*\{\s*d\s*[A-Za-z](?:\^2)?\s*\}"
    rf"|{_COUNT}?[CP]\s*{_COUNT}{{1,2}}|{_COUNT}[CP]"
)
_TUPLE_NAME = re.compile(r"\(\s*(?:\\?[A-Za-z]+(?:_\{?\d\}?)?\s*,\s*){1,5}\\?[A-Za-z]+(?:_\{?\d\}?)?\s*\)")


def is_name(text: str) -> bool:
    """Whether it names what was computed; `not x` does not, and `(y, x)` only would where its order is usual."""
    if _TUPLE_NAME.fullmatch(text):
        letters = [each.strip() for each in text[1:-1].split(",")]
        return "\\" in text or letters == sorted(letters)
    return _NAME.fullmatch(text) is not None and not is_doubt(text)


def name_of(text: str) -> str:
    """The name of what was computed, without spaces and braces: `f(x)`, `\\angle ABC`, `x_1`."""
    return re.sub(r"\\text|[\s{}\\]", "", text)
