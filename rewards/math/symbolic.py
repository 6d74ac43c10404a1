"""The last rung: whether two expressions are equal, by sympy. Runs only in a process that can be killed.

What may get this far is decided here first, by a list of the commands and signs that are let through and by a bound on
the numbers that they stand for. Expressions are read by the parser of the exact rung, and where that does not know the
notation (sums, integrals, limits, floors) by the LaTeX grammar of math-verify. math-verify's own comparison is used for
the algebra of sets alone. For expressions it is not: it calls numbers equal that differ below the sixth decimal, takes
the last of several numbers, and reads what it cannot parse as text.

Expressions are compared by value instead, relative to their size: constants at 50 and at 100 digits, others at random
points for their letters, positive and negative, at 50. sympy's parser of Python expressions, which evaluates its input, is shut meanwhile.
"""

import contextlib
import logging
import math
import random
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from math_verify import verify
from sympy.parsing import sympy_parser

from rewards.math.compare import Decision
from rewards.math.exact import compare_all
from rewards.math.grammar import NotAlgebra, Parser

# It warns whoever turns its alarms off; here the deadline is the pool's.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_DIGITS = (50, 100)
_SPARE_DIGITS = 8
_MIN_POINTS = 2
_MAX_EXTRA = 4000


def equivalent(answers: list[str], reference: str) -> bool:
    """Whether the answers of a response are, together, the reference. What stays open is not equal."""
    return compare_all(tuple(answers), reference, open_case) is True


def open_case(found: str, reference: str) -> Decision:
    """Equality of two expressions in normal spelling; None where it cannot be told."""
    if fault(found) or fault(reference):
        return None
    with _no_evaluation():
        try:
            left, right = _parse(found), _parse(reference)
            if isinstance(left, sympy.Set) or isinstance(right, sympy.Set):
                return bool(verify(right, left, timeout_seconds=None))
            if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
                return None
            return _equal(left, right, _extra_digits(found, reference))
        except MemoryError:
            raise
        # A grammar and an algebra system that were not made for hostile input: whatever they raise is "cannot tell".
        except Exception:  # noqa: BLE001
            return None


_NUMBER_CODE = re.compile(r"\s*(?:Integer|Float) \('?([\d.]+(?:[eE][-+]?\d{1,3})?)'? ?\)\s*")


def _number_only(code: str, *_: object) -> sympy.Rational:
    match = _NUMBER_CODE.fullmatch(code)
    if match is None:
        raise ValueError("nothing is evaluated here")
    # Exact also for decimals: a Float would carry its rounding into every comparison.
    return sympy.Rational(match[1])


@contextlib.contextmanager
def _no_evaluation() -> Iterator[None]:
    """Bars the one door through which sympy turns text into code: it takes the grammar's numbers through it too."""
    kept = sympy_parser.eval_expr
    sympy_parser.eval_expr = _number_only
    try:
        yield
    finally:
        sympy_parser.eval_expr = kept


# --- What may reach sympy


_COMMANDS = frozenset(
    str.split(
        "frac sqrt pi cdot times div binom sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp lfloor rfloor "
        "lceil rceil infty int sum prod lim to sum min max gcd lcm cup cap setminus mathbb emptyset pmod bmod mod ldots "
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau phi varphi "
        "chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega"
    )
)
_SIGNS = re.compile(r"(?:\\[A-Za-z]+|\\[{}|]|[0-9A-Za-z\s+\-*/^_()\[\]{}|!.,=<>%°])*")
_WORD = re.compile(r"\\?[A-Za-z]+")
_PLAIN_FUNCTIONS = re.compile(r"(?<![A-Za-z\\])(sqrt|sin|cos|tan|cot|sec|csc|ln|log|exp|pi)(?![A-Za-z])")
_NUMBER = re.compile(r"\d+")
_MAX_LENGTH = 500
_MAX_NESTING = 24
_MAX_DIGITS = 30
_MAX_EXPONENT = 1000
_MAX_OPERAND = 1000
_COMPUTED = re.compile(r"\{|\d\D*(?:[*!]|cdot|times)|(?:[*!]|cdot|times)\D*\d")
_BOUND = re.compile(r"(\\(?:sum|prod|int)\s*_\s*(?:\{[^{}]*\}|\w)\s*)\^")
_EXPONENT = re.compile(r"\^\s*(?:\{([^{}]*)\}|(-?\d+)|\(([^()]*)\))")


