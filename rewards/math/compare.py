"""Whether two answers that have been read are equal: structures part by part, values by `rewards.math.algebra`."""

import re
from collections.abc import Callable

from rewards.math.algebra import Ratio, number, parse_or_none
from rewards.math.grammar import NotAlgebra
from rewards.math.nodes import Based, Group, Matrix, Named, Node, Relation, Rounded, Several, Value, Words
from rewards.math.numbers import plain_number
from rewards.math.units import same_unit

Decision = bool | None
OpenCase = Callable[[str, str], Decision]

_FUNCTION_OF_ONE = re.compile(
    r"\\?(?:sin|cos|tan|cot|sec|csc|ln|log)\s*(?:\^\s*\{?\s*2\s*\}?)?\s*(?:\(\s*(?:[A-Za-z]|\\[a-z]{2,8})\s*\)|[A-Za-z]|\\[a-z]{2,8})"
)
_FUNCTION_OF = re.compile(r"[a-zA-Z]\([a-z]\)")
_UNIT_VECTOR = re.compile(r"(?<![A-Za-z\\])[jk](?![A-Za-z])")
"""i alone may be the imaginary unit."""
_IS_VECTOR = re.compile(r"(?<![A-Za-z\\])[ijk](?![A-Za-z])")
# Spaces mean nothing, but between two numbers.
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")


class Comparison:
    """One comparison of two structures, with what decides the open cases."""

    def __init__(self, open_case: OpenCase | None) -> None:
        self._open_case = open_case or (lambda found, reference: None)

    def answers(self, found: Node, reference: Node) -> Decision:
        """Whether they are the same, where the found one may say more than the reference: what it is that is 5."""
        if isinstance(found, Relation) and found.op == "=" and isinstance(reference, Value):
            value = found.right
            if not isinstance(value, Value) or value.ratio is None or not value.ratio.is_constant:
                return False
            left = found.left.ratio if isinstance(found.left, Value) else None
            if (left is not None and left.num_letters >= 2) or _FUNCTION_OF_ONE.fullmatch(text_of(found.left)):
                return self.same(value, reference)
            return _all((self.same(found.left, value), self.same(value, reference)))
        return self.same(found, reference)

    def same(self, found: Node, reference: Node) -> Decision:
        found, reference = _drop_names(found, reference)
        if isinstance(found, Rounded):
            return _any(self.same(each, reference) for each in (found.exact, found.decimal))
        if isinstance(reference, Rounded):
            return _any(self.same(found, each) for each in (reference.exact, reference.decimal))
        if isinstance(found, Value) and isinstance(reference, Value):
            return self._values(found, reference)
        if isinstance(found, Group) and isinstance(reference, Group):
            return self._groups(found, reference)
        if isinstance(found, Several) and isinstance(reference, Several):
            if "∪" in (found.kind, reference.kind) and not all(map(_are_rays, (found, reference))):
                return found.kind == reference.kind and self._same_in_any_order(found.parts, reference.parts)
            return self._same_in_any_order(found.parts, reference.parts)
        if isinstance(found, Matrix) and isinstance(reference, Matrix):
            return self._matrices(found, reference)
        if isinstance(found, Relation) and isinstance(reference, Relation):
            return self._relations(found, reference)
        if isinstance(found, Based) or isinstance(reference, Based):
            return _same_in_base(found, reference)
        if isinstance(found, Words) and isinstance(reference, Words) and found.text == reference.text:
            return True
        if isinstance(found, Words) and isinstance(reference, Words):
            # xy is yx. Three letters in another order may be an arrangement that was asked for.
            letters = found.letters
            return bool(letters) and reference.letters in (letters, letters[::-1] if len(letters) == 2 else letters)
        if isinstance(found, Value) and isinstance(reference, Words):
            reference = _multiply_letters(reference)
        if isinstance(found, Words) and isinstance(reference, Value):
            found = _multiply_letters(found)
        if isinstance(found, Value) and isinstance(reference, Value):
            return self._values(found, reference)
        return self._across(found, reference)

    def _vectors(self, vector: Value, parts: tuple[Node, ...]) -> Decision:
        """3i + 4j is (3, 4)."""
        if not _UNIT_VECTOR.search(vector.text) or not 2 <= len(parts) <= 3:
            return False
        texts = [text_of(part) for part in parts]
        if not all(texts) or any(_IS_VECTOR.search(text) for text in texts):
            return False
        text = "+".join(f"({part}){letter}" for part, letter in zip(texts, "ijk", strict=False))
        return self._expressions(vector, Value(text, parse_or_none(text)))

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
                return (
                    self._same_in_order(parts, other.parts) if one is found else self._same_in_order(other.parts, parts)
                )
            if isinstance(one, Group) and one.left == "mod" and isinstance(other, Value):
                return self.same(one.parts[0], other)
            # A column of a matrix is a vector, which may be written in a line, or by unit vectors.
            vector = _column(one) if isinstance(one, Matrix) else ()
            if isinstance(one, Group) and (one.left, one.right) == ("(", ")"):
                vector = one.parts
            if isinstance(one, Matrix) and isinstance(other, Group) and (other.left, other.right) == ("(", ")"):
                return self._same_in_order(vector, other.parts) if vector else False
            if vector and isinstance(other, Value):
                return self._vectors(other, vector)
            if isinstance(one, Several) and one.kind == "{" and len(one.parts) == 1 and isinstance(other, Value):
                return self.same(one.parts[0], other) if one is found else self.same(other, one.parts[0])
        return False

    def _values(self, found: Value, reference: Value) -> Decision:
        if "%" in (found.unit, reference.unit) and found.unit != reference.unit:
            return self._percent(found, reference)
        if found.unit and reference.unit and not same_unit(found.unit, reference.unit):
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
        if (share.ratio / number(100)).equals(plain.ratio):
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
        return self._same_in_order(found.parts, reference.parts)

    def _same_in_order(self, found: tuple[Node, ...], reference: tuple[Node, ...]) -> Decision:
        if len(found) != len(reference):
            return False
        return _all(self.same(one, other) for one, other in zip(found, reference, strict=True))

    def _same_in_any_order(self, found: tuple[Node, ...], reference: tuple[Node, ...]) -> Decision:
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
        return _all(self._same_in_order(one, other) for one, other in zip(found.rows, reference.rows, strict=True))

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


