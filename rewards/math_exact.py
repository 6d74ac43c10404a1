"""Whether two answers are equal, decided without sympy in most cases: True, False, or None where it is left open.

An answer is read into its structure (a value with a unit, a choice, a tuple or interval, a set, a list, a union, a matrix,
a relation, a word), structures are compared part by part, and values by `rewards.math_algebra`. What that cannot decide is
handed to `open_case`, which the symbolic rung supplies; without one it stays None. So only single expressions ever reach
sympy, and all the rules about structure are on this page.
"""

import itertools
import re
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from rewards import math_algebra
from rewards.math_algebra import NotAlgebra, Ratio
from rewards.math_text import normal, words
from rewards.math_units import has_short_unit, is_doubt, number_in_words, peel

Decision = bool | None
OpenCase = Callable[[str, str], Decision]

MAX_LENGTH = 2000
"""Characters; longer answers are equal only when they are spelt the same."""
_MAX_PARTS = 64
_MAX_NESTING = 24


def compare(found: str, reference: str, open_case: OpenCase | None = None) -> Decision:
    """Whether an answer found in a response equals the reference.

    Symmetric but for the base of a number, where the reference says which notation was asked for, and for what an answer
    says of a number that was asked for: a + b = 5 is an answer to 5, but 5 is none to the line a + b = 5.
    """
    if len(found) > MAX_LENGTH or len(reference) > MAX_LENGTH:
        return found.strip() == reference.strip()
    left, right = normal(found), normal(reference)
    if not left or not right:
        return False
    if left == right:
        return True
    value, expected = plain_number(left), plain_number(right)
    if value is not None and expected is not None:
        return value == expected
    letters = _choices(left, right)
    if letters is not None:
        return letters
    if _is_phrase(left, right):
        return True
    try:
        decision = _Comparison(open_case).answers(read(left), read(right))
    except RecursionError:
        return False
    if decision is False and (_SET_ALGEBRA.search(left) or _SET_ALGEBRA.search(right)):
        return open_case(left, right) if open_case else None
    return decision


def compare_all(answers: tuple[str, ...], reference: str, open_case: OpenCase | None = None) -> Decision:
    """As `compare`, for a response that states several answers: they must be one, or together the list asked for."""
    final = answers[-1]
    if len(answers) == 1 or all(compare(answer, final) for answer in answers[:-1]):
        return compare(final, reference, open_case)
    if len(answers) > _MAX_PARTS or sum(map(len, answers)) > MAX_LENGTH or len(reference) > MAX_LENGTH:
        return False
    try:
        listed = Several(",", tuple(read(normal(answer)) for answer in answers))
        return _Comparison(open_case).same(listed, read(normal(reference)))
    except RecursionError:
        return False


def _is_phrase(left: str, right: str) -> bool:
    """The same words, however they are divided into text and formula: \\text{June } 20."""
    return any(_WORD_IN_TEXT.search(side) for side in (left, right)) and words(left) == words(right)


_WORD_IN_TEXT = re.compile(r"\\text\s*\{[^{}\\]*[A-Za-z]{3}[^{}\\]*\}")


def answer_key(answer: str) -> Hashable:
    """Equal for answers that are equal as numbers, or as text: what votes are counted by."""
    text = normal(answer[:MAX_LENGTH])
    value = plain_number(text)
    return words(text) if value is None else value


# --- Plain numbers: by far the most frequent case, decided in a microsecond or two


_WITHIN = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d])(?!,\d)")
_THOUSANDS = re.compile(r"\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)")
_MAX_DIGITS = 400


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


_DECIMAL = re.compile(r"([-+]?) ?(\d*)(?:\.(\d*))?")


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


# --- Structure


@dataclass(frozen=True, slots=True)
class Value:
    """An expression, with the unit beside it."""

    text: str
    ratio: Ratio | None
    """None where `math_algebra` cannot hold it."""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """Text, and whatever else is equal only to itself."""

    text: str
    letters: str = field(default="", compare=False)
    """Up to three small letters of a formula, which may be a product: xy."""


