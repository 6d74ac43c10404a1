"""Exact arithmetic on what most answers are made of, as a canonical form that decides equality without sympy.

A `Ratio` is a quotient of two sums of terms. A term is a rational times a product of powers of atoms: letters, π, e, the
imaginary unit, and primes with exponents in (0, 1), which is how roots of rationals are held: √12 = 2·3^(1/2). Products
of such prime powers are linearly independent over the rationals (Besicovitch 1940), so that two numbers of this kind are
equal exactly when their terms are. Quotients are compared by cross-multiplication.

What the form does not understand (a sine, a logarithm, a power with a variable exponent, the root of a sum) is an opaque
atom, named by its canonical content: two results with equal terms are still equal, but unequal terms prove nothing.

Nothing grows without bound: sizes are checked before they are computed, and `NotAlgebra` is raised instead.
"""

import math
import re
import threading
from fractions import Fraction
from math import comb, factorial, isqrt
from typing import Any

Mono = tuple[tuple[str, Fraction | int], ...]
"""Product of powers, sorted by atom; () is 1."""
Poly = dict[Mono, Fraction]
"""Sum of terms, none of them zero; {} is 0."""

_MAX_BITS = 8192
"""Of a number: 7^2023 has 5,680."""
_MAX_TERMS = 200
_MAX_NAME = 2000
_MAX_WORK = 2000
"""Products of two terms in one expression."""
_MAX_POWER = 32
_MAX_NESTING = 40
_MAX_FACTORIAL = 200
_PRIMES = [p for p in range(2, 1000) if all(p % q for q in range(2, isqrt(p) + 1))]
_I = "i"
_OPAQUE = "?"
_POSITIVE = frozenset(("e", "\\pi"))
_work = threading.local()


class NotAlgebra(ValueError):
    """The text is no expression of this kind, or too large a one."""


class Ratio:
    """numerator / denominator, of canonical sums."""

    __slots__ = ("den", "num")

    def __init__(self, num: Poly, den: Poly | None = None) -> None:
        """Raises NotAlgebra for a zero denominator."""
        den = _ONE if den is None else den
        if not den:
            raise NotAlgebra("division by zero")
        if len(den) == 1 and den is not _ONE:
            # One term is a unit, and goes to the other side.
            num, den = _multiply(num, _reciprocal(den)), _ONE
        self.num, self.den = num, den

    def __add__(self, other: "Ratio") -> "Ratio":
        if self.den == other.den:
            return Ratio(_add(self.num, other.num), self.den)
        return Ratio(
            _add(_multiply(self.num, other.den), _multiply(other.num, self.den)), _multiply(self.den, other.den)
        )

    def __neg__(self) -> "Ratio":
        return Ratio({mono: -value for mono, value in self.num.items()}, self.den)

    def __mul__(self, other: "Ratio") -> "Ratio":
        return Ratio(_multiply(self.num, other.num), _multiply(self.den, other.den))

    def __truediv__(self, other: "Ratio") -> "Ratio":
        return Ratio(_multiply(self.num, other.den), _multiply(self.den, other.num))

    def equals(self, other: "Ratio") -> bool | None:
        """Exact; None where opaque atoms, or the size, leave it open."""
        try:
            return self._equals(other)
        except NotAlgebra:
            return None

    def _equals(self, other: "Ratio") -> bool | None:
        _work.left = _MAX_WORK
        if _multiply(self.num, other.den) == _multiply(other.num, self.den):
            return True
        return None if self.is_opaque or other.is_opaque else False

    @property
    def is_opaque(self) -> bool:
        return any(atom[0] == _OPAQUE for poly in (self.num, self.den) for mono in poly for atom, _ in mono)

    @property
    def is_zero(self) -> bool:
        return not self.num

    @property
    def rational(self) -> Fraction | None:
        """Its value where it is a rational number."""
        if self.den != _ONE or any(mono for mono in self.num):
            return None
        return self.num.get((), Fraction(0))

    @property
    def key(self) -> str:
        """A name of the content: equal names, equal values."""
        return f"{sorted(self.num.items())}/{sorted(self.den.items())}"

    @property
    def symbol(self) -> str | None:
        """The letter, where it is nothing but one."""
        if self.den != _ONE or len(self.num) != 1:
            return None
        ((mono, value),) = self.num.items()
        is_letter = value == 1 and len(mono) == 1 and mono[0][1] == 1 and mono[0][0][0] not in (_OPAQUE, "#")
        return mono[0][0] if is_letter and mono[0][0] not in ("\\pi", "e", _I) else None

    @property
    def is_constant(self) -> bool:
        """Free of letters and of opaque atoms."""
        fixed = (*_POSITIVE, _I)
        return all(
            atom[0] == "#" or atom in fixed for poly in (self.num, self.den) for mono in poly for atom, _ in mono
        )

    @property
    def num_letters(self) -> int:
        """Of different letters in it."""
        atoms = {atom for poly in (self.num, self.den) for mono in poly for atom, _ in mono}
        return len([atom for atom in atoms if atom[0] not in ("#", _OPAQUE) and atom not in (*_POSITIVE, _I)])

    def quotient(self, other: "Ratio") -> Fraction | None:
        """The rational r with self = r · other; None where there is none, or either is zero."""
        _work.left = _MAX_WORK
        left, right = _multiply(self.num, other.den), _multiply(other.num, self.den)
        if not left or left.keys() != right.keys():
            return None
        first = next(iter(left))
        factor = left[first] / right[first]
        return factor if all(left[mono] == factor * right[mono] for mono in left) else None


