"""The picture of a run: every stage on a line of its own, and beside it which model, rows and rewards go where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.config.stage_kinds import STAGE_KINDS, kind_of
from orchestrator.report.lanes import HEAD, REST, Gutter, Node, Sign, gutter, nodes_of, sign
from orchestrator.report.rejection import drops
from orchestrator.report.render import Section
from orchestrator.results.columns import Figure
from orchestrator.results.lineage import Lineage, lineage_of
from orchestrator.results.table import Results
from orchestrator.results.words import as_finite, duration, parameter_words, percent
from orchestrator.run.record import RunRecord, StageRecord

_LEFT = {"rows": "leaves rows", "rewards": "leaves a reward model", "nothing": "only evaluates"}
SIGNS = {"initial": "initial model"} | {
    name: _LEFT[kind.leaves] for name, kind in STAGE_KINDS.items() if kind.leaves in _LEFT
}
"""Kind of node → what its sign says, of those that the legend explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphLine:
    """A stage or an initial model, and what is drawn beside it."""

    gutter: Gutter
    name: str
    initial: bool
    kind: str
    """Kind of the stage in words."""
    begun: bool
    """There is something about this stage further down the page."""
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    lines: tuple[GraphLine, ...]
    strokes: tuple[str, ...]
    """What runs from node to node: `model`, `rows`, `scores`."""
    signs: tuple[tuple[Sign, str], ...]
    """Signs and what they mean."""
    head: int = HEAD
    rest: int = REST


def graph_section(run: RunRecord, results: Results) -> Section | None:
    """The pipeline as a picture; None for a run of one stage, which has none."""
    if len(run.stages) < 2:
        return None
    lineage = lineage_of(run)
    nodes = nodes_of(lineage)
    stages = {stage.name: stage for stage in run.stages}
    kinds = {node.kind for node in nodes}
    graph = Graph(
        lines=tuple(
            _initial_line(node, nodes)
            if node.kind == "initial"
            else _line(node, nodes, stages[node.name], lineage, results)
            for node in nodes
        ),
        strokes=tuple(dict.fromkeys(["model", *(what for node in nodes for _, what in node.users)])),
        signs=tuple((sign(kind), words) for kind, words in SIGNS.items() if kind in kinds),
    )
    return Section(anchor="pipeline", title="Pipeline", template="graph.html.j2", content=graph)


def _initial_line(node: Node, nodes: Sequence[Node]) -> GraphLine:
    return GraphLine(
        gutter=gutter(node, nodes), name=node.name, initial=True, kind="initial model", begun=False, facts=()
    )


def _line(node: Node, nodes: Sequence[Node], stage: StageRecord, lineage: Lineage, results: Results) -> GraphLine:
    took = duration(stage.seconds) if stage.begun else "not begun"
    return GraphLine(
        gutter=gutter(node, nodes),
        name=stage.name,
        initial=False,
        kind=kind_of(stage).words,
        begun=stage.begun,
        facts=(lineage.in_words(stage.name), *_outcome(stage, results), took),
    )


def _outcome(stage: StageRecord, results: Results) -> Iterator[str]:
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
    after = [record for record in stage.pair_evals if record.get("label") == "after"]
    shares = [share for record in after if (share := as_finite(record.get("accuracy"))) is not None]
    if shares:
        yield f"{percent(sum(shares) / len(shares))} of held-out pairs in order"
    if stage.parameters and kind_of(stage).leaves == "rewards":
        yield parameter_words(stage.parameters)