@dataclass(frozen=True, slots=True)
class Based:
    """A number in another base."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Group:
    """Parts in order between brackets: a tuple, an interval, a ratio (`:`)."""

    left: str
    right: str
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Several:
    """Parts in no order: a list (`,`), a set (`{`), a union of sets (`∪`)."""

    kind: str
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple["Node", ...], ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Relation:
    """`left op right`; `>` and `≥` have been turned round."""

    op: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Named:
    """`x = value` or `x ∈ value`: a value with the name that it was given."""

    name: str
    value: "Node"
    relation: "Relation | None"


Node = Value | Words | Based | Group | Several | Matrix | Relation | Named

_INFINITY = re.compile(r"([-+]?)\s*(?:\\infty|infinity|inf|oo)")
_MATRIX = re.compile(r"\\begin\s*\{([pbBv]?matrix|smallmatrix|array)\}(?:\s*\{[clr| ]*\})?(.*)\\end\s*\{\1\}", re.S)
_BASED = re.compile(
    r"(?:\\text\s*\{\s*|\(\s*)?([0-9A-Fa-f]+)(?:\s*[)}])?\s*(?:_\s*(?:\{\s*)?(?:\\text\s*\{\s*)?\(?(?:base[- ]?\s*\}?\s*)?|(?:\\text\s*\{)?\s*\(?\s*(?:in )?base[- ]?\s*\}?\s*)"
    r"(?:(?<=[{(e \}\-])\s*(\d{1,2}|two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen)\s*\)?\s*\}*\)?|(\d))"
)
_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "twelve": 12,
    "sixteen": 16,
}  # fmt: skip
_CONGRUENCE = re.compile(
    r"(?:([A-Za-z])\s*)?(?:\\equiv\s*)?(?P<rest>-?\d{1,30})\s*"
    r"(?:\\p?mod|\\bmod|\(?\s*(?:\\text\s*\{\s*)?\(?\s*mod)\s*\}?\s*\{?\s*(?P<modulus>\d{1,30})\s*\}?\s*\)?\s*\}?"
)
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_ALL_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_JOIN = re.compile(
    r"\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
    r"|\\(?:lor|vee|land|wedge|iff)(?![A-Za-z])",
    re.I,
)
_ONLY_WORDS = re.compile(r"[^\W\d_]{2,}(?:[ '’\-][^\W\d_]+)*|[^\W\d_]+(?: [^\W\d_]+)+")
_JOINED = "\x00"
_OR = re.compile(r"\\text\s*\{\s*,?\s*or\s*,?\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])", re.I)
_NOTHING = frozenset(("no solution", "empty set", "the empty set"))
_ALL_REALS = frozenset(
    (
        "all real numbers",
        "all reals",
        "all real number",
        "the set of all real numbers",
        "the real numbers",
        "set of all real numbers",
    )
)
_SYNONYMS = {"dne": "does not exist"}
_LETTERS_MULTIPLIED = re.compile(r"[a-z](?: ?[a-z]){1,2}")
_SHORT_WORDS = frozenset(
    str.split(
        "no on yes odd one two ten six all any nan inf dne new old red tie may mon tue wed thu fri sat sun jan feb mar apr jun "
        "jul aug sep oct nov dec now won own net tow was saw am pm is in to do go so up us we he she not ton nor"
    )
)
_PM = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_REALS = re.compile(r"\\mathbb\s*(?:\{\s*R\s*\}|R)|\\R(?![A-Za-z])")
_RELATION = re.compile(
    r"\\(?:le|ge|ne|in|approx|equiv|sim|to|subset|subseteq|Rightarrow|implies)(?![A-Za-z])|(?<!\d)!=|[<>=]=?|:="
)
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
_LABEL = re.compile(r"\\text\s*\{\s*([A-Za-z ]{1,40}?)\s*(?::|\bis|\bpoint)\s*\}\s*:?\s*(?=\S)")
_FUNCTION_OF_ONE = re.compile(
    r"\\?(?:sin|cos|tan|cot|sec|csc|ln|log)\s*(?:\^\s*\{?\s*2\s*\}?)?\s*(?:\(\s*(?:[A-Za-z]|\\[a-z]{2,8})\s*\)|[A-Za-z]|\\[a-z]{2,8})"
)
_FUNCTION_OF = re.compile(r"[a-zA-Z]\([a-z]\)")
# Spaces mean nothing, but between two numbers.
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_ELEMENT = re.compile(r"([A-Za-z])(?:\s*\\in\s*\\mathbb\s*(?:\{\s*R\s*\}|R))?")
_ELEMENT_AGAIN = re.compile(r"^\s*[A-Za-z]\s*\\in\s*\\mathbb\s*(?:\{\s*R\s*\}|R)\s*,")
_ABSOLUTE = re.compile(r"\|\s*([A-Za-z])\s*\|")
_ALL_BUT = re.compile(r"\\mathbb\s*(?:\{\s*R\s*\}|R)\s*(?:\\setminus|-)\s*\\\{([^{},]{1,60})\\\}")
_POINT = re.compile(r"[A-Z]'?\s*(?=\()")
_OUTWARD = re.compile(r"([\](\[])([^\[\](){}]*,[^\[\](){}]*)([\])\[])")
_TRIGONOMETRY = re.compile("sin|cos|tan|cot|sec|csc")
_SET_ALGEBRA = re.compile(r"\\(?:setminus|backslash|cap)(?![A-Za-z])")
_OPEN, _CLOSE = "([{", ")]}"


@lru_cache(maxsize=4096)
def read(text: str, depth: int = 0) -> Node:
    """The structure of an answer in normal spelling. Raises RecursionError where it is nested too deeply."""
    if depth > _MAX_NESTING:
        raise RecursionError("nested too deeply")
    text = text.strip()
    if not text:
        return Words("")
    for reader in _READERS:
        node = reader(text, depth + 1)
        if node is not None:
            return node
    return _expression(text, depth + 1)


def _read_plain(text: str, depth: int) -> Node | None:
    value = plain_number(text)
    return None if value is None else Value(text, math_algebra.number(value))


def _read_wrapped(text: str, depth: int) -> Node | None:
    """Braces or `\\text` around the whole."""
    if text.startswith("{") and _closing(text, 0) == len(text) - 1:
        return read(text[1:-1], depth)
    match = _ALL_TEXT.fullmatch(text)
    if match:
        inside = match[1].strip()
        # A word between braces is a word, and never letters multiplied.
        is_word = inside.isalpha() and not _INFINITY.fullmatch(inside)
        if not is_word:
            return read(inside, depth)
        node = _read_words(inside, depth)
        return Words(words(inside)) if node is None or isinstance(node, Words) else node
    match = _LABEL.match(text)
    if match and not is_doubt(match[1]):
        return read(text[match.end() :], depth)
    match = _INFINITY.fullmatch(text)
    if match:
        return Words("-∞" if match[1] == "-" else "∞")
    if _ISO_DATE.fullmatch(text):
        return Words(text)
    if _REALS.fullmatch(text):
        return Group("(", ")", (Words("-∞"), Words("∞")))
    return None


def _read_matrix(text: str, depth: int) -> Node | None:
    before, begin, rest = text.partition("\\begin")
    match = _MATRIX.fullmatch(begin + rest)
    if match is None or "\\begin" in match[2]:
        return None
    factor = before.strip().removesuffix("\\cdot").strip()
    if factor and factor != "-" and _algebra(factor) is None:
        return None
    lines = [line for line in match[2].split("\\\\") if line.strip()]
    kind = "v" if match[1] == "vmatrix" else ""
    if sum(line.count("&") + 1 for line in lines) > _MAX_PARTS:
        return Words(text)
    if factor and kind:
        return None
    times = f"({factor}1)*" if factor == "-" else f"({factor})*" if factor else ""
    rows = ((f"{times}({cell})" if times else cell for cell in line.split("&")) for line in lines)
    return Matrix(tuple(tuple(read(cell, depth) for cell in row) for row in rows), kind)


def _read_list(text: str, depth: int) -> Node | None:
    marked = _JOIN.sub(_JOINED, text)
    pieces = [piece for part in _split(marked, _JOINED) for some in _split(part, ";") for piece in _split_commas(some)]
    parts = [piece.replace(_JOINED, " or ").strip() for piece in pieces if piece.strip()]
    if len(parts) > _MAX_PARTS:
        return Words(text)
    if len(parts) < 2:
        return _read_branches(text, depth)
    listed = _listed(parts, depth)
    if marked.count(_JOINED) != len(parts) - 1 or len(_split(marked, _JOINED)) != len(parts):
        return listed
    return _alternatives(listed) if len(_OR.findall(text)) == len(parts) - 1 else _both(listed)


def _alternatives(listed: Several) -> Node:
    """½ or 0.5 is one answer, x < 1 or x > 2 a union of intervals, 1 or 2 a list that is no pair."""
    first = listed.parts[0]
    if all(_Comparison(None).same(part, first) is True for part in listed.parts[1:]):
        return first
    intervals = [_interval(part) for part in listed.parts]
    names = {part.name for part in listed.parts if isinstance(part, Named)}
    if len(names) == 1 and all(intervals):
        return Named(names.pop(), Several("∪", tuple(each for each in intervals if each)), None)
    return Several("or", listed.parts)


def _both(listed: Several) -> Node:
    """x > 1 and x ≤ 2 is an interval."""
    one, other = listed.parts[0], listed.parts[-1]
    if len(listed.parts) != 2 or not isinstance(one, Named) or not isinstance(other, Named) or one.name != other.name:
        return listed
    rays = [_interval(one), _interval(other)]
    for low, high in (rays, rays[::-1]):
        if low and high and low.parts[1] == Words("∞") and high.parts[0] == Words("-∞"):
            return Named(one.name, Group(low.left, high.right, (low.parts[0], high.parts[1])), None)
    return listed


def _interval(node: Node) -> Group | None:
    """Of x, where it is no point: one end is infinite, or it was not written as `x = (…)`."""
    value = node.value if isinstance(node, Named) else None
    if not isinstance(node, Named) or not isinstance(value, Group) or value.left not in "([" or len(value.parts) != 2:
        return None
    is_between = node.relation is None and len(node.name) == 1 and node.name.islower()
    return value if is_between or Words("∞") in (value.parts[1], _mirrored(value)) else None


def _are_rays(listed: Several) -> bool:
    """Intervals that are told from points by an infinite end: a list of them is their union."""
    groups = [part for part in listed.parts if isinstance(part, Group) and part.left in "([" and len(part.parts) == 2]
    ends = (Words("∞"), Words("-∞"))
    return len(groups) == len(listed.parts) and any(part in ends for group in groups for part in group.parts)


def _mirrored(interval: Group) -> Node:
    return Words("∞") if interval.parts[0] == Words("-∞") else Words("")


def _read_branches(text: str, depth: int) -> Node | None:
    """a ± b is a list of two."""
    if _PM.search(text) is None or "\\approx" in text:
        return None
    return _listed([_branch(text, "+", "-"), _branch(text, "-", "+")], depth)


def _branch(text: str, pm: str, mp: str) -> str:
    # A leading + is no part of a number in a list.
    return _PM.sub(lambda match: pm if match[1] == "pm" else mp, text).removeprefix("+")


def _listed(parts: list[str], depth: int) -> Several:
    nodes: list[Node] = []
    for part in parts:
        node = read(part, depth)
        nodes += node.parts if isinstance(node, Several) and node.kind == "," else [node]
    return Several(",", tuple(nodes))


def _split_commas(text: str) -> list[str]:
    """At commas, but for those within a number: 1,000, 2,000 are two, and 1,000\\pi is one."""
    within = {match.start() + at for match in _WITHIN.finditer(text) for at, sign in enumerate(match[0]) if sign == ","}
    return _split(text, ",", within)


def _read_group(text: str, depth: int) -> Node | None:
    if text.startswith("\\langle") and text.endswith("\\rangle"):
        text = "(" + text[len("\\langle") : -len("\\rangle")] + ")"
    if text.startswith("\\{") and text.endswith("\\}"):
        return _read_set(text[2:-2], depth)
    if text == "\\emptyset":
        return Several("{", ())
    point = _POINT.match(text)
    if point and _closing(text, point.end(), mixed=True) == len(text) - 1:
        group = _read_group(text[point.end() :], depth)
        return Named(point[0].strip(), group, None) if isinstance(group, Group) else None
    outward = _OUTWARD.fullmatch(text)
    if outward:
        text = ("(" if outward[1] == "]" else outward[1]) + outward[2] + (")" if outward[3] == "[" else outward[3])
    if text[:1] not in ("(", "[") or _closing(text, 0, mixed=True) != len(text) - 1:
        return None
    inside = text[1:-1]
    parts = _split(inside, ",") if len(_split(inside, ",")) > 1 else _split(inside, ";")
    if len(parts) == 1:
        is_matrix = inside.lstrip().startswith("\\begin") and text[0] + text[-1] == "[]"
        return read(inside, depth) if is_matrix or text[0] + text[-1] == "()" else None
    if len(parts) > _MAX_PARTS:
        return Words(text)
    return Group(text[0], text[-1], tuple(read(part, depth) for part in parts))


def _read_set(inside: str, depth: int) -> Node | None:
    if not inside.strip():
        return Several("{", ())
    if "|" in inside or ":" in inside:
        head, _, condition = inside.partition("|" if "|" in inside else ":")
        name = _ELEMENT.fullmatch(head.strip())
        node = read(_ELEMENT_AGAIN.sub("", condition), depth) if name else None
        if name and isinstance(node, Named) and node.name == _name(name[1]) and not isinstance(node.value, Value):
            return node
        return Words("{" + "".join(inside.split()) + "}")
    parts = list(dict.fromkeys(part.strip() for part in _split(inside, ",")))
    if len(parts) > _MAX_PARTS:
        return Words(inside)
    listed = _listed(parts, depth)
    return Several("{", listed.parts)


def _all_but(point: Value) -> Several:
    """The real numbers without one."""
    return Several("∪", (Group("(", ")", (Words("-∞"), point)), Group("(", ")", (point, Words("∞")))))


def _read_union(text: str, depth: int) -> Node | None:
    without = _ALL_BUT.fullmatch(text)
    point = read(without[1], depth) if without else None
    if isinstance(point, Value):
        return _all_but(point)
    parts = re.split(r"\\cup(?![A-Za-z])", text) if "\\cup" in text else []
    if not 1 < len(parts) <= _MAX_PARTS:
        return None
    return Several("∪", tuple(read(part, depth) for part in parts))


def _read_relation(text: str, depth: int) -> Node | None:
    signs = list(itertools.islice(_RELATION.finditer(text), _MAX_PARTS + 1))
    if len(signs) > _MAX_PARTS:
        return Words(text)
    signs = [match for match in signs if _level(text, match.start()) == 0]
    if not signs:
        return None
    ends = [0, *(match.end() for match in signs)]
    starts = [*(match.start() for match in signs), len(text)]
    sides = [text[begin:end].strip() for begin, end in zip(ends, starts, strict=True)]
    ops = [{"\\le": "≤", "<=": "≤", "\\ge": "≥", ">=": "≥", "\\ne": "≠", "==": "=", ":=": "=", "!=": "≠",
            "\\approx": "≈"}.get(match[0], match[0]) for match in signs]  # fmt: skip
    if not all(sides):
        return Words(text)
    if len(ops) == 1:
        return _single_relation(ops[0], sides[0], sides[1], depth)
    if set(ops) == {"="}:
        return _equation_chain(sides, depth)
    if len(ops) == 2:
        between = _between(ops, sides, depth)
        if between is not None:
            return between
    return Words(text)


def _single_relation(op: str, left: str, right: str, depth: int) -> Node:
    if op == "\\in" and _is_name(left):
        return Named(_name(left), read(right, depth), None)
    if op in (">", "≥"):
        op, left, right = {">": "<", "≥": "≤"}[op], right, left
    if op in ("<", "≤"):
        ray = _ray(op, left, right, depth)
        if ray is not None:
            return ray
    if op == "≈":
        return _approximation(left, right, depth)
    if op not in ("=", "≠", "<", "≤"):
        return Words(f"{left}{op}{right}")
    sides = Relation(op, read(left, depth), read(right, depth))
    if op == "≠" and re.fullmatch("[A-Za-z]", left) and isinstance(sides.right, Value):
        return Named(left, _all_but(sides.right), sides)
    if op != "=":
        return sides
    if _is_name(left):
        return Named(_name(left), sides.right, sides)
    if _is_name(right):
        return Named(_name(right), sides.left, sides)
    # 10/2 = 5 is its own result written out; 2 + 2 = 5 is an equation like any other.
    if _Comparison(None).same(sides.left, sides.right) is True:
        return sides.right
    return sides


def _approximation(left: str, right: str, depth: int) -> Node:
    """x ≈ 3.14 names a value; 5π ≈ 15.7 is 5π, where the decimal is its rounding."""
    exact, rounded = read(left, depth), read(right, depth)
    if _is_name(left) and (not isinstance(exact, Value) or exact.ratio is None or not exact.ratio.is_constant):
        return Named(_name(left), rounded, None)
    if isinstance(exact, Value) and isinstance(rounded, Value) and exact.ratio and rounded.ratio:
        value, decimal = math_algebra.approximate(exact.text), rounded.ratio.rational
        decimal = decimal / 100 if decimal is not None and rounded.unit == "%" else decimal
        places, scale = len(rounded.text.partition(".")[2]), 0.01 if rounded.unit == "%" else 1.0
        if value is not None and decimal is not None and abs(value - float(decimal)) <= 0.51 * scale * 10.0**-places:
            return exact
    return Words(f"{left}≈{right}")


def _equation_chain(sides: list[str], depth: int) -> Node:
    """a = b = c is the last value with the first name, as long as what stands between is the same value."""
    named = _is_name(sides[0])
    values = [read(side, depth) for side in (sides[1:] if named else sides)]
    first = values[0]
    is_asked_for = not named and isinstance(first, Value) and first.ratio and first.ratio.num_letters >= 2
    if is_asked_for and all(_Comparison(None).same(value, values[-1]) is True for value in values[1:-1]):
        return Relation("=", first, values[-1])
    if any(_Comparison(None).same(value, values[-1]) is False for value in values):
        return Words(" = ".join(sides))
    return Named(_name(sides[0]), values[-1], None) if named else values[-1]


def _ray(op: str, left: str, right: str, depth: int) -> Node | None:
    """x < 5 is an interval of x; None where neither side is a letter alone."""
    low, high = read(left, depth), read(right, depth)
    for side, other, group in (
        (low, high, ("(", ")" if op == "<" else "]", (Words("-∞"), high))),
        (high, low, ("(" if op == "<" else "[", ")", (low, Words("∞")))),
    ):
        name = side.ratio.symbol if isinstance(side, Value) and side.ratio else None
        if name and isinstance(other, Value) and other.ratio and other.ratio.is_constant:
            return Named(name, Group(*group), Relation(op, low, high))
    return _distance(op, low, high)


def _distance(op: str, low: Node, high: Node) -> Node | None:
    """|x| < 5 and |x| > 5."""
    for side, other, is_within in ((low, high, True), (high, low, False)):
        match = _ABSOLUTE.fullmatch(_text_of(side))
        if match is None or not isinstance(other, Value) or other.ratio is None or not other.ratio.is_constant:
            continue
        minus = Value(f"-({other.text})", -other.ratio)
        left, right = ("(", ")") if op == "<" else ("[", "]")
        if is_within:
            return Named(match[1], Group(left, right, (minus, other)), Relation(op, low, high))
        rays = Group("(", right, (Words("-∞"), minus)), Group(left, ")", (other, Words("∞")))
        return Named(match[1], Several("∪", rays), Relation(op, low, high))
    return None


def _between(ops: list[str], sides: list[str], depth: int) -> Node | None:
    """a < x ≤ b is an interval of x."""
    if all(op in (">", "≥") for op in ops):
        ops, sides = [{">": "<", "≥": "≤"}[op] for op in reversed(ops)], sides[::-1]
    if not all(op in ("<", "≤") for op in ops) or not _is_name(sides[1]):
        return None
    bounds = read(sides[0], depth), read(sides[2], depth)
    return Named(_name(sides[1]), Group("(" if ops[0] == "<" else "[", ")" if ops[1] == "<" else "]", bounds), None)


def _read_ratio(text: str, depth: int) -> Node | None:
    parts = _split(text, ":")
    if not 1 < len(parts) <= 6 or not all(part.strip() for part in parts):
        return None
    return Group(":", ":", tuple(read(part, depth) for part in parts))


def _read_congruence(text: str, depth: int) -> Node | None:
    """4 (mod 7), with or without x ≡ before it: the least residue, and the modulus."""
    match = _CONGRUENCE.fullmatch(text) if "mod" in text else None
    if match is None or not int(match["modulus"]):
        return None
    modulus = int(match["modulus"])
    parts = [Value(str(value), math_algebra.number(value)) for value in (int(match["rest"]) % modulus, modulus)]
    residue = Group("mod", "", tuple(parts))
    return Named(match[1], residue, None) if match[1] else residue


def _read_based(text: str, depth: int) -> Node | None:
    match = _BASED.fullmatch(text)
    # a_1 is a letter with a subscript.
    if match is None or (match[1].isalpha() and len(match[1]) == 1):
        return None
    base = _BASES.get(match[2] or match[3]) or int(match[2] or match[3])
    return Based(match[1].upper().lstrip("0") or "0", base) if 2 <= base <= 36 else None


def _read_words(text: str, depth: int) -> Node | None:
    """Nothing but words: letters multiplied are not written so."""
    plain = words(text)
    if "\\" in text.replace("\\text", "") or not _ONLY_WORDS.fullmatch(plain):
        return None
    value = number_in_words(plain)
    if value is not None:
        return Value(text, math_algebra.number(value))
    if plain in _ALL_REALS:
        return Group("(", ")", (Words("-∞"), Words("∞")))
    if plain.startswith("no "):
        plain = plain.removesuffix("s")
    if plain in _NOTHING:
        return Several("{", ())
    is_product = _LETTERS_MULTIPLIED.fullmatch(text) and plain not in _SHORT_WORDS
    return Words(_SYNONYMS.get(plain, plain), "".join(text.split()) if is_product else "")


_READERS = (
    _read_plain, _read_congruence, _read_based, _read_wrapped, _read_matrix, _read_group, _read_list, _read_union, _read_relation,
    _read_ratio, _read_words,
)  # fmt: skip


def _expression(text: str, depth: int) -> Node:
    """A value, with its unit peeled off; where there is no value in it, words."""
    ratio = None if has_short_unit(text) else _algebra(text)
    if ratio is not None:
        return Value(text, ratio)
    if "°" in text[:-1] and not text.endswith(("°C", "°F")) and not _TRIGONOMETRY.search(text):
        ratio = _algebra(text.replace("°", ""))
        if ratio is not None:
            return Value(text.replace("°", ""), ratio, "°")
    peeled = peel(text)
    if peeled is None:
        return Words(words(text))
    core, unit, scale = peeled
    if not unit and scale == 1:
        return Value(text, None)
    node = read(core, depth) if core and len(core) < len(text) else None
    if not isinstance(node, Value) or node.unit or (node.ratio is None and scale != 1):
        return Words(words(text))
    return Value(core, node.ratio * math_algebra.number(scale) if node.ratio and scale != 1 else node.ratio, unit)


def _algebra(text: str) -> Ratio | None:
    try:
        return math_algebra.parse(text)
    except NotAlgebra:
        return None


def _is_name(text: str) -> bool:
    """Whether it names what was computed; `not x` does not, and `(y, x)` only would where its order is usual."""
    if _TUPLE_NAME.fullmatch(text):
        letters = [each.strip() for each in text[1:-1].split(",")]
        return "\\" in text or letters == sorted(letters)
    return _NAME.fullmatch(text) is not None and not is_doubt(text)


def _name(text: str) -> str:
    """Of what was computed; `f(x)`, `\\angle ABC`, `x_1` without spaces and braces."""
    return re.sub(r"\\text|[\s{}\\]", "", text)


def _split(text: str, separator: str, kept: Collection[int] = ()) -> list[str]:
    """At separators outside of all brackets, but for those at the positions `kept`."""
    if separator not in text:
        return [text]
    parts, level, begin, at = [], 0, 0, 0
    while at < len(text):
        sign = text[at]
        if sign in _OPEN:
            level += 1
        elif sign in _CLOSE:
            level = max(0, level - 1)
        elif level == 0 and at not in kept and text.startswith(separator, at):
            parts.append(text[begin:at])
            begin = at + len(separator)
            at = begin - 1
        at += 1
    return [*parts, text[begin:]]


def _level(text: str, end: int) -> int:
    return sum((sign in _OPEN) - (sign in _CLOSE) for sign in text[:end])


def _closing(text: str, start: int, mixed: bool = False) -> int:
    """Where the bracket at `start` is closed; -1 where it is not. Mixed: `(` may be closed by `]`, as in intervals."""
    level = 0
    for at in range(start, len(text)):
        level += (text[at] in _OPEN) - (text[at] in _CLOSE)
        if level == 0:
            matches = _CLOSE[_OPEN.index(text[start])] == text[at] or (mixed and text[at] in ")]")
            return at if matches else -1
    return -1


# --- Comparison


_CHOICE = re.compile(
    r"(?:\\text\s*\{\s*)?(?:(?:option|choice|answer)\s*:?\s*)?\(?\s*(?:\\text\s*\{\s*)?\(?([A-J])\)?\s*\}?\s*\)?[.:)]?\s*\}?",
    re.I,
)
_CHOICE_WITH = re.compile(r"(?:\(([A-J])\)|\\text\s*\{\s*\(?([A-J])\)?[.:]?\s*\}|([A-J])[.:)])(?P<rest>\s*\S.*)", re.S)
_OTHER_CHOICE = re.compile(
    r"(?<![A-Za-z])(?:or|and|not|maybe|but)(?![A-Za-z]).*(?<![A-Za-z])[B-J](?![A-Za-z])|[,/;&]\s*(?:\\text\s*\{\s*)?\(?[A-J](?![A-Za-z])|\(\s*(?:\\text\s*\{\s*)?[A-J]\s*\}?\s*\)"
)


class _Comparison:
    """One comparison of two structures, with what decides the open cases."""

    def __init__(self, open_case: OpenCase | None) -> None:
        self._open_case = open_case or (lambda found, reference: None)

    def answers(self, found: Node, reference: Node) -> Decision:
        """As `same`, where the found one may say more than the reference: what it is that is 5."""
        if isinstance(found, Relation) and found.op == "=" and isinstance(reference, Value):
            value = found.right
            if not isinstance(value, Value) or value.ratio is None or not value.ratio.is_constant:
                return False
            left = found.left.ratio if isinstance(found.left, Value) else None
            if (left is not None and left.num_letters >= 2) or _FUNCTION_OF_ONE.fullmatch(_text_of(found.left)):
                return self.same(value, reference)
            return _all((self.same(found.left, value), self.same(value, reference)))
        return self.same(found, reference)

    def same(self, found: Node, reference: Node) -> Decision:
        found, reference = _unnamed(found, reference)
        if isinstance(found, Value) and isinstance(reference, Value):
            return self._values(found, reference)
        if isinstance(found, Group) and isinstance(reference, Group):
            return self._groups(found, reference)
        if isinstance(found, Several) and isinstance(reference, Several):
            if "∪" in (found.kind, reference.kind) and not all(map(_are_rays, (found, reference))):
                return found.kind == reference.kind and self._unordered(found.parts, reference.parts)
            return self._unordered(found.parts, reference.parts)
        if isinstance(found, Matrix) and isinstance(reference, Matrix):
            return self._matrices(found, reference)
        if isinstance(found, Relation) and isinstance(reference, Relation):
            return self._relations(found, reference)
        if isinstance(found, Based) or isinstance(reference, Based):
            return _based(found, reference)
        if isinstance(found, Words) and isinstance(reference, Words) and found.text == reference.text:
            return True
        if isinstance(found, Words) and isinstance(reference, Words):
            # xy is yx. Three letters in another order may be an arrangement that was asked for.
            letters = found.letters
            return bool(letters) and reference.letters in (letters, letters[::-1] if len(letters) == 2 else letters)
        if isinstance(found, Value) and isinstance(reference, Words):
            reference = _multiplied(reference)
        if isinstance(found, Words) and isinstance(reference, Value):
            found = _multiplied(found)
        if isinstance(found, Value) and isinstance(reference, Value):
            return self._values(found, reference)
        return self._across(found, reference)

    def _across(self, found: Node, reference: Node) -> Decision:
        """Two kinds of structure: only a few pairs can be equal."""
        for one, other in ((found, reference), (reference, found)):
            if (
                isinstance(one, Several)
                and isinstance(other, Group)
                and one.kind == ","
                and (other.left, other.right) == ("(", ")")
            ):
                # A pair whose brackets were left out. The order must be the same.
                parts = _by_name(one.parts)
                return self._ordered(parts, other.parts) if one is found else self._ordered(other.parts, parts)
            if isinstance(one, Group) and one.left == "mod" and isinstance(other, Value):
                return self.same(one.parts[0], other)
            if isinstance(one, Matrix) and isinstance(other, Group) and other.left == "(" and other.right == ")":
                # A column of a matrix is a vector, which may be written in a line.
                column = tuple(row[0] for row in one.rows if len(row) == 1)
                is_column = len(column) == len(one.rows) > 1 and not one.kind
                return self._ordered(column, other.parts) if is_column else False
            if isinstance(one, Several) and one.kind == "{" and len(one.parts) == 1 and isinstance(other, Value):
                return self.same(one.parts[0], other) if one is found else self.same(other, one.parts[0])
        return False

    def _values(self, found: Value, reference: Value) -> Decision:
        if "%" in (found.unit, reference.unit) and found.unit != reference.unit:
            return self._percent(found, reference)
        if found.unit and reference.unit and not _same_unit(found.unit, reference.unit):
            return False
        if found.unit != reference.unit:
            one, other = (_with_letter_unit(found, reference.unit), reference)
            other = _with_letter_unit(other, found.unit)
            return self._expressions(one, other)
        return self._expressions(found, reference)

    def _percent(self, found: Value, reference: Value) -> Decision:
        """75 % is 0.75; and 75, where the question asked for the percentage. A share of at most one is no percentage."""
        share, plain = (found, reference) if found.unit == "%" else (reference, found)
        if plain.unit or share.ratio is None or plain.ratio is None:
            return False
        value = plain.ratio.rational
        if (share.ratio / math_algebra.number(100)).equals(plain.ratio):
            return True
        return share.ratio.equals(plain.ratio) if value is not None and abs(value) > 1 else False

    def _expressions(self, found: Value, reference: Value) -> Decision:
        verdict: Decision = None
        if found.ratio is not None and reference.ratio is not None:
            verdict = found.ratio.equals(reference.ratio)
        if verdict is None and _SPACE.sub("", found.text) == _SPACE.sub("", reference.text):
            return True
        return self._open_case(found.text, reference.text) if verdict is None else verdict

    def _groups(self, found: Group, reference: Group) -> Decision:
        if (found.left, found.right) != (reference.left, reference.right):
            return False
        return self._ordered(found.parts, reference.parts)

    def _ordered(self, found: tuple[Node, ...], reference: tuple[Node, ...]) -> Decision:
        if len(found) != len(reference):
            return False
        return _all(self.same(one, other) for one, other in zip(found, reference, strict=True))

    def _unordered(self, found: tuple[Node, ...], reference: tuple[Node, ...]) -> Decision:
        """Each part has its own equal on the other side. Greedy: equality is as good as transitive."""
        if len(found) != len(reference):
            return False
        left = list(reference)
        undecided = False
        for part in found:
            verdicts = []
            for other in left:
                verdicts.append(self.same(part, other))
                if verdicts[-1]:
                    break
            if True in verdicts:
                del left[verdicts.index(True)]
            elif None in verdicts:
                undecided = True
            else:
                return False
        return None if undecided else True

    def _matrices(self, found: Matrix, reference: Matrix) -> Decision:
        if found.kind != reference.kind or [len(row) for row in found.rows] != [len(row) for row in reference.rows]:
            return False
        return _all(self._ordered(one, other) for one, other in zip(found.rows, reference.rows, strict=True))

    def _relations(self, found: Relation, reference: Relation) -> Decision:
        """Equal where left − right of one is a rational multiple of the other's; positive, where the direction counts."""
        if found.op != reference.op:
            return False
        left, right = _difference(found), _difference(reference)
        if left is not None and right is not None and not (left.is_opaque or right.is_opaque):
            # 0 = 0 says nothing; two of them are equal only when they are spelt the same.
            try:
                factor = left.quotient(right)
            except NotAlgebra:
                return False
            return factor is not None and (factor > 0 or found.op in ("=", "≠"))
        straight = _all((self.same(found.left, reference.left), self.same(found.right, reference.right)))
        if straight or found.op not in ("=", "≠"):
            return straight
        crossed = _all((self.same(found.left, reference.right), self.same(found.right, reference.left)))
        return crossed if crossed or straight is False else straight


