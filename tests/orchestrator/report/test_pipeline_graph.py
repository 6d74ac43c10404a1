"""How the way of models, rows and rewards through a run is drawn."""

from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.report.lanes import Node, nodes_of
from orchestrator.report.pipeline_graph import Graph, graph_section
from orchestrator.results.lineage import Lineage, lineage_of
from orchestrator.results.table import results_of
from orchestrator.run.record import read_run
from tests.orchestrator.pipeline_run import STAGES, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def lineage(folder: Path) -> Lineage:
    return lineage_of(read_run(folder))


def spans(nodes: list[Node]) -> dict[int, list[tuple[int, int, str]]]:
    """Lane → (first row, last row, name) of everything in it; successors are part of what they go on with."""
    lanes: dict[int, list[tuple[int, int, str]]] = {}
    for node in nodes:
        successor = node.parent is not None and node.parent.successor is node
        if not successor:
            first = node.parent.row if node.parent else node.row
            lanes.setdefault(node.lane, []).append((first, node.end, node.name))
    return lanes


def test_no_two_lines_share_a_lane_at_a_row(lineage: Lineage) -> None:
    for own in spans(nodes_of(lineage)).values():
        own.sort()
        for (_, last, _), (first, _, _) in pairwise(own):
            assert last < first, own


def test_the_picture_is_narrow_and_has_all_stages_in_order(lineage: Lineage) -> None:
    nodes = nodes_of(lineage)
    assert [node.name for node in nodes if node.kind != "initial"] == [stage["name"] for stage in STAGES]
    assert [node.name for node in nodes if node.kind == "initial"] == list(lineage.initial.values())
    assert max(node.lane for node in nodes) <= 5
    for node in nodes:
        if node.successor:
            assert node.successor.lane == node.lane


def graph_of(folder: Path) -> Graph:
    run = read_run(folder)
    section = graph_section(run, results_of(run))
    assert section is not None
    graph: Graph = section.content
    return graph


def test_every_line_shows_what_begins_and_ends_there(folder: Path) -> None:
    lines = {line.name: line for line in graph_of(folder).lines}
    bends = {name: [stroke.css for stroke in line.gutter.head if "C" in stroke.path] for name, line in lines.items()}
    assert bends["tuned"].count("rows") == 1  # from the samples
    assert bends["tuned"].count("model") == 2  # to the reward model and the model of preferences
    assert bends["all-scenarios"] == ["scores"]
    assert "2,056 rows of 8,192 samples" in lines["samples"].facts
    assert "87.0 % of held-out pairs in order" in lines["helpful"].facts


def test_only_the_signs_that_occur_are_explained(folder: Path) -> None:
    signs = [(sign.kind, sign.shape) for sign, _ in graph_of(folder).signs]
    assert signs == [("initial", "circle"), ("reject", "square"), ("reward_model", "diamond"), ("eval", "circle")]


def test_a_run_of_one_stage_has_no_picture(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, stages=STAGES[:1]))
    assert graph_section(run, results_of(run)) is None