def _drop_names(found: Node, reference: Node) -> tuple[Node, Node]:
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


def _are_rays(listed: Several) -> bool:
    """Intervals that are told from points by an infinite end: a list of them is their union."""
    groups = [part for part in listed.parts if isinstance(part, Group) and part.left in "([" and len(part.parts) == 2]
    ends = (Words("∞"), Words("-∞"))
    return len(groups) == len(listed.parts) and any(part in ends for group in groups for part in group.parts)


def _multiply_letters(words: Words) -> Node:
    """xy, read as a word, is a product where the other side is a value."""
    ratio = parse_or_none(words.letters) if words.letters else None
    return words if ratio is None else Value(words.letters, ratio)


def _column(matrix: Matrix) -> tuple[Node, ...]:
    """The parts of a matrix of one column; none for others."""
    column = tuple(row[0] for row in matrix.rows if len(row) == 1)
    return column if len(column) == len(matrix.rows) > 1 and not matrix.kind else ()


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
    count = plain_number(core)
    return value if count is None else Value(core, number(count), unit)


def text_of(node: Node) -> str:
    return node.text if isinstance(node, Value) else ""


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


def _same_in_base(found: Node, reference: Node) -> Decision:
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


def _any(verdicts: object) -> Decision:
    """True if any is, else None if any is, else False. Stops at the first True."""
    result: Decision = False
    for verdict in verdicts:  # type: ignore[attr-defined]
        if verdict is True:
            return True
        if verdict is None:
            result = None
    return result
