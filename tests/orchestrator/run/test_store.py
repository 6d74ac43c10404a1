"""The run directory: every file whole or absent, and readable by others."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import load_recipe
from orchestrator.config.recipe import Recipe
from orchestrator.run.files import begin_folder, complete
from orchestrator.run.folder import stored_recipe
from orchestrator.run.store import RunStore
from rollout.errors import InputError


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("arithmetic", ["seed=7", "learner.lr=3e-5"])


@pytest.fixture
def store(tmp_path: Path, recipe: Recipe) -> RunStore:
    return RunStore(tmp_path / "run", recipe)


def lines(store: RunStore) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store.folder / "metrics.jsonl").read_text().splitlines()]


# --- Recipe


def test_the_stored_recipe_is_the_recipe(store: RunStore, recipe: Recipe) -> None:
    assert stored_recipe(store.folder) == recipe
    assert tomllib.loads((store.folder / "recipe.toml").read_text())["seed"] == 7


@pytest.mark.parametrize("name", ["here", "not/there"])
def test_no_run_has_no_recipe(tmp_path: Path, name: str) -> None:
    (tmp_path / "here").mkdir()
    assert stored_recipe(tmp_path / name) is None


@pytest.mark.parametrize("text", ["not toml [", "unknown_key = 1\n", 'name = "x"\n', b"\xff\xfe"])
def test_an_unreadable_recipe_is_an_input_error(tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / "recipe.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"recipe\.toml is not a recipe of this version"):
        stored_recipe(tmp_path)


# --- Metrics


def test_metrics_are_one_object_a_line(store: RunStore) -> None:
    store.record("step", "cold", step=1, **{"learner/loss": 0.5, "text": "two\nlines"})
    store.record("eval", "cold", step=1, greedy=None)
    first, second = lines(store)
    assert (first["kind"], first["stage"], first["step"], first["learner/loss"]) == ("step", "cold", 1, 0.5)
    assert first["text"] == "two\nlines"
    assert second["greedy"] is None
    assert first["time"] <= second["time"]


@pytest.mark.parametrize(
    ("torn", "kept"), [(b'{"kind": "st', 0), (b'{"a": 1}\n{"kind', 1), (b'{"a": 1}\n', 1), (b"", 0)]
)
def test_a_torn_line_is_dropped_on_opening(tmp_path: Path, recipe: Recipe, torn: bytes, kept: int) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(torn)
    store = RunStore(tmp_path, recipe)
    store.record("step", "s", step=1)
    found = lines(store)
    assert len(found) == kept + 1
    assert found[-1]["step"] == 1


# --- Checkpoints


def save(store: RunStore, step: int, keep: int = 2, text: str = "state") -> Path:
    folder = store.checkpoint_folder("rl", step)
    aside = begin_folder(folder)
    (aside / "deep").mkdir()
    (aside / "deep" / "state.json").write_text(text)
    complete(folder)
    store.keep_checkpoints("rl", keep)
    return folder


def test_the_newest_checkpoints_are_kept(store: RunStore) -> None:
    for step in (5, 10, 95, 100):
        path = save(store, step)
        assert store.checkpoints("rl")[-1] == path
    assert [path.name for path in store.checkpoints("rl")] == ["step-000095", "step-000100"]
    assert sorted(path.name for path in path.parent.iterdir()) == ["step-000095", "step-000100"]
    assert (path / "deep/state.json").read_text() == "state"


def test_the_best_checkpoint_stays_beside_the_newest(store: RunStore) -> None:
    for step in (5, 10, 95, 1_000_000):
        save(store, step, keep=9)
    store.keep_checkpoints("rl", 2, best=5)
    assert [path.name for path in store.checkpoints("rl")] == ["step-000005", "step-000095", "step-1000000"]


def test_one_being_written_is_none(store: RunStore) -> None:
    assert store.checkpoints("rl") == []
    save(store, 5)
    aside = begin_folder(store.checkpoint_folder("rl", 10))
    (aside / "half").write_text("…")
    assert [path.name for path in store.checkpoints("rl")] == ["step-000005"]
    again = begin_folder(store.checkpoint_folder("rl", 10))
    assert again == aside
    assert list(again.iterdir()) == []


def test_a_checkpoint_made_again_replaces_the_first(store: RunStore) -> None:
    save(store, 5, text="old")
    assert (save(store, 5, text="new") / "deep/state.json").read_text() == "new"
    assert len(store.checkpoints("rl")) == 1


def test_stages_do_not_share_checkpoints(store: RunStore) -> None:
    save(store, 5, keep=1)
    assert store.checkpoints("sft") == []


@pytest.mark.parametrize("name", ["step-000010.part", "step-1234567.part", "step-000005.old.part"])
def test_a_half_written_checkpoint_is_swept_when_the_run_is_opened_again(
    store: RunStore, recipe: Recipe, name: str
) -> None:
    for stage in recipe.stages:
        store.checkpoint_folder(stage.name, 5).mkdir(parents=True)
        (store.folder / stage.name / "checkpoints" / name / "rank-0").mkdir(parents=True)
    RunStore(store.folder, recipe)
    assert set(store.folder.glob("*/checkpoints/*")) == {
        store.checkpoint_folder(stage.name, 5) for stage in recipe.stages
    }


def test_a_checkpoint_that_was_moved_away_for_a_newer_one_is_put_back(store: RunStore, recipe: Recipe) -> None:
    moved = store.folder / "cold-start/checkpoints/step-000005.old.part"
    (moved / "rank-0").mkdir(parents=True)
    (store.folder / "cold-start/checkpoints/step-000005.part").mkdir()
    RunStore(store.folder, recipe)
    assert [path.name for path in store.checkpoints("cold-start")] == ["step-000005"]
    assert (store.checkpoint_folder("cold-start", 5) / "rank-0").is_dir()
    assert len(list(moved.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "name",
    [
        "cold-start/checkpoints/step-10.part",
        "cold-start/checkpoints/step-000010.part.old",
        "cold-start/checkpoints/step-000010-mine.part",
        "cold-start/checkpoints/my-step-000010.part",
        "cold-start/checkpoints/deeper/step-000010.part",
        "cold-start/step-000010.part",
        "mine/checkpoints/step-000010.part",
    ],
)
def test_nothing_else_is_swept(store: RunStore, recipe: Recipe, name: str) -> None:
    (store.folder / name).mkdir(parents=True)
    RunStore(store.folder, recipe)
    assert (store.folder / name).is_dir()


def test_neither_a_file_nor_what_a_link_leads_to_is_swept(store: RunStore, recipe: Recipe, tmp_path: Path) -> None:
    folder, elsewhere = store.folder / "cold-start/checkpoints", tmp_path / "elsewhere"
    folder.mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (folder / "step-000001.part").symlink_to(elsewhere)
    (folder / "step-000002.part").touch()
    RunStore(store.folder, recipe)
    assert (folder / "step-000001.part" / "file").exists()
    assert (folder / "step-000002.part").is_file()


# --- Exports


def test_an_export_finishes_a_stage_and_the_link_follows(store: RunStore) -> None:
    for stage in ("sft", "rl"):
        assert not store.is_finished(stage)
        store.export_folder(stage).mkdir(parents=True)
        (store.export_folder(stage) / "config.json").write_text(stage)
        assert store.is_finished(stage)
        store.link_export(stage)
        assert (store.folder / "export/config.json").read_text() == stage
    assert not (store.folder / "export").readlink().is_absolute()  # the run directory may be moved


def test_a_copy_of_a_run_that_lost_its_link_is_told_so(store: RunStore) -> None:
    (store.folder / "export").mkdir()
    with pytest.raises(InputError, match=r"export is a folder and not the link that it was; remove it: rm -r "):
        store.link_export("sft")
