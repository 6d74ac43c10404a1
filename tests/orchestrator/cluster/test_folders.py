"""What every node is asked of the folders of a run, and what is said of one that does not see them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import folders
from orchestrator.cluster.folders import check_folders, look
from orchestrator.config.load import load_recipe
from orchestrator.config.sections.cluster import ClusterSection
from orchestrator.data.prompts import PromptSets
from orchestrator.evaluation import standalone
from rollout.errors import InputError
from tests.orchestrator.factories import recipe


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folders, "SEEN_WITHIN_S", 0.0)
    monkeypatch.chdir(tmp_path)


def test_a_node_says_what_it_does_not_see(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine")
    (tmp_path / "q.jsonl").write_text("12345")
    (tmp_path / "model").mkdir()
    sizes = {"q.jsonl": 5, "model": -1, "*.jsonl": -1}
    assert look(f"{tmp_path}/token", "mine", sizes) == {"token": True, "storage": "", "faults": {}}
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
        ({"token": True, "storage": "", "faults": {}}, ""),
        ({"token": False, "storage": "", "faults": {}}, "--run RUN: node other (10.0.0.2) does not see this folder"),
        (
            {"token": True, "storage": "", "faults": {"data/q.jsonl": "is not there"}},
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
        return {"head (10.0.0.1)": {"token": True, "storage": "", "faults": {}}, "other (10.0.0.2)": answer}

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


def test_who_writes_no_run_leaves_nothing_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = load_recipe("arithmetic", ["data.sources.additions.path=data/q.jsonl", 'data.sources.additions.task=""'])

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "q.jsonl").touch()

    def ask(token: str, said: str, sizes: dict[str, Any]) -> dict[str, Any]:
        assert [path.name for path in tmp_path.rglob("*")] == ["data", "q.jsonl"]
        return {"other (10.0.0.2)": look(token, said, sizes)}

    monkeypatch.setattr(folders, "_ask_nodes", ask)
    check_folders(recipe, recipe.stages, None)


def test_an_evaluation_on_a_cluster_asks_for_what_it_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before engines start, by absolute paths: nodes are in other folders than whoever asks."""
    (tmp_path / "model").mkdir()
    (tmp_path / "q.jsonl").write_text("{}")

    def ask(token: str, said: str, sizes: dict[str, Any]) -> dict[str, Any]:
        assert (token, said) == ("", "")
        assert sizes == {f"{tmp_path}/q.jsonl": 2, f"{tmp_path}/model": -1}
        return {"other (10.0.0.2)": {"token": True, "storage": "", "faults": {f"{tmp_path}/model": "is not there"}}}

    @contextmanager
    def session(cluster: ClusterSection, name: str) -> Iterator[str]:
        yield "cpu"

    monkeypatch.setattr(folders, "_ask_nodes", ask)
    monkeypatch.setattr(standalone, "ray_session", session)
    monkeypatch.setattr(standalone, "stage_tokenizer", lambda *_: None)
    monkeypatch.setattr(standalone, "load_prompts", lambda *_, **__: PromptSets(prompts={}, skipped={}))
    sets = {"q": {"path": "q.jsonl"}}
    measured = recipe(model={"path": "model"}, eval={"sets": sets}, cluster={"address": "h:1"})
    with pytest.raises(InputError, match=rf"model.path = '{tmp_path}/model': is not there on node other"):
        standalone.evaluate_model(measured, "model")


def test_a_storage_is_tried_by_every_node_in_place_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{tmp_path}/storage/run"
    recipe = load_recipe("arithmetic", [f"cluster.storage=file://{tmp_path}/storage"])
    asked: dict[str, Any] = {}

    def ask(token: str, said: str, sizes: dict[str, Any]) -> dict[str, Any]:
        asked["own"] = look(token, said, sizes)
        asked["another"] = look(token, "what another storage says", sizes)
        asked["none"] = look(token.replace("storage", "elsewhere"), said, sizes)
        return {"head": asked["own"], "gpu2 (10.0.0.2)": asked["none"]}

    monkeypatch.setattr(folders, "_ask_nodes", ask)
    with pytest.raises(
        InputError, match=r"cluster\.storage = 'file:.*: node gpu2 \(10\.0\.0\.2\) may not use it"
    ) as caught:
        check_folders(recipe, recipe.stages, tmp_path / "not-there", uri)
    assert "\n" not in str(caught.value)
    assert asked["own"] == {"token": True, "storage": "", "faults": {}}
    assert "another token" in asked["another"]["storage"]
    assert "does not see there what the driver wrote" in asked["none"]["storage"]
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()], "the tokens are gone"