def fault(text: str) -> str:
    """Why an expression must not reach sympy; "" where it may. Linear in the length of the text."""
    if len(text) > _MAX_LENGTH:
        return "too long"
    if not _SIGNS.fullmatch(text):
        return "a sign that no expression has"
    for word in _WORD.findall(text):
        if word[0] == "\\" and word[1:] not in _COMMANDS:
            return f"{word} is not let through"
        if word[0] != "\\" and len(word) > 3 and not _PLAIN_FUNCTIONS.fullmatch(word):
            return f"a word: {word}"
    if _nesting(text) > _MAX_NESTING:
        return "nested too deeply"
    if re.search(r"\d\s*_", text):
        return "a number with a subscript"
    return _size_fault(text)


def _size_fault(text: str) -> str:
    """Powers, factorials, binomials, sums and products of numbers so large that computing them is the attack."""
    numbers = _NUMBER.findall(text)
    if any(len(digits) > _MAX_DIGITS for digits in numbers):
        return "a number too long"
    largest = max(map(int, numbers), default=0)
    grows = re.search(r"!|exp|sinh|cosh|tanh|\\(?:binom|sum|prod|gcd|lcm|int)(?![A-Za-z])|[Gg]amma", text)
    if grows and largest > _MAX_OPERAND:
        return "too large an operand"
    # What stands over a sum is a bound, and has been looked at.
    text = _BOUND.sub(r"\1 ", text)
    exponents = _exponents(text)
    powers = [int(digits) for exponent in exponents for digits in _NUMBER.findall(exponent)]
    if any(power > _MAX_EXPONENT for power in powers):
        return "too large an exponent"
    if re.search(r"!|\\binom(?![A-Za-z])", text) and powers and largest ** max(powers) > _MAX_OPERAND:
        return "too large an operand"
    # A tower, or an exponent that is itself a product or power of numbers, is known only when it is computed.
    bare = re.sub(r"\s", "", text)
    if re.search(r"\^(?:\{[^{}]*\}|\([^()]*\)|\w)\^", bare) or re.search(r"\^[{(][^{}()]*\^", bare) or "!!" in bare:
        return "a tower of powers"
    if len(re.findall(r"\^", bare)) > 24 or bare.count("!") > 8:
        return "too many powers"
    if any(_COMPUTED.search(exponent) for exponent in exponents):
        return "a computed exponent"
    return ""


def _exponents(text: str) -> list[str]:
    return [next(group for group in match.groups() if group is not None) for match in _EXPONENT.finditer(text)]


def _extra_digits(*texts: str) -> int:
    """What the powers in an expression may take from the precision: cos(10^-60) agrees with 1 in 120 digits."""
    extra = 0.0
    for text in texts:
        numbers = [int(digits) for digits in _NUMBER.findall(text)]
        powers = [int(digits) for exponent in _exponents(text) for digits in _NUMBER.findall(exponent)]
        if re.search(r"exp|sinh|cosh|tanh", text):
            powers += numbers
        bases = [int(digits) for digits in re.findall(r"(\d+)[\s)}]*\^", text)]
        extra += 2 * sum(powers) * max(math.log10(max(bases, default=3) or 1), 0.5)
        extra += 2 * sum(len(digits) for digits in _NUMBER.findall(text) if len(digits) > 4)
    return int(extra)


def _nesting(text: str) -> int:
    level = deepest = 0
    for sign in text:
        level += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, level)
    return deepest


# --- Parsing and comparing