def number(value: Fraction | int) -> Ratio:
    return Ratio({(): Fraction(value)} if value else {})


def atom(name: str) -> Ratio:
    return Ratio({((name, 1),): Fraction(1)})


def _opaque(content: str) -> Ratio:
    if len(content) > _MAX_NAME:
        raise NotAlgebra("too much under a function")
    return atom(_OPAQUE + content)


_ONE: Poly = {(): Fraction(1)}


def _add(left: Poly, right: Poly) -> Poly:
    total = dict(left)
    for mono, value in right.items():
        summed = total.get(mono, 0) + value
        if summed:
            total[mono] = summed
        else:
            total.pop(mono, None)
    if len(total) > _MAX_TERMS:
        raise NotAlgebra("too many terms")
    return total


def _multiply(left: Poly, right: Poly) -> Poly:
    if left == _ONE:
        return right
    if right == _ONE:
        return left
    _work.left = getattr(_work, "left", _MAX_WORK) - len(left) * len(right)
    if _work.left < 0:
        raise NotAlgebra("too much work")
    total: Poly = {}
    for mono_a, value_a in left.items():
        for mono_b, value_b in right.items():
            value, mono = _product(mono_a, mono_b)
            value *= value_a * value_b
            if value.numerator.bit_length() + value.denominator.bit_length() > _MAX_BITS:
                raise NotAlgebra("too large a number")
            summed = total.get(mono, 0) + value
            if summed:
                total[mono] = summed
            else:
                total.pop(mono, None)
    if len(total) > _MAX_TERMS:
        raise NotAlgebra("too many terms")
    return total


def _product(left: Mono, right: Mono) -> tuple[Fraction, Mono]:
    if not left or not right:
        return Fraction(1), left or right
    powers = dict(left)
    for name, exponent in right:
        powers[name] = powers.get(name, 0) + exponent
    return _canonical(powers)


def _canonical(powers: dict[str, Fraction | int]) -> tuple[Fraction, Mono]:
    """Whole powers of primes, and even ones of the imaginary unit, leave the product."""
    value = Fraction(1)
    kept = []
    for name, exponent in powers.items():
        if name[0] == "#":
            whole = exponent.numerator // exponent.denominator
            if abs(whole) * int(name[1:]).bit_length() > _MAX_BITS:
                raise NotAlgebra("too large a power")
            value *= Fraction(int(name[1:])) ** whole
            exponent -= whole
        elif name == _I:
            if exponent % 4 >= 2:
                value = -value
            exponent %= 2
        if exponent:
            kept.append((name, exponent))
    kept.sort()
    return value, tuple(kept)


def _reciprocal(single: Poly) -> Poly:
    ((mono, value),) = single.items()
    factor, inverse = _canonical({name: -exponent for name, exponent in mono})
    return {inverse: factor / value}


def power(base: Ratio, exponent: Ratio) -> Ratio:
    """base ** exponent; opaque where the form cannot hold it."""
    degree = exponent.rational
    if degree is None:
        return _opaque(f"pow({base.key},{exponent.key})")
    if degree.denominator == 1:
        return _whole_power(base, int(degree))
    root = _root(base, degree)
    return root if root is not None else _opaque(f"pow({base.key},{degree})")


