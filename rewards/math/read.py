"""The structure of an answer: one reader for each kind, tried in order."""

import itertools
import re
from fractions import Fraction
from functools import lru_cache

from rewards.math.algebra import number, parse_or_none
from rewards.math.brackets import closing, depth_at, split, split_commas
from rewards.math.compare import Comparison, text_of
from rewards.math.floats import approximate
from rewards.math.names import is_name, name_of
from rewards.math.nodes import Based, Group, Matrix, Named, Node, Relation, Rounded, Several, Value, Words
from rewards.math.numbers import plain_number
from rewards.math.spelling import words
from rewards.math.units import has_short_unit, is_doubt, number_in_words, peel

MAX_PARTS = 64
_MAX_NESTING = 24

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
_ONLY_WORDS = re.compile(r"[^\W\d_]{2,}(?:[ '’\-][^\W\d_]+)*|[^\W\d_]+(?: [^\W\d_]+)+|[^\W\d_\x00-\u03ff]")
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
_LABEL = re.compile(r"\\text\s*\{\s*([A-Za-z ]{1,40}?)\s*(?::|\bis|\bpoint)\s*\}\s*:?\s*(?=\S)")
_ELEMENT = re.compile(r"([A-Za-z])(?:\s*\\in\s*\\mathbb\s*(?:\{\s*R\s*\}|R))?")
_ELEMENT_AGAIN = re.compile(r"^\s*[A-Za-z]\s*\\in\s*\\mathbb\s*(?:\{\s*R\s*\}|R)\s*,")
_ABSOLUTE = re.compile(r"\|\s*([A-Za-z])\s*\|")
_ALL_BUT = re.compile(r"\\mathbb\s*(?:\{\s*R\s*\}|R)\s*(?:\\setminus|-)\s*\\\{([^{},]{1,60})\\\}")
_POINT = re.compile(r"[A-Z]'?\s*(?=\()")
_OUTWARD = re.compile(r"([\](\[])([^\[\](){}]*,[^\[\](){}]*)([\])\[])")
_TRIGONOMETRY = re.compile("sin|cos|tan|cot|sec|csc")


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
    return None if value is None else Value(text, number(value))


def _read_wrapped(text: str, depth: int) -> Node | None:
    """Braces or `\\text` around the whole."""
    if text.startswith("{") and closing(text, 0) == len(text) - 1:
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
    if factor and factor != "-" and parse_or_none(factor) is None:
        return None
    lines = [line for line in match[2].split("\\\\") if line.strip()]
    kind = "v" if match[1] == "vmatrix" else ""
    if sum(line.count("&") + 1 for line in lines) > MAX_PARTS:
        return Words(text)
    if factor and kind:
        return None
    times = f"({factor}1)*" if factor == "-" else f"({factor})*" if factor else ""
    rows = ((f"{times}({cell})" if times else cell for cell in line.split("&")) for line in lines)
    return Matrix(tuple(tuple(read(cell, depth) for cell in row) for row in rows), kind)


def _read_list(text: str, depth: int) -> Node | None:
    marked = _JOIN.sub(_JOINED, text)
    pieces = [piece for part in split(marked, _JOINED) for some in split(part, ";") for piece in split_commas(some)]
    parts = [piece.replace(_JOINED, " or ").strip() for piece in pieces if piece.strip()]
    if len(parts) > MAX_PARTS:
        return Words(text)
    if len(parts) < 2:
        return _read_branches(text, depth)
    listed = _read_each(parts, depth)
    if marked.count(_JOINED) != len(parts) - 1 or len(split(marked, _JOINED)) != len(parts):
        return listed
    return _alternatives(listed) if len(_OR.findall(text)) == len(parts) - 1 else _both(listed)


def _alternatives(listed: Several) -> Node:
    """½ or 0.5 is one answer, x < 1 or x > 2 a union of intervals, 1 or 2 a list that is no pair."""
    first = listed.parts[0]
    if all(Comparison(None).same(part, first) is True for part in listed.parts[1:]):
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
    """The interval that x is in; None where `x = (…)` with finite ends is rather a point."""
    value = node.value if isinstance(node, Named) else None
    if not isinstance(node, Named) or not isinstance(value, Group) or value.left not in "([" or len(value.parts) != 2:
        return None
    is_between = node.relation is None and len(node.name) == 1 and node.name.islower()
    return value if is_between or Words("∞") in (value.parts[1], _mirror(value)) else None


