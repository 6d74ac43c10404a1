"""Where the lines of the pipeline's picture run.

Drawn as a version history is: models run down in lanes, a stage is a node, rows and reward models run from where they are
made to where they are used. Each line of the picture has a head of fixed height, which holds node and bends, and a rest
that stretches with the text, where lanes only run straight down; so the text may wrap as it likes.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.config.stage_kinds import kind_named
from orchestrator.results.lineage import Lineage

LANE, HEAD, MIDDLE = 18, 30, 15
"""Width of a lane, height of a line's head, and where its node stands, in CSS pixels."""
LEFT = 10
REST = 10
"""Height of a line's rest before it is stretched."""
Shape = Literal["circle", "square", "diamond"]
SHAPES: dict[str, Shape] = {"policy": "circle", "rows": "square", "rewards": "diamond", "nothing": "circle"}
"""What a stage leaves → shape of its node."""


@dataclass(slots=True, kw_only=True)
class Node:
    """A stage or an initial model in the picture."""

    name: str
    kind: str
    """`initial`: a model that nothing has trained."""
    row: int
    parent: "Node | None" = None
    successor: "Node | None" = None
    """The stage that goes on in the same lane."""
    users: "list[tuple[Node, str]]" = field(default_factory=list)
    """Later nodes that take what this one leaves beside a policy, and `rows` or `scores`."""
    lane: int = -1

    @property
    def end(self) -> int:
        """Last row that the node's lane reaches."""
        return max([self.row, *(user.row for user, _ in self.users), self.successor.end if self.successor else 0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A node as it is drawn."""

    kind: str
    shape: Shape
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
    """What is drawn beside the words of one node."""

    width: int
    head: tuple[Stroke, ...]
    rest: tuple[Stroke, ...]
    sign: Sign


def nodes_of(lineage: Lineage) -> list[Node]:
    """Stages in order, each initial model before its first stage, every one with a lane of its own or its parent's."""
    nodes: list[Node] = []
    named: dict[str, Node] = {}

    def add(name: str, kind: str, parent: Node | None) -> Node:
        node = Node(name=name, kind=kind, row=len(nodes), parent=parent)
        nodes.append(node)
        if parent and not parent.successor and kind_named(kind).leaves == "policy":
            parent.successor = node
        return node

    initial: dict[str, Node] = {}
    for stage, origin in lineage.origins.items():
        if not origin.parent and origin.initial not in initial:
            initial[origin.initial] = add(lineage.initial[origin.initial], "initial", None)
        named[stage] = add(stage, origin.kind, named[origin.parent] if origin.parent else initial[origin.initial])
        for names, what in ((origin.rows_of, "rows"), (origin.scored_by, "scores")):
            for name in names:
                if name in named:
                    named[name].users.append((named[stage], what))
    _place(nodes)
    return nodes


def gutter(node: Node, nodes: Sequence[Node]) -> Gutter:
    """Everything that passes, begins, ends or turns beside a node."""
    head, rest = [], []
    for what, lane, first, last in _runs(nodes):
        x = _x(lane)
        if first < node.row < last:
            head.append(Stroke(css=what, path=f"M{x} 0V{HEAD}"))
        if first <= node.row < last:
            rest.append(Stroke(css=what, path=f"M{x} 0V{REST}"))
    width = LEFT * 2 + LANE * max(node.lane for node in nodes)
    return Gutter(width=width, head=(*head, *_bends(node, nodes)), rest=tuple(rest), sign=sign(node.kind, node.lane))


def sign(kind: str, lane: int = 0) -> Sign:
    """How a node of a kind looks."""
    return Sign(kind=kind, shape=SHAPES[kind_named(kind).leaves], x=_x(lane))


def _place(nodes: Sequence[Node]) -> None:
    """Lanes from the left, each as far left as is free over all rows that it takes."""
    taken: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def place(node: Node, first: int) -> None:
        lane = 0
        while any(a <= node.end and first <= b for a, b in taken[lane]):
            lane += 1
        taken[lane].append((first, node.end))
        node.lane = lane

    for node in nodes:
        if node.parent is None:
            place(node, node.row)
        for child in nodes:
            if child.parent is node:
                if child is node.successor:
                    child.lane = node.lane
                else:
                    place(child, node.row)


def _runs(nodes: Sequence[Node]) -> Iterator[tuple[str, int, int, int]]:
    """(what, lane, first row, last row) of everything that runs straight down."""
    for node in nodes:
        if node.parent:
            yield "model", node.lane, node.parent.row, node.row
        for what in ("rows", "scores"):
            if rows := [user.row for user, own in node.users if own == what]:
                yield what, node.lane, node.row, max(rows)


def _bends(node: Node, nodes: Sequence[Node]) -> Iterator[Stroke]:
    """What begins, ends or turns at the height of a node."""
    x = _x(node.lane)
    if node.parent:
        yield Stroke(css="model", path=f"M{x} 0V{MIDDLE}")
    for other in nodes:
        if other.parent is node:
            yield Stroke(css="model", path=f"M{x} {MIDDLE}{_curve(x, MIDDLE, _x(other.lane), HEAD)}")
        for user, what in other.users:
            if user is node:
                yield Stroke(css=what, path=f"M{_x(other.lane)} 0{_curve(_x(other.lane), 0, x, MIDDLE)}")
    for what in dict.fromkeys(what for _, what in node.users):
        yield Stroke(css=what, path=f"M{x} {MIDDLE}V{HEAD}")


def _curve(x: int, y: int, to_x: int, to_y: int) -> str:
    """On from (x, y) to another lane, leaving and arriving upright."""
    return f"V{to_y}" if x == to_x else f"C{x} {to_y} {to_x} {y} {to_x} {to_y}"


def _x(lane: int) -> int:
    return LEFT + LANE * lane
