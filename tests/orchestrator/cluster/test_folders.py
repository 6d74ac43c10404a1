"""What every node is asked of the folders of a run, and what is said of one that does not see them."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import folders
from orchestrator.cluster.folders import check_folders, look
from orchestrator.config.load import load_recipe
from rollout.errors import InputError


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folders, "SEEN_WITHIN_S", 0.0)
    monkeypatch.chdir(tmp_path)


def test_a_node_says_what_it_does_not_see(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine")
    (tmp_path / "q.jsonl").write_text("12345")
    (tmp_path / "model").mkdir()
    sizes = {"q.jsonl": 5, "model": -1, "*.jsonl": -1}
    assert look(f"{tmp_path}/token", "mine", sizes) == {"token": True, "faults": {}}
    assert look(f"{tmp_path}/token", "another run's", {})["token"] is False
    assert look(f"{tmp_path}/none", "mine", {})["token"] is False
    wrong = {"none.jsonl": 5, "q.jsonl": 6, "model": 5, "*.csv": -1}
    assert look(f"{tmp_path}/token", "mine", wrong)["faults"] == {
        "none.jsonl": "is not there",
        "q.jsonl": "is another file (5 bytes, 6 here)",
        "model": "is of another kind",
        "*.csv": "is not there",
    }


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"token": True, "faults": {}}, ""),
        ({"token": False, "faults": {}}, "--run RUN: node other (10.0.0.2) does not see this folder"),
        (
            {"token": True, "faults": {"data/q.jsonl": "is not there"}},
            "data.sources.additions.path = 'data/q.jsonl': is not there on node other (10.0.0.2)",
        ),
    ],
)
def test_the_error_names_node_and_folder(
    answer: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["data.sources.additions.path=data/q.jsonl", 'data.sources.additions.task=""']
    recipe = load_recipe("arithmetic", settings)
    asked = []

    def ask(token: str, said: str, sizes: dict[str, Any]) -> dict[str, Any]:
        assert Path(token).read_text() == said
        asked.append(sizes)
        return {"head (10.0.0.1)": {"token": True, "faults": {}}, "other (10.0.0.2)": answer}

    monkeypatch.setattr(folders, "_ask_nodes", ask)
    run = tmp_path / "run"
    run.mkdir()
    if said:
        with pytest.raises(InputError) as caught:
            check_folders(recipe, recipe.stages, run)
        assert str(caught.value).startswith(said.replace("RUN", str(run)))
        assert "\n" not in str(caught.value)
    else:
        check_folders(recipe, recipe.stages, run)
    assert asked == [{"data/q.jsonl": None}]
    assert list(run.iterdir()) == [], "the token is gone"