def _whole_power(base: Ratio, degree: int) -> Ratio:
    if degree < 0:
        base, degree = number(1) / base, -degree
    if degree == 0 and base.is_zero:
        raise NotAlgebra("0^0")
    size = max((v.numerator.bit_length() + v.denominator.bit_length() for v in base.num.values()), default=0)
    is_sum = len(base.num) > 1 or len(base.den) > 1
    if (is_sum and degree > _MAX_POWER) or (size - 2) * degree > _MAX_BITS:
        raise NotAlgebra("too large a power")
    result = number(1)
    while degree:
        if degree & 1:
            result = result * base
        degree >>= 1
        if degree:
            base = base * base
    return result


def _root(base: Ratio, degree: Fraction) -> Ratio | None:
    """base ** degree for one term, positive or with an odd root, or a single letter; None where it is neither."""
    if base.is_zero:
        return base if degree > 0 else None
    if base.den != _ONE or len(base.num) != 1:
        return None
    ((mono, value),) = base.num.items()
    if value < 0 and degree == Fraction(1, 2):
        inner = _root(-base, degree)
        return inner * atom(_I) if inner is not None and not mono else None
    if value < 0 and degree.denominator % 2:
        # The odd root of a negative number is meant to be the real one.
        inner = _root(-base, degree)
        return inner if inner is None or degree.numerator % 2 == 0 else -inner
    letters = [(name, exponent) for name, exponent in mono if name[0] != "#" and name not in _POSITIVE]
    # √(x²) is |x| and √(xy) not always √x·√y: of letters only a single one, to the first power, is taken.
    if value <= 0 or len(letters) > 1 or (letters and (letters[0][1] != 1 or letters[0][0][0] == _OPAQUE)):
        return None
    if letters and letters[0][0] == _I:
        return None
    powers: dict[str, Fraction | int] = {name: exponent * degree for name, exponent in mono}
    for whole, sign in ((value.numerator, 1), (value.denominator, -1)):
        for prime, count in _factors(whole).items():
            name = f"#{prime}"
            powers[name] = powers.get(name, 0) + sign * count * degree
    factor, result = _canonical(powers)
    return Ratio({result: factor})


def _factors(whole: int) -> dict[int, int]:
    """Raises NotAlgebra for a number that small primes do not factor."""
    found: dict[int, int] = {}
    for prime in _PRIMES:
        if prime * prime > whole:
            break
        while whole % prime == 0:
            whole //= prime
            found[prime] = found.get(prime, 0) + 1
    if whole > 1:
        # Without a divisor below 1,000 it is prime, or the square of a prime, up to a million.
        count, last = (2, isqrt(whole)) if isqrt(whole) ** 2 == whole else (1, whole)
        if last >= 1_000_000:
            raise NotAlgebra("too large a number under a root")
        found[last] = found.get(last, 0) + count
    return found


# --- From text


_FUNCTIONS = frozenset(str.split("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp"))
_GREEK = frozenset(
    str.split(
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau phi "
        "varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell"
    )
)
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<mixed>\d{1,9}\s+\d{1,9}\s*/\s*\d{1,9}(?![\d.^]))|"
    r"(?P<repeating>\d*\.\d*\\overline\s*\{\d{1,30}\})|"
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4}(?![\d.A-Za-z]))?)|"
    r"(?P<command>\\[A-Za-z]+)|"
    r"(?P<word>[A-Za-z]+)|"
    r"(?P<sign>[-+*/^()\[\]{}!|_°])"
    r")"
)
_SPLITTING = ("\\over", "\\choose")
_BRACED_NUMBER = re.compile(r"\s*\.?\d")
_GROUPS = {"(": ")", "[": "]", "{": "}"}
_SUBSCRIPT = re.compile(r"\s*_\s*(?:\{\s*([A-Za-z0-9]{1,12})\s*\}|([A-Za-z0-9]))")
_INVERSE = re.compile(r"\s*\{?\s*-\s*1")
_DIGIT = re.compile(r"\s*([A-Za-z0-9])")
_WHOLE_FRACTION = re.compile(r"\s*\\frac\s*(?:\{\s*(\d{1,9})\s*\}|(\d))\s*(?:\{\s*(\d{1,9})\s*\}|(\d))(?!\s*\^)")


def parse(text: str) -> Ratio:
    """The value of an expression in normal spelling (`rewards.math_text.normal`).

    Raises:
        NotAlgebra: it is none, or too large.
    """
    _work.left = _MAX_WORK
    value: Ratio = Parser(text, Exact()).whole()
    return value


