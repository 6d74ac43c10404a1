"""Where the lines of the pipeline's picture run.

Drawn as a version history is: models run down in lanes, a stage is a knot, rows and reward models run from where they are
made to where they are used. Each line of the picture has a head of fixed height, which holds knot and bends, and a rest
that stretches with the text, where lanes only run straight down; so the text may wrap as it likes.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.config.wiring import LEAVES_POLICY
from orchestrator.results.lineage import Lineage

LANE, HEAD, MIDDLE = 18, 30, 15
"""Width of a lane, height of a line's head, and where its knot stands, in CSS pixels."""
LEFT = 10
REST = 10
"""Height of a line's rest before it is stretched."""


@dataclass(slots=True, kw_only=True)
class Knot:
    """A stage or an initial model in the picture."""

    name: str
    kind: str
    """`initial`: a model that nothing has trained."""
    row: int
    parent: "Knot | None" = None
    heir: "Knot | None" = None
    """The stage that goes on in the same lane."""
    users: "list[tuple[Knot, str]]" = field(default_factory=list)
    """Later knots that take what this one leaves beside a policy, and `rows` or `scores`."""
    lane: int = -1

    @property
    def end(self) -> int:
        """Last row of its lane."""
        return max([self.row, *(user.row for user, _ in self.users), self.heir.end if self.heir else 0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A knot as it is drawn."""

    kind: str
    shape: Literal["circle", "square", "diamond"]
    x: int
    y: int = MIDDLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """A piece of a line."""

    css: str
    """Class of the style sheet: what runs here, `model`, `rows` or `scores`."""
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gutter:
    """What is drawn beside the words of one knot."""

    width: int
    head: tuple[Stroke, ...]
    rest: tuple[Stroke, ...]
    sign: Sign


def knots_of(lineage: Lineage) -> list[Knot]:
    """Stages in order, each initial model before its first stage, every one with a lane of its own or its parent's."""
    knots: list[Knot] = []
    named: dict[str, Knot] = {}

    def add(name: str, kind: str, parent: Knot | None) -> Knot:
        knot = Knot(name=name, kind=kind, row=len(knots), parent=parent)
        knots.append(knot)
        if parent and not parent.heir and kind in LEAVES_POLICY:
            parent.heir = knot
        return knot

    initial: dict[str, Knot] = {}
    for stage, origin in lineage.origins.items():
        if not origin.parent and origin.initial not in initial:
            initial[origin.initial] = add(lineage.initial[origin.initial], "initial", None)
        named[stage] = add(stage, origin.kind, named[origin.parent] if origin.parent else initial[origin.initial])
        for names, what in ((origin.rows_of, "rows"), (origin.scored_by, "scores")):
            for name in names:
                if name in named:
                    named[name].users.append((named[stage], what))
    _place(knots)
    return knots


def gutter(knot: Knot, knots: Sequence[Knot]) -> Gutter:
    """Everything that passes, begins, ends or turns beside a knot."""
    head, rest = [], []
    for what, lane, first, last in _runs(knots):
        x = _x(lane)
        if first < knot.row < last:
            head.append(Stroke(css=what, path=f"M{x} 0V{HEAD}"))
        if first <= knot.row < last:
            rest.append(Stroke(css=what, path=f"M{x} 0V{REST}"))
    width = LEFT * 2 + LANE * max(knot.lane for knot in knots)
    return Gutter(width=width, head=(*head, *_bends(knot, knots)), rest=tuple(rest), sign=sign(knot.kind, knot.lane))


def sign(kind: str, lane: int = 0) -> Sign:
    """How a knot of a kind looks."""
    shape: Literal["circle", "square", "diamond"] = "circle"
    if kind == "reject":
        shape = "square"
    elif kind == "reward_model":
        shape = "diamond"
    return Sign(kind=kind, shape=shape, x=_x(lane))


def _place(knots: Sequence[Knot]) -> None:
    """Lanes from the left, each as far left as is free over all rows that it takes."""
    taken: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def place(knot: Knot, first: int) -> None:
        lane = 0
        while any(a <= knot.end and first <= b for a, b in taken[lane]):
            lane += 1
        taken[lane].append((first, knot.end))
        knot.lane = lane

    for knot in knots:
        if knot.parent is None:
            place(knot, knot.row)
        for child in knots:
            if child.parent is knot:
                if child is knot.heir:
                    child.lane = knot.lane
                else:
                    place(child, knot.row)


def _runs(knots: Sequence[Knot]) -> Iterator[tuple[str, int, int, int]]:
    """(what, lane, first row, last row) of everything that runs straight down."""
    for knot in knots:
        if knot.parent:
            yield "model", knot.lane, knot.parent.row, knot.row
        for what in ("rows", "scores"):
            if rows := [user.row for user, own in knot.users if own == what]:
                yield what, knot.lane, knot.row, max(rows)


def _bends(knot: Knot, knots: Sequence[Knot]) -> Iterator[Stroke]:
    """What begins, ends or turns at the height of a knot."""
    x = _x(knot.lane)
    if knot.parent:
        yield Stroke(css="model", path=f"M{x} 0V{MIDDLE}")
    for other in knots:
        if other.parent is knot:
            yield Stroke(css="model", path=f"M{x} {MIDDLE}{_curve(x, MIDDLE, _x(other.lane), HEAD)}")
        for user, what in other.users:
            if user is knot:
                yield Stroke(css=what, path=f"M{_x(other.lane)} 0{_curve(_x(other.lane), 0, x, MIDDLE)}")
    for what in dict.fromkeys(what for _, what in knot.users):
        yield Stroke(css=what, path=f"M{x} {MIDDLE}V{HEAD}")


def _curve(x: int, y: int, to_x: int, to_y: int) -> str:
    """On from (x, y) to another lane, leaving and arriving upright."""
    return f"V{to_y}" if x == to_x else f"C{x} {to_y} {to_x} {y} {to_x} {to_y}"


def _x(lane: int) -> int:
    return LEFT + LANE * lane
