"""The picture of a run: every stage on a line of its own, and beside it which model, rows and rewards go where.

Drawn as a version history is: models run down in lanes, a stage is a knot, rows and reward models run from where they are
made to where they are used. Each line has a head of fixed height, which holds knot and bends, and a rest that stretches
with the text, where lanes only run straight down; so the text may wrap as it likes.
"""

import html
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.config.wiring import LEAVES_POLICY
from orchestrator.report.rejection import drops
from orchestrator.results.columns import Figure
from orchestrator.results.lineage import KIND_WORDS, Lineage, lineage_of
from orchestrator.results.table import Results
from orchestrator.results.words import duration, parameter_words
from orchestrator.run.record import RunRecord, StageRecord, as_number

LANE, HEAD, MIDDLE = 18, 30, 15
"""Width of a lane, height of a line's head, and where its knot stands, in CSS pixels."""
LEFT = 10


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


def picture_section(run: RunRecord, results: Results) -> str:
    """Empty for a run of one stage, which has no pipeline."""
    if len(run.stages) < 2:
        return ""
    lineage = lineage_of(run)
    knots = knots_of(lineage)
    stages = {stage.name: stage for stage in run.stages}
    width = LEFT * 2 + LANE * max(knot.lane for knot in knots)
    lines = []
    for knot in knots:
        words = _initial_words(knot) if knot.kind == "initial" else _words(stages[knot.name], lineage, results)
        lines.append(
            f'<li><div class="gutter" aria-hidden="true">{_gutter(knot, knots, width)}</div><div>{words}</div></li>'
        )
    return (
        f'<section id="pipeline"><h2>Pipeline</h2><ol class="lineage">{"".join(lines)}</ol>{_legend(knots)}</section>'
    )


def _gutter(knot: Knot, knots: Sequence[Knot], width: int) -> str:
    """Head and rest of one line."""
    bends, straight = [], []
    for css, lane, first, last in _runs(knots):
        x, y = _x(lane), knot.row
        if first < y < last:
            bends.append(f'<path class="{css}" d="M{x} 0V{HEAD}"/>')
        if first <= y < last:
            straight.append(f'<path class="{css}" d="M{x} 0V10"/>')
    bends += _bends(knot, knots)
    return (
        f'<svg width="{width}" height="{HEAD}">{"".join(bends)}{_knot(knot)}</svg>'
        f'<svg class="rest" width="{width}" viewBox="0 0 {width} 10" preserveAspectRatio="none">{"".join(straight)}</svg>'
    )


def _runs(knots: Sequence[Knot]) -> Iterator[tuple[str, int, int, int]]:
    """(class, lane, first row, last row) of everything that runs straight down."""
    for knot in knots:
        if knot.parent:
            yield "model", knot.lane, knot.parent.row, knot.row
        for what in ("rows", "scores"):
            if rows := [user.row for user, own in knot.users if own == what]:
                yield what, knot.lane, knot.row, max(rows)


def _bends(knot: Knot, knots: Sequence[Knot]) -> list[str]:
    """What begins, ends or turns at the height of a knot."""
    x = _x(knot.lane)
    paths = []
    if knot.parent:
        paths.append(f'<path class="model" d="M{x} 0V{MIDDLE}"/>')
    for other in knots:
        if other.parent is knot:
            paths.append(f'<path class="model" d="M{x} {MIDDLE}{_curve(x, MIDDLE, _x(other.lane), HEAD)}"/>')
        for user, what in other.users:
            if user is knot:
                paths.append(f'<path class="{what}" d="M{_x(other.lane)} 0{_curve(_x(other.lane), 0, x, MIDDLE)}"/>')
    for what in dict.fromkeys(what for _, what in knot.users):
        paths.append(f'<path class="{what}" d="M{x} {MIDDLE}V{HEAD}"/>')
    return paths


def _curve(x: int, y: int, to_x: int, to_y: int) -> str:
    """On from (x, y) to another lane, leaving and arriving upright."""
    return f"V{to_y}" if x == to_x else f"C{x} {to_y} {to_x} {y} {to_x} {to_y}"


def _x(lane: int) -> int:
    return LEFT + LANE * lane


def _knot(knot: Knot) -> str:
    x, y = _x(knot.lane), MIDDLE
    css = f"knot k-{html.escape(knot.kind)}"
    match knot.kind:
        case "reject":
            return f'<rect class="{css}" x="{x - 5}" y="{y - 5}" width="10" height="10"/>'
        case "reward_model":
            return f'<path class="{css}" d="M{x} {y - 7}L{x + 7} {y}L{x} {y + 7}L{x - 7} {y}Z"/>'
        case _:
            return f'<circle class="{css}" cx="{x}" cy="{y}" r="5.5"/>'


def _initial_words(knot: Knot) -> str:
    return f'<p class="name"><i>{html.escape(knot.name)}</i> <span class="unit">initial model</span></p>'


def _words(stage: StageRecord, lineage: Lineage, results: Results) -> str:
    name = html.escape(stage.name)
    title = f'<a href="#stage-{name}">{name}</a>' if stage.begun else name
    kind = html.escape(KIND_WORDS.get(stage.kind, stage.kind))
    facts = [lineage.in_words(stage.name), *_found(stage, results)]
    facts.append(duration(stage.seconds) if stage.begun else "not begun")
    return (
        f'<p class="name"><b>{title}</b> <span class="unit">{kind}</span></p>'
        f'<p class="stage-facts">{_separate(facts)}</p>'
    )


def _separate(facts: Sequence[str]) -> str:
    """Each on one line where it fits."""
    return "".join(f'<span class="fact">{html.escape(fact)}</span>' for fact in facts)


def _found(stage: StageRecord, results: Results) -> Iterator[str]:
    """What came out of a stage, in a word or two."""
    row = next((row for row in results.rows if row.stage == stage.name and row.kind), None)
    if row and results.over_sets:
        column = results.over_sets[0]
        figure: Figure = column.figure
        value, change = column.cell(row).value, column.change(row)
        if value is not None:
            mean = "mean " if results.by_set else ""
            yield f"{mean}{figure.head} {figure.show(value)}" + (
                f" ({figure.change(change)})" if change is not None else ""
            )
    if stage.yields:
        samples, dropped = drops(stage.yields)
        yield f"{samples - sum(dropped.values()):,} rows of {samples:,} samples"
    judged = [record for record in stage.pair_evals if record.get("label") == "after"]
    shares = [share for record in judged if (share := as_number(record.get("accuracy"))) is not None]
    if shares:
        yield f"{100 * sum(shares) / len(shares):.1f} % of held-out pairs in order"
    if stage.parameters and stage.kind == "reward_model":
        yield parameter_words(stage.parameters)


def _legend(knots: Sequence[Knot]) -> str:
    kinds = {knot.kind for knot in knots}
    lines = {"model": "model"} | {what: f"{what}" for knot in knots for _, what in knot.users}
    keys = [
        f'<li><svg width="26" height="12"><path class="{css}" d="M1 6H25"/></svg>{words}</li>'
        for css, words in lines.items()
    ]
    said = {
        "initial": "initial model",
        "reject": "leaves rows",
        "reward_model": "leaves a reward model",
        "eval": "only judges",
    }
    for kind in said:
        if kind in kinds:
            sign = _knot(Knot(name="", kind=kind, row=0, lane=0))
            keys.append(f'<li><svg width="20" height="{HEAD}">{sign}</svg>{said[kind]}</li>')
    return f'<ul class="legend lineage-legend">{"".join(keys)}</ul>'