def _unnamed(found: Node, reference: Node) -> tuple[Node, Node]:
    """x = 5 and 5 are the same answer, x = 5 and y = 5 are not, and y = 2x is also an equation."""
    if isinstance(found, Named) and isinstance(reference, Named):
        if found.name == reference.name or _are_functions(found.name, reference.name):
            return found.value, reference.value
        if found.relation is not None and reference.relation is not None:
            return found.relation, reference.relation
        return Words(found.name + " ="), Words(reference.name + " =")
    if isinstance(found, Named):
        relation = isinstance(reference, Relation) and found.relation is not None
        return (found.relation if relation and found.relation else found.value), reference
    if isinstance(reference, Named):
        relation = isinstance(found, Relation) and reference.relation is not None
        return found, (reference.relation if relation and reference.relation else reference.value)
    return found, reference


def _are_functions(one: str, other: str) -> bool:
    """y and f(x) are two names of the same."""
    return "y" in (one, other) and any(_FUNCTION_OF.fullmatch(name) for name in (one, other))


def _multiplied(words: Words) -> Node:
    """xy, read as a word, is a product where the other side is a value."""
    ratio = _algebra(words.letters) if words.letters else None
    return words if ratio is None else Value(words.letters, ratio)


def _by_name(parts: tuple[Node, ...]) -> tuple[Node, ...]:
    """y = 1, x = 2 stands for the pair (2, 1)."""
    names = [part.name for part in parts if isinstance(part, Named)]
    if len(names) != len(parts) or len(set(names)) != len(names):
        return parts
    return tuple(part for _, part in sorted(zip(names, parts, strict=True), key=lambda pair: pair[0]))