_CONVERSION = ConversionConfig(lowercase_symbols=False)


# \\sqrt2 and \\frac12 are whole in LaTeX, but not in this grammar.
_ROOT_OF_GROUP = re.compile(r"\\sqrt\s*\(([^()]*)\)")
_FIRST_ARGUMENT = re.compile(r"(\\(?:sqrt|frac|binom))\s*([0-9A-Za-z])")
_SECOND_ARGUMENT = re.compile(r"(\\(?:frac|binom)\s*\{[^{}]*\})\s*([0-9A-Za-z])")


class _Sympy:
    """What the operations of `rewards.math.grammar.Parser` mean in sympy."""

    def number(self, value: Fraction | int) -> Any:
        return sympy.Rational(value)

    def letter(self, name: str) -> Any:
        return _CONSTANTS[name] if name in _CONSTANTS else sympy.Symbol(name, real=True)

    def power(self, base: Any, exponent: Any) -> Any:
        if exponent.is_Rational and exponent.q % 2 and exponent.q > 1 and base.is_real and not base.is_nonnegative:
            # As in the exact rung, the odd root of a negative number is the real one.
            return sympy.sign(base) ** exponent.p * sympy.Pow(sympy.Abs(base), exponent)
        return sympy.Pow(base, exponent)

    def absolute(self, inside: Any) -> Any:
        return sympy.Abs(inside)

    def factorial(self, value: Any) -> Any:
        return sympy.factorial(value)

    def binomial(self, upper: Any, lower: Any) -> Any:
        return sympy.binomial(upper, lower)

    def function(self, name: str, base: Any, inside: Any) -> Any:
        if name in ("ln", "log"):
            return sympy.log(inside) / (1 if name == "ln" else sympy.log(base if base is not None else 10))
        return getattr(sympy, _NAMES.get(name, name))(inside)


_CONSTANTS = {"\\pi": sympy.pi, "e": sympy.E, "i": sympy.I}
_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}


def _parse(text: str) -> Any:
    """By the same parser as the exact rung, and by the large grammar where that does not know the notation."""
    try:
        return Parser(text, _Sympy()).whole()
    except NotAlgebra:
        return _parse_latex(text)


def _parse_latex(text: str) -> Any:
    latex = _PLAIN_FUNCTIONS.sub(r"\\\1 ", text)
    latex = _ROOT_OF_GROUP.sub(r"\\sqrt{\1}", latex)
    latex = _FIRST_ARGUMENT.sub(r"\1{\2}", latex)
    latex = _SECOND_ARGUMENT.sub(r"\1{\2}", latex)
    parsed = latex2sympy(latex, is_real=True, normalization_config=None, conversion_config=_CONVERSION)
    if not isinstance(parsed, sympy.Basic):
        return None
    names = {symbol.name: symbol for symbol in parsed.free_symbols}
    constants = {names[name]: value for name, value in (("i", sympy.I), ("e", sympy.E)) if name in names}
    return parsed.subs(constants).doit()


def _equal(left: sympy.Expr, right: sympy.Expr, extra: int) -> Decision:
    """Equality of two expressions, to `extra` digits more than the usual ones."""
    if left == right:
        return True
    if left.has(sympy.nan, sympy.zoo) or right.has(sympy.nan, sympy.zoo):
        return False
    if extra > _MAX_EXTRA:
        return None
    letters = sorted(left.free_symbols | right.free_symbols, key=str)
    extra += _digits_of(left, right)
    if extra > _MAX_EXTRA:
        return None
    if not letters:
        return _all_close(left, right, extra)
    is_complex = left.has(sympy.I) or right.has(sympy.I)
    agreed = 0
    for point in _points(letters, left, right):
        decision = _close(left, right, _DIGITS[0] + extra, point, real=not is_complex)
        if decision is False:
            return False
        agreed += decision is True
    return True if agreed >= _MIN_POINTS else None


