"""Where models, rows and rewards come from, and how that is drawn."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.report.pipeline_graph import Knot, knots_of, picture_section
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


def test_every_stage_says_where_it_takes_from(lineage: Lineage) -> None:
    taken = {name: (origin.parent, origin.rows_of, origin.scored_by) for name, origin in lineage.origins.items()}
    assert taken == {
        "base": ("", (), ()),
        "zero": ("", (), ()),
        "cold-start": ("", (), ()),
        "reasoning": ("cold-start", (), ()),
        "samples": ("reasoning", (), ()),
        "tuned": ("", ("samples",), ()),
        "helpful": ("tuned", (), ()),
        "all-scenarios": ("tuned", (), ("helpful",)),
        "preferred": ("tuned", (), ()),
        "student": ("", ("samples",), ()),
        "student-rl": ("student", (), ()),
        "student-rl-alone": ("", (), ()),
    }
    assert lineage.teachers_of("student") == ("reasoning",)
    assert lineage.teachers_of("tuned") == ()  # of the same initial model: no student


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ('model.path = "org/model"', "org/model"),
        ('model.path = "/data/models/small"', "small"),
        ('model.path = "./a/b"', "b"),
        ("model.build = { layers = 1, hidden = 64 }", "built here, 1 layer of 64"),
        ("", "initial model"),
    ],
)
def test_an_initial_model_is_named(tmp_path: Path, model: str, words: str) -> None:
    (tmp_path / "recipe.toml").write_text(f'[[stages]]\nname = "s"\nkind = "sft"\n{model}\n')
    assert list(lineage_of(read_run(tmp_path)).initial.values()) == [words]


def test_a_recipe_of_another_time_does_not_stop_the_report(tmp_path: Path) -> None:
    stages = '[[stages]]\nname = "s"\nkind = "ppo"\nmodel_from = "gone"\ndata.sources.a.stage = "gone"\n'
    (tmp_path / "recipe.toml").write_text(stages)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "stage": "unknown", "step": 1}\n')
    origins = lineage_of(read_run(tmp_path)).origins
    assert {name: (origin.parent, origin.rows_of) for name, origin in origins.items()} == {
        "s": ("", ()),
        "unknown": ("", ()),
    }


# The picture -----------------------------------------------------------------------------------------------------


def spans(knots: list[Knot]) -> dict[int, list[tuple[int, int, str]]]:
    """Lane → (first row, last row, name) of everything in it; heirs are part of what they go on with."""
    lanes: dict[int, list[tuple[int, int, str]]] = {}
    for knot in knots:
        heir = knot.parent is not None and knot.parent.heir is knot
        if not heir:
            first = knot.parent.row if knot.parent else knot.row
            lanes.setdefault(knot.lane, []).append((first, knot.end, knot.name))
    return lanes


def test_no_two_lines_share_a_lane_at_a_row(lineage: Lineage) -> None:
    for own in spans(knots_of(lineage)).values():
        own.sort()
        for (_, last, _), (first, _, _) in pairwise(own):
            assert last < first, own


def test_the_picture_is_narrow_and_has_all_stages_in_order(lineage: Lineage) -> None:
    knots = knots_of(lineage)
    assert [knot.name for knot in knots if knot.kind != "initial"] == [stage["name"] for stage in STAGES]
    assert [knot.name for knot in knots if knot.kind == "initial"] == list(lineage.initial.values())
    assert max(knot.lane for knot in knots) <= 5
    for knot in knots:
        if knot.heir:
            assert knot.heir.lane == knot.lane


def test_every_line_shows_what_begins_and_ends_there(folder: Path) -> None:
    run = read_run(folder)
    page = picture_section(run, results_of(run))
    lines = dict(zip(re.findall(r'<p class="name">(?:<b>)?(?:<a [^>]*>|<i>)?([^<]+)', page), page.split("<li>")[1:], strict=False))  # fmt: skip
    bends = {name: re.findall(r'<path class="(\w+)" d="[^"]*C', text) for name, text in lines.items()}
    assert bends["tuned"].count("rows") == 1  # from the samples
    assert bends["tuned"].count("model") == 2  # to the reward model and the model of preferences
    assert bends["all-scenarios"] == ["scores"]
    assert "2,056 rows of 8,192 samples" in lines["samples"]
    assert "87.0 % of held-out pairs in order" in lines["helpful"]


def test_a_run_of_one_stage_has_no_picture(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, stages=STAGES[:1]))
    assert picture_section(run, results_of(run)) == ""