def _mirror(interval: Group) -> Node:
    return Words("∞") if interval.parts[0] == Words("-∞") else Words("")


def _read_branches(text: str, depth: int) -> Node | None:
    """a ± b is a list of two."""
    if _PM.search(text) is None or "\\approx" in text:
        return None
    return _read_each([_branch(text, "+", "-"), _branch(text, "-", "+")], depth)


def _branch(text: str, pm: str, mp: str) -> str:
    # A leading + is no part of a number in a list.
    return _PM.sub(lambda match: pm if match[1] == "pm" else mp, text).removeprefix("+")


def _read_each(parts: list[str], depth: int) -> Several:
    nodes: list[Node] = []
    for part in parts:
        node = read(part, depth)
        nodes += node.parts if isinstance(node, Several) and node.kind == "," else [node]
    return Several(",", tuple(nodes))


def _read_group(text: str, depth: int) -> Node | None:
    if text.startswith("\\langle") and text.endswith("\\rangle"):
        text = "(" + text[len("\\langle") : -len("\\rangle")] + ")"
    if text.startswith("\\{") and text.endswith("\\}"):
        return _read_set(text[2:-2], depth)
    if text == "\\emptyset":
        return Several("{", ())
    point = _POINT.match(text)
    if point and closing(text, point.end(), mixed=True) == len(text) - 1:
        group = _read_group(text[point.end() :], depth)
        return Named(point[0].strip(), group, None) if isinstance(group, Group) else None
    outward = _OUTWARD.fullmatch(text)
    if outward:
        text = ("(" if outward[1] == "]" else outward[1]) + outward[2] + (")" if outward[3] == "[" else outward[3])
    if text[:1] not in ("(", "[") or closing(text, 0, mixed=True) != len(text) - 1:
        return None
    inside = text[1:-1]
    parts = split(inside, ",") if len(split(inside, ",")) > 1 else split(inside, ";")
    if len(parts) == 1:
        is_matrix = inside.lstrip().startswith("\\begin") and text[0] + text[-1] == "[]"
        return read(inside, depth) if is_matrix or text[0] + text[-1] == "()" else None
    if len(parts) > MAX_PARTS:
        return Words(text)
    return Group(text[0], text[-1], tuple(read(part, depth) for part in parts))


def _read_set(inside: str, depth: int) -> Node | None:
    if not inside.strip():
        return Several("{", ())
    if "|" in inside or ":" in inside:
        head, _, condition = inside.partition("|" if "|" in inside else ":")
        name = _ELEMENT.fullmatch(head.strip())
        node = read(_ELEMENT_AGAIN.sub("", condition), depth) if name else None
        if name and isinstance(node, Named) and node.name == name_of(name[1]) and not isinstance(node.value, Value):
            return node
        return Words("{" + "".join(inside.split()) + "}")
    parts = list(dict.fromkeys(part.strip() for part in split(inside, ",")))
    if len(parts) > MAX_PARTS:
        return Words(inside)
    listed = _read_each(parts, depth)
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
    if not 1 < len(parts) <= MAX_PARTS:
        return None
    return Several("∪", tuple(read(part, depth) for part in parts))


def _read_relation(text: str, depth: int) -> Node | None:
    signs = list(itertools.islice(_RELATION.finditer(text), MAX_PARTS + 1))
    if len(signs) > MAX_PARTS:
        return Words(text)
    signs = [match for match in signs if depth_at(text, match.start()) == 0]
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
    if ops[-1] == "≈" and set(ops[:-1]) == {"="}:
        return _approximation(text[: signs[-1].start()].strip(), sides[-1], depth)
    if len(ops) == 2:
        between = _between(ops, sides, depth)
        if between is not None:
            return between
    return Words(text)


