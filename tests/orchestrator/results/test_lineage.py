"""Where models, rows and rewards come from."""

from pathlib import Path

import pytest

from orchestrator.results.lineage import Lineage, lineage_of
from orchestrator.run.record import read_run
from tests.orchestrator.pipeline_run import write_run


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
