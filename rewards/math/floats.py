"""The value of an expression in floats."""

import math
from fractions import Fraction
from typing import Any

from rewards.math.algebra import MAX_FACTORIAL, Exact, binomial, number, renew_work
from rewards.math.grammar import NotAlgebra, Parser

_CONSTANTS = {"\\pi": math.pi, "e": math.e}
_RECIPROCALS = {"cot": math.tan, "sec": math.cos, "csc": math.sin}
_FLOAT_FUNCTIONS = {
    **{name: getattr(math, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "arcsin": math.asin, "arccos": math.acos, "arctan": math.atan,
}  # fmt: skip


def approximate(text: str) -> float | None:
    """The value of an expression as a float; None where it has letters, or no such value."""
    renew_work()
    try:
        value = Parser(text, _Floats()).whole()
    except (NotAlgebra, ArithmeticError, ValueError):
        return None
    return value if isinstance(value, float) and math.isfinite(value) else None


class _Floats(Exact):
    """What the parser's operations mean in floats."""

    def number(self, value: Fraction | int) -> Any:
        return float(value)

    def letter(self, name: str) -> Any:
        if name not in _CONSTANTS:
            raise NotAlgebra(name)
        return _CONSTANTS[name]

    def power(self, base: Any, exponent: Any) -> Any:
        return math.pow(base, exponent)

    def absolute(self, inside: Any) -> Any:
        return abs(inside)

    def factorial(self, value: Any) -> Any:
        if not value.is_integer() or not 0 <= value <= MAX_FACTORIAL:
            raise NotAlgebra("no such factorial")
        return float(math.factorial(int(value)))

    def binomial(self, upper: Any, lower: Any) -> Any:
        return float(binomial(number(Fraction(upper)), number(Fraction(lower))).num.get((), 0))

    def function(self, name: str, base: Any, inside: Any) -> Any:
        if name in ("ln", "log"):
            return math.log(inside) / (1.0 if name == "ln" else math.log(10.0 if base is None else base))
        if name in _RECIPROCALS:
            return 1.0 / _RECIPROCALS[name](inside)
        return _FLOAT_FUNCTIONS[name](inside)
