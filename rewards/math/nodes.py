"""What an answer is made of: a value with a unit, a word, a tuple, a list, a matrix, a relation, …"""

from dataclasses import dataclass, field

from rewards.math.algebra import Ratio


@dataclass(frozen=True, slots=True)
class Value:
    """An expression, with the unit beside it."""

    text: str
    ratio: Ratio | None
    """None where `rewards.math.algebra` cannot hold it."""
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


@dataclass(frozen=True, slots=True)
class Rounded:
    """A value and its rounding, both of which it is: 5π ≈ 15.7."""

    exact: Value
    decimal: Value


Node = Value | Rounded | Words | Based | Group | Several | Matrix | Relation | Named