def _with_letter_unit(value: Value, unit: str) -> Value:
    """540m is 540 metres where the other side is in metres; elsewhere m is a letter."""
    if value.unit or not unit or not value.text.endswith(unit) or not unit.isalpha():
        return value
    core = value.text[: -len(unit)].strip()
    number = plain_number(core)
    return value if number is None else Value(core, math_algebra.number(number), unit)


def _text_of(node: Node) -> str:
    return node.text if isinstance(node, Value) else ""


def _same_unit(one: str, other: str) -> bool:
    """5° may be 5°C or 5°F, but 5°C is not 5°F."""
    return one == other or (one[0] == other[0] == "°" and "°" in (one, other))


def _difference(relation: Relation) -> Ratio | None:
    left, right = relation.left, relation.right
    if not (isinstance(left, Value) and isinstance(right, Value) and left.ratio and right.ratio):
        return None
    if left.unit or right.unit:
        return None
    try:
        return left.ratio + -right.ratio
    except NotAlgebra:
        return None


def _based(found: Node, reference: Node) -> Decision:
    """The reference says which notation was asked for: 5 is not an answer to 101_2, while 101 is; 101_2 is one to 5."""
    if isinstance(reference, Based):
        if isinstance(found, Based):
            return found == reference
        return isinstance(found, Value) and not found.unit and found.text.lstrip("0").upper() == reference.digits
    if not isinstance(found, Based) or not isinstance(reference, Value) or reference.ratio is None:
        return False
    try:
        return reference.ratio.rational == int(found.digits, found.base)
    except ValueError:
        return False