class Exact:
    """What the parser's operations mean here. `rewards.math_symbolic` has the same ones for sympy's expressions."""

    def number(self, value: Fraction | int) -> Ratio:
        return number(value)

    def letter(self, name: str) -> Ratio:
        return atom(name)

    def power(self, base: Ratio, exponent: Ratio) -> Ratio:
        return power(base, exponent)

    def absolute(self, inside: Ratio) -> Ratio:
        value = inside.rational
        return number(abs(value)) if value is not None else _opaque(f"abs({inside.key})")

    def factorial(self, value: Ratio) -> Ratio:
        return _factorial(value)

    def binomial(self, upper: Ratio, lower: Ratio) -> Ratio:
        return _binomial(upper, lower)

    def function(self, name: str, base: Ratio | None, inside: Ratio) -> Ratio:
        return _opaque(f"{name}{base.key if base else ''}({inside.key})")


class Parser:
    """Recursive descent over the text itself: LaTeX splits `\\frac12` where no token ends.

    Values are only ever made by the operations that it is given, and by + − × ÷ on what those return.
    """

    def __init__(self, text: str, operations: Any) -> None:
        self._text = text
        self._make = operations
        self._at = 0
        self._depth = 0
        self._in_function = 0

    def whole(self) -> Any:
        value = self._sum()
        if self._text[self._at :].strip():
            raise NotAlgebra("something is left over")
        return value

    def _peek(self) -> re.Match[str] | None:
        return _TOKEN.match(self._text, self._at)

    def _take(self, sign: str) -> bool:
        match = self._peek()
        if match is None or match["sign"] != sign:
            return False
        self._at = match.end()
        return True

    def _sum(self) -> Any:
        self._depth += 1
        if self._depth > _MAX_NESTING:
            raise NotAlgebra("nested too deeply")
        minus = self._take("-")
        if not minus:
            self._take("+")
        value = self._term()
        if minus:
            value = -value
        while True:
            if self._take("+"):
                value = value + self._term()
            elif self._take("-"):
                value = value + -self._term()
            else:
                break
        self._depth -= 1
        return self._split_group(value)

    def _split_group(self, above: Any) -> Any:
        """{a \\over b} and {n \\choose k}: what stands before and after the command in its group."""
        match = self._peek()
        if match is None or match["command"] not in _SPLITTING:
            return above
        self._at = match.end()
        below = self._sum()
        return above / below if match["command"] == "\\over" else self._make.binomial(above, below)

    def _term(self) -> Any:
        value, was_number = self._factor(first=True)
        while (match := self._peek()) is not None:
            sign, command = match["sign"], match["command"]
            if sign in ("*", "/") or command in ("\\cdot", "\\times", "\\div"):
                self._at = match.end()
                minus = self._take("-")
                factor, was_number = self._factor()
                factor = -factor if minus else factor
                value = value / factor if sign == "/" or command == "\\div" else value * factor
            elif sign in ("(", "[", "{") or match["word"] or command or match["number"] or match["repeating"]:
                is_number = bool(match["number"] or match["repeating"])
                if was_number and (is_number or (sign == "{" and _BRACED_NUMBER.match(self._text, match.end()))):
                    raise NotAlgebra("two numbers side by side")
                if command is not None and not self._is_operand(command):
                    break
                factor, was_number = self._factor()
                value = value * factor
            else:
                break
        return value

    @staticmethod
    def _is_operand(command: str) -> bool:
        return command not in ("\\rfloor", "\\rceil", "\\rangle", *_SPLITTING)

    def _factor(self, first: bool = False) -> tuple[Any, bool]:
        value, is_number = self._base(first)
        while True:
            if self._take("!"):
                value, is_number = self._make.factorial(value), False
            elif self._take("^"):
                value, is_number = self._make.power(value, self._exponent()), False
            elif self._in_function and self._take("°"):
                value, is_number = value * self._make.letter("\\pi") / self._make.number(180), False
            else:
                return value, is_number

    def _base(self, first: bool) -> tuple[Any, bool]:
        match = self._peek()
        if match is None:
            raise NotAlgebra("an operand is missing")
        if match["number"] or match["mixed"] or match["repeating"]:
            return self._number(match, first), True
        if match["word"]:
            return self._word(match), False
        if match["command"]:
            self._at = match.end()
            return self._command(match["command"][1:]), False
        if match["sign"] in _GROUPS:
            is_number = match["sign"] == "{" and _BRACED_NUMBER.match(self._text, match.end()) is not None
            return self._group(), is_number
        if match["sign"] == "|":
            self._at = match.end()
            inside = self._sum()
            if not self._take("|"):
                raise NotAlgebra("| is not closed")
            return self._make.absolute(inside), False
        raise NotAlgebra("an operand is missing")

    def _number(self, match: re.Match[str], first: bool) -> Any:
        self._at = match.end()
        text = match[0].strip()
        if match["mixed"]:
            whole, rest = text.split(maxsplit=1)
            top, bottom = rest.split("/")
            return self._make.number(Fraction(whole) + _proper(int(top), int(bottom)))
        if match["repeating"]:
            return self._make.number(_repeating(text))
        if len(text) > _MAX_BITS // 4:
            raise NotAlgebra("too many digits")
        value = _decimal(text)
        fraction = _WHOLE_FRACTION.match(self._text, self._at) if first and text.isdigit() else None
        if fraction is not None:
            # 2½ written with \frac: a whole number before a proper fraction is a sum, not a product.
            above, below = int(fraction[1] or fraction[2]), int(fraction[3] or fraction[4])
            if 0 < above < below:
                self._at = fraction.end()
                value += Fraction(above, below)
        return self._make.number(value)

    def _word(self, match: re.Match[str]) -> Any:
        word = match["word"]
        if word in _FUNCTIONS or word in ("sqrt", "pi"):
            self._at = match.end()
            return self._command(word, plain=True)
        if len(word) > 3:
            raise NotAlgebra("a word")
        # One letter at a time: the next may be a factor, or have an exponent or a subscript of its own.
        self._at = match.start("word") + 1
        return self._letter(word[0])

    def _letter(self, name: str) -> Any:
        match = _SUBSCRIPT.match(self._text, self._at)
        if match:
            self._at = match.end()
            return self._make.letter(f"{name}_{match[1] or match[2]}")
        return self._make.letter(name)

    def _command(self, name: str, plain: bool = False) -> Any:
        if name == "frac":
            top, bottom = self._argument(), self._argument()
            return top / bottom
        if name == "binom":
            return self._make.binomial(self._argument(), self._argument())
        if name == "sqrt":
            return self._square_root(plain)
        if name == "pi":
            return self._make.letter("\\pi")
        if name in _GREEK:
            return self._letter("\\" + name)
        if name in _FUNCTIONS:
            return self._function(name)
        raise NotAlgebra(f"\\{name}")

    def _square_root(self, plain: bool) -> Any:
        degree = self._make.number(2)
        match = self._peek()
        if match is not None and match["sign"] == "[":
            degree = self._group()
        inside = self._factor()[0] if plain else self._argument()
        return self._make.power(inside, self._make.number(1) / degree)

    def _function(self, name: str) -> Any:
        base = None
        if name == "log" and (match := _SUBSCRIPT.match(self._text, self._at)):
            self._at = match.end()
            base = self._subscript_value(match[1] or match[2])
        exponent = None
        if self._take("^"):
            if _INVERSE.match(self._text, self._at):
                # To some the inverse function, to others the reciprocal.
                raise NotAlgebra("an inverse function")
            exponent = self._exponent()
        self._in_function += 1
        inside = self._function_argument()
        self._in_function -= 1
        if name == "exp":
            value = self._make.power(self._make.letter("e"), inside)
        else:
            value = self._make.function(name, base, inside)
        return value if exponent is None else self._make.power(value, exponent)

    def _subscript_value(self, text: str) -> Any:
        return self._make.number(int(text)) if text.isdigit() else self._make.letter(text)

    def _function_argument(self) -> Any:
        """A group, or else everything side by side up to the next sign, group or function: sin 2x is sin(2x)."""
        match = self._peek()
        if match is not None and match["sign"] in _GROUPS:
            # (45)°, but not (45)²: that is a power of the function.
            inside = self._group()
            return inside * self._make.letter("\\pi") / self._make.number(180) if self._take("°") else inside
        value: Any = None
        while (match := self._peek()) is not None:
            is_letter = match["word"] and not match["word"].startswith(tuple(_FUNCTIONS)) and len(match["word"]) <= 3
            is_command = match["command"] and (
                match["command"][1:] in _GREEK or match["command"] in ("\\pi", "\\frac", "\\sqrt")
            )
            if not (is_letter or is_command or (match["number"] and value is None)):
                break
            factor = self._factor()[0]
            value = factor if value is None else value * factor
        if value is None:
            raise NotAlgebra("a function of nothing")
        return value

    def _group(self) -> Any:
        match = self._peek()
        assert match is not None
        self._at = match.end()
        value = self._sum()
        if not self._take(_GROUPS[match["sign"]]):
            raise NotAlgebra(f"{match['sign']} is not closed")
        return value

    def _argument(self) -> Any:
        """Of \\frac and the like: a group in braces, or the next single digit, letter or command."""
        match = self._peek()
        if match is None:
            raise NotAlgebra("an argument is missing")
        if match["sign"] == "{":
            return self._group()
        if match["command"]:
            self._at = match.end()
            return self._command(match["command"][1:])
        if match["sign"] == "(":
            return self._group()
        single = _DIGIT.match(self._text, self._at)
        if single is None:
            raise NotAlgebra("an argument is missing")
        self._at = single.end()
        return self._make.number(int(single[1])) if single[1].isdigit() else self._make.letter(single[1])

    def _exponent(self) -> Any:
        """A group, or a number or letter with a sign: 2^10 means 2^{10} when a model writes it."""
        minus = self._take("-")
        match = self._peek()
        if match is None or match["mixed"]:
            raise NotAlgebra("an exponent is missing")
        if match["number"]:
            self._at = match.end()
            value = self._make.number(_decimal(match["number"]))
        elif match["word"]:
            value = self._word(match)
        elif match["command"]:
            self._at = match.end()
            value = self._command(match["command"][1:])
        elif match["sign"] in ("{", "("):
            value = self._group()
        else:
            raise NotAlgebra("an exponent is missing")
        if self._take("^"):
            value = self._make.power(value, self._exponent())
        return -value if minus else value


