"""Trackers that a recipe asks for and this machine does not have."""

import tomllib
from pathlib import Path

import pytest

from orchestrator.checks.trackers import check_trackers, is_installed
from orchestrator.config.sections.tracking import LIBRARIES
from rollout.errors import InputError
from tests.orchestrator.factories import recipe


def test_a_missing_tracker_is_a_note_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").write_text("raise RuntimeError('imported')")
    (note,) = check_trackers(recipe(track=["wandb", "mlflow"]))
    assert note.startswith("track: wandb is not installed")
    assert "pip install -e '.[wandb]'" in note


def test_the_folder_that_wandb_leaves_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    (tmp_path / "wandb").mkdir()
    assert not is_installed("wandb")


def test_every_tracker_has_an_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert all(extras[name][0].startswith(name) for name in LIBRARIES)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"track": ["wandb", "wandb"]}, "once"),
        ({"track": ["comet"]}, "wandb"),
        ({"tracking": {"mlflow_uri": "https://me:pw@host"}}, "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        recipe(**keys)