def _all(verdicts: object) -> Decision:
    """False if any is, else None if any is, else True. Stops at the first False."""
    result: Decision = True
    for verdict in verdicts:  # type: ignore[attr-defined]
        if verdict is False:
            return False
        if verdict is None:
            result = None
    return result


def _choices(found: str, reference: str) -> Decision:
    """Whether both choose the same letter, or give the value beside it; None where this is no such question."""
    expected, chosen = _choice(reference), _choice(found)
    if expected is None and chosen is None:
        return None
    if expected is not None and chosen is not None:
        if _CHOICE.fullmatch(reference) or _CHOICE.fullmatch(found):
            return expected == chosen
        return compare(_beside(found), _beside(reference)) if expected == chosen else None
    if expected is not None and plain_number(normal(_beside(reference))) is not None:
        return compare(found, _beside(reference))
    beside, other = (_beside(found), reference) if expected is None else (_beside(reference), found)
    return True if beside and compare(beside, other) else None


def _beside(choice: str) -> str:
    """What stands beside the letter of a choice."""
    match = _CHOICE_WITH.fullmatch(choice)
    return match["rest"].strip() if match else ""


def _choice(text: str) -> str | None:
    """The letter of a multiple choice answer: `B`, `(B)`, `\\text{B}`, `option B`, `B. a reason`; else None."""
    if len(text) > 1 and text[0] not in "(\\AaBbCcDdEeFfGgHhIiJjOo":
        return None
    match = _CHOICE.fullmatch(text)
    if match is None:
        match = _CHOICE_WITH.fullmatch(text)
        if match is None or _CHOICE.fullmatch(match["rest"].strip()) or _OTHER_CHOICE.search(match["rest"]):
            return None
    return next(group for group in match.groups() if group).upper()