def _digits_of(*sides: Any) -> int:
    """What the numbers that have been computed may take from the precision: (10^-9)^9 is one of 81 digits."""
    rationals = {number for side in sides for number in side.atoms(sympy.Rational)}
    lengths = [(abs(number.p).bit_length() + number.q.bit_length()) * 0.302 for number in rationals]
    return int(2 * sum(length for length in lengths if length > 4))


_BRANCHING = (sympy.Abs, sympy.sign, sympy.floor, sympy.ceiling, sympy.Max, sympy.Min, sympy.Piecewise, sympy.log)


def _points(letters: list[Any], left: Any, right: Any) -> Iterator[dict[Any, Any]]:
    """Values to try for the letters: all positive, all negative and mixed, since √(x²) is not x.

    Where an expression has branches also beyond its largest number, since |x − 5| is 5 − x only as far as 5.
    """
    draw = random.Random(f"{left} {right}")
    mixed = [draw.choice((1, -1)) for _ in letters]
    tries = [([1] * len(letters), 4), ([-1] * len(letters), 4), (mixed, 4), ([1] * len(letters), 4)]
    roots = (power.exp for side in (left, right) for power in side.atoms(sympy.Pow))
    if left.has(*_BRANCHING) or right.has(*_BRANCHING) or any(not exponent.is_integer for exponent in roots):
        largest = max((abs(number) for side in (left, right) for number in side.atoms(sympy.Rational)), default=1)
        far = max(8, min(math.ceil(4 * largest), 10**6))
        tries += [([1] * len(letters), far), ([-1] * len(letters), far)]
    for signs, size in tries:
        least = 10**5 if size == 4 else size * 10**6 // 2
        yield {
            letter: sign * sympy.Rational(draw.randint(least, size * 10**6), 10**6 + 3)
            for letter, sign in zip(letters, signs, strict=True)
        }


def _all_close(left: Any, right: Any, extra: int) -> Decision:
    """Two constants, at every precision: a decimal with as many right digits as the first one has is still no sine."""
    for digits in (_DIGITS[0], _DIGITS[1] + extra):
        decision = _close(left, right, digits)
        if decision is not True:
            return decision
    return True


def _close(left: Any, right: Any, digits: int, point: dict[Any, Any] | None = None, *, real: bool = False) -> Decision:
    """Two numbers, relative to their size; None where one of them has no value.

    Args:
        point: the values of the letters; not put into the expressions, where sympy would look for roots of them.
        real: the expressions are meant for real values. Where both have none the point is outside of their domain, and
            what complex values they have there is a matter of branches: √(1/n) and 1/√n for n < 0.
    """
    values = [sympy.N(side, digits, subs=point) for side in (left, right)]
    if not all(value.is_number and value.is_finite for value in values):
        return None
    if real and not any(value.is_real for value in values):
        return None
    size = max(abs(value) for value in values)
    tolerance = sympy.Float(10) ** -(digits - _SPARE_DIGITS)
    if size < tolerance:
        # Both vanish, or nearly: only an exact proof tells 0 from a tiny number.
        difference = left - right if point is None else (left - right).subs(point)
        return bool(sympy.simplify(difference) == 0)
    return bool(abs(values[0] - values[1]) <= size * tolerance)


_WARM_UP = (
    (r"\frac{\sin^2(2x)+\ln 4}{\sqrt{3+2\sqrt{2}}}", r"\log_{2}{8}+e^{i\pi}-2\cos^2 x + \tan\frac{\pi}{4}"),
    (r"\sum_{k=1}^{10} k^{2}+\binom{n}{2}|x-1|", r"\lfloor 3.7 \rfloor\cdot x_{1}\times 2^{n+1}-\arctan(1)+5!"),
    (r"\mathbb{R}\setminus\{1\}", r"(-\infty,1)\cup(1,\infty)"),
)


def _warm_up() -> None:
    """The grammar learns its tables from what it reads: half a second that every child would pay, so the zygote does."""
    for left, right in _WARM_UP:
        open_case(left, right)


_warm_up()
