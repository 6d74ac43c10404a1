"""Exact arithmetic on what most answers are made of, as a canonical form that decides equality without sympy.

A `Ratio` is a quotient of two sums of terms. A term is a rational times a product of powers of atoms: letters, π, e, the
imaginary unit, and primes with exponents in (0, 1), which is how roots of rationals are held: √12 = 2·3^(1/2). Products
of such prime powers are linearly independent over the rationals (Besicovitch 1940), so that two numbers of this kind are
equal exactly when their terms are. Quotients are compared by cross-multiplication.

What the form does not understand (a sine, a logarithm, a power with a variable exponent, the root of a sum) is an opaque
atom, named by its canonical content: two results with equal terms are still equal, but unequal terms prove nothing.

Nothing grows without bound: sizes are checked before they are computed, and `NotAlgebra` is raised instead.
"""

import threading
from fractions import Fraction
from math import comb, factorial, isqrt

from rewards.math.grammar import MAX_BITS, NotAlgebra, Parser

Mono = tuple[tuple[str, Fraction | int], ...]
"""Product of powers, sorted by atom; () is 1."""
Poly = dict[Mono, Fraction]
"""Sum of terms, none of them zero; {} is 0."""

_MAX_TERMS = 200
_MAX_NAME = 2000
_MAX_WORK = 2000
"""Products of two terms in one expression."""
_MAX_POWER = 32
MAX_FACTORIAL = 200
_PRIMES = [p for p in range(2, 1000) if all(p % q for q in range(2, isqrt(p) + 1))]
_I = "i"
_OPAQUE = "?"
_POSITIVE = frozenset(("e", "\\pi"))
_ONE: Poly = {(): Fraction(1)}
_work = threading.local()


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
        renew_work()
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
        """How many different letters are in it."""
        atoms = {atom for poly in (self.num, self.den) for mono in poly for atom, _ in mono}
        return len([atom for atom in atoms if atom[0] not in ("#", _OPAQUE) and atom not in (*_POSITIVE, _I)])

    def quotient(self, other: "Ratio") -> Fraction | None:
        """The rational r with self = r · other; None where there is none, or either is zero."""
        renew_work()
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
            if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
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
            if abs(whole) * int(name[1:]).bit_length() > MAX_BITS:
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
    if (is_sum and degree > _MAX_POWER) or (size - 2) * degree > MAX_BITS:
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


class Exact:
    """What the parser's operations mean here. `rewards.math.symbolic` has the same ones for sympy's expressions."""

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
        return binomial(upper, lower)

    def function(self, name: str, base: Ratio | None, inside: Ratio) -> Ratio:
        return _opaque(f"{name}{base.key if base else ''}({inside.key})")


def _factorial(value: Ratio) -> Ratio:
    whole = value.rational
    if whole is None:
        return _opaque(f"factorial({value.key})")
    if whole.denominator != 1 or not 0 <= whole <= MAX_FACTORIAL:
        raise NotAlgebra("no such factorial")
    return number(factorial(int(whole)))


def binomial(upper: Ratio, lower: Ratio) -> Ratio:
    top, bottom = upper.rational, lower.rational
    if top is None or bottom is None:
        return _opaque(f"binom({upper.key},{lower.key})")
    if top.denominator != 1 or bottom.denominator != 1 or not 0 <= bottom <= top:
        raise NotAlgebra("no such binomial")
    if min(bottom, top - bottom) * int(top).bit_length() > MAX_BITS:
        raise NotAlgebra("too large a binomial")
    return number(comb(int(top), int(bottom)))


def parse(text: str) -> Ratio:
    """The exact value of an expression in normal spelling (`rewards.math.spelling.normal`).

    Raises:
        NotAlgebra: it is none, or too large.
    """
    renew_work()
    value: Ratio = Parser(text, Exact()).whole()
    return value


def parse_or_none(text: str) -> Ratio | None:
    """As `parse`; None where it is none, or too large."""
    try:
        return parse(text)
    except NotAlgebra:
        return None


def renew_work() -> None:
    """A new expression, a new budget of work."""
    _work.left = _MAX_WORK