def _single_relation(op: str, left: str, right: str, depth: int) -> Node:
    if op == "\\in" and is_name(left):
        return Named(name_of(left), read(right, depth), None)
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
    if is_name(left):
        return Named(name_of(left), sides.right, sides)
    if is_name(right):
        return Named(name_of(right), sides.left, sides)
    # 10/2 = 5 is its own result written out; 2 + 2 = 5 is an equation like any other.
    if Comparison(None).same(sides.left, sides.right) is True:
        return sides.right
    return sides


def _approximation(left: str, right: str, depth: int) -> Node:
    """x ≈ 3.14 names a value; 5π ≈ 15.7 is 5π and its rounding, and so is x = 5π ≈ 15.7."""
    exact, rounded = read(left, depth), read(right, depth)
    if is_name(left) and (not isinstance(exact, Value) or exact.ratio is None or not exact.ratio.is_constant):
        return Named(name_of(left), rounded, None)
    if isinstance(exact, Named) and "=" in left:
        both = _rounded(exact.value, rounded)
        return Named(exact.name, both, None) if both else Words(f"{left}≈{right}")
    return _rounded(exact, rounded) or Words(f"{left}≈{right}")


def _rounded(exact: Node, decimal: Node) -> Rounded | None:
    """None where the one is not the other's rounding."""
    if not (isinstance(exact, Value) and isinstance(decimal, Value) and exact.ratio and decimal.ratio):
        return None
    value, near = approximate(exact.text), decimal.ratio.rational
    scale = Fraction(1, 100) if decimal.unit == "%" and exact.unit != "%" else Fraction(1)
    places = len(decimal.text.partition(".")[2])
    if value is None or near is None or abs(value - float(near * scale)) > 0.51 * float(scale) * 10.0**-places:
        return None
    return Rounded(exact, decimal)


def _equation_chain(sides: list[str], depth: int) -> Node:
    """a = b = c is the last value with the first name, as long as what stands between is the same value."""
    named = is_name(sides[0])
    values = [read(side, depth) for side in (sides[1:] if named else sides)]
    first = values[0]
    is_asked_for = not named and isinstance(first, Value) and first.ratio and first.ratio.num_letters >= 2
    if is_asked_for and all(Comparison(None).same(value, values[-1]) is True for value in values[1:-1]):
        return Relation("=", first, values[-1])
    if any(Comparison(None).same(value, values[-1]) is False for value in values):
        return Words(" = ".join(sides))
    return Named(name_of(sides[0]), values[-1], None) if named else values[-1]


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
        match = _ABSOLUTE.fullmatch(text_of(side))
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
    if not all(op in ("<", "≤") for op in ops) or not is_name(sides[1]):
        return None
    bounds = read(sides[0], depth), read(sides[2], depth)
    return Named(name_of(sides[1]), Group("(" if ops[0] == "<" else "[", ")" if ops[1] == "<" else "]", bounds), None)


def _read_ratio(text: str, depth: int) -> Node | None:
    parts = split(text, ":")
    if not 1 < len(parts) <= 6 or not all(part.strip() for part in parts):
        return None
    return Group(":", ":", tuple(read(part, depth) for part in parts))


def _read_congruence(text: str, depth: int) -> Node | None:
    """4 (mod 7), with or without x ≡ before it: the least residue, and the modulus."""
    match = _CONGRUENCE.fullmatch(text) if "mod" in text else None
    if match is None or not int(match["modulus"]):
        return None
    modulus = int(match["modulus"])
    parts = [Value(str(value), number(value)) for value in (int(match["rest"]) % modulus, modulus)]
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
    value = number_in_words(plain)
    if value is not None:
        return Value(text, number(value))
    if "\\" in text.replace("\\text", "") or not _ONLY_WORDS.fullmatch(plain):
        return None
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
    ratio = None if has_short_unit(text) else parse_or_none(text)
    if ratio is not None:
        return Value(text, ratio)
    if "°" in text[:-1] and not text.endswith(("°C", "°F")) and not _TRIGONOMETRY.search(text):
        ratio = parse_or_none(text.replace("°", ""))
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
    return Value(core, node.ratio * number(scale) if node.ratio and scale != 1 else node.ratio, unit)
