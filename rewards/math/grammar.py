"""The grammar of an expression, in LaTeX or plain: what a text means in terms of operations that are given to the parser."""

import re
from fractions import Fraction
from typing import Any

MAX_BITS = 8192
"""Bits of the largest number; 7^2023 has 5,680."""
_MAX_NESTING = 40

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


class NotAlgebra(ValueError):
    """The text is no expression of this kind, or too large a one."""


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
        if len(text) > MAX_BITS // 4:
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
        """The argument of \\frac and the like: a group in braces, or the next single digit, letter or command."""
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
    if abs(shift) * 4 > MAX_BITS:
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