def _decimal(text: str) -> Fraction:
    mantissa, _, exponent = text.replace(",", "").replace("E", "e").partition("e")
    value = Fraction(mantissa)
    shift = int(exponent or 0)
    if abs(shift) * 4 > _MAX_BITS:
        raise NotAlgebra("too large a number")
    return value * Fraction(10) ** shift


def _repeating(text: str) -> Fraction:
    """0.1\\overline{6} → 1/6."""
    head, _, tail = text.partition("\\overline")
    digits = tail.strip(" {}")
    whole, _, part = head.strip().partition(".")
    value = Fraction(int(whole or 0)) + (Fraction(int(part), 10 ** len(part)) if part else 0)
    return value + Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** len(part))


def _proper(top: int, bottom: int) -> Fraction:
    if not 0 < top < bottom:
        raise NotAlgebra("not a mixed fraction")
    return Fraction(top, bottom)


def _factorial(value: Ratio) -> Ratio:
    whole = value.rational
    if whole is None:
        return _opaque(f"factorial({value.key})")
    if whole.denominator != 1 or not 0 <= whole <= _MAX_FACTORIAL:
        raise NotAlgebra("no such factorial")
    return number(factorial(int(whole)))


def _binomial(upper: Ratio, lower: Ratio) -> Ratio:
    top, bottom = upper.rational, lower.rational
    if top is None or bottom is None:
        return _opaque(f"binom({upper.key},{lower.key})")
    if top.denominator != 1 or bottom.denominator != 1 or not 0 <= bottom <= top:
        raise NotAlgebra("no such binomial")
    if min(bottom, top - bottom) * int(top).bit_length() > _MAX_BITS:
        raise NotAlgebra("too large a binomial")
    return number(comb(int(top), int(bottom)))


# --- In floats


_CONSTANTS = {"\\pi": math.pi, "e": math.e}
_RECIPROCALS = {"cot": math.tan, "sec": math.cos, "csc": math.sin}
_FLOAT_FUNCTIONS = {
    **{name: getattr(math, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "arcsin": math.asin, "arccos": math.acos, "arctan": math.atan,
}  # fmt: skip


def approximate(text: str) -> float | None:
    """The value of an expression as a float; None where it has letters, or no such value."""
    _work.left = _MAX_WORK
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
        if not value.is_integer() or not 0 <= value <= _MAX_FACTORIAL:
            raise NotAlgebra("no such factorial")
        return float(factorial(int(value)))

    def binomial(self, upper: Any, lower: Any) -> Any:
        return float(_binomial(number(Fraction(upper)), number(Fraction(lower))).num.get((), 0))

    def function(self, name: str, base: Any, inside: Any) -> Any:
        if name in ("ln", "log"):
            return math.log(inside) / (1.0 if name == "ln" else math.log(10.0 if base is None else base))
        if name in _RECIPROCALS:
            return 1.0 / _RECIPROCALS[name](inside)
        return _FLOAT_FUNCTIONS[name](inside)
