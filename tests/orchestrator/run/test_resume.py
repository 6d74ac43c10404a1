"""Which folder takes a run, and which run a recipe continues."""

import os
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from orchestrator.checks.preflight import preflight
from orchestrator.config.keys import flat
from orchestrator.config.load import RECIPES, load_recipe, parse_recipe, to_toml
from orchestrator.config.recipe import Recipe
from orchestrator.run.lock import run_lock
from orchestrator.run.resume import FREE, SELECTION, changes, check_run_dir
from orchestrator.run.store import RunStore
from rollout.errors import InputError
from tests.orchestrator.factories import recipe


def begun(run_dir: Path, started: Recipe) -> Path:
    """A run that got to its first checkpoint."""
    opened(run_dir, started)
    (run_dir / started.stages[0].name / "checkpoints" / "step-000001").mkdir(parents=True)
    return run_dir


def opened(run_dir: Path, started: Recipe) -> None:
    """A run that has not got anywhere yet."""
    with run_lock(run_dir):
        RunStore(run_dir, started)


def test_a_new_folder_holds_no_run(tmp_path: Path) -> None:
    assert check_run_dir(recipe(), tmp_path / "runs" / "small") is False


def test_the_same_recipe_continues(tmp_path: Path) -> None:
    assert check_run_dir(recipe(), begun(tmp_path / "r", recipe())) is True


def test_another_cluster_and_more_steps_continue(tmp_path: Path) -> None:
    run_dir = begun(tmp_path / "r", recipe(loop={"steps": 10}))
    assert check_run_dir(recipe(loop={"steps": 20}, cluster={"address": "auto"}, description="x"), run_dir) is True


def test_other_ranks_stages_and_replicas_continue(tmp_path: Path) -> None:
    run_dir = begun(tmp_path / "r", recipe())
    learner = {"ranks": 2, "zero_stage": 3, "offload_optimizer": True, "resources": {"ranks": 1}}
    assert check_run_dir(recipe(learner=learner, rollout={"replicas": 2}), run_dir) is True


def test_the_keys_that_may_change_are_keys() -> None:
    stage = recipe().stages[0].model_dump(mode="json")
    tables = {f"{section}.{key}" for section, keys in stage.items() if isinstance(keys, dict) for key in keys}
    assert flat(stage).keys() | tables >= FREE


def test_other_settings_are_refused_and_listed(tmp_path: Path) -> None:
    run_dir = begun(tmp_path / "r", load_recipe("arithmetic"))
    with pytest.raises(InputError) as caught:
        check_run_dir(load_recipe("arithmetic", ["seed=2", "stages.cold-start.learner.lr=1"]), run_dir)
    text = str(caught.value)
    assert "seed: 1 → 2" in text
    assert "learner.lr: 0.002 → 1.0 (stage cold-start)" in text
    assert f"rayzero train {run_dir}" in text
    assert "--run DIR" in text


def test_a_start_that_failed_at_once_may_be_tried_with_other_settings(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "r", recipe())
    store.record("stage", "rl", event="start")
    assert check_run_dir(recipe(seed=2), tmp_path / "r") is False
    store.record("step", "rl", step=1)
    with pytest.raises(InputError, match="seed: 1 → 2"):
        check_run_dir(recipe(seed=2), tmp_path / "r")


def test_at_most_five_changes_are_listed(tmp_path: Path) -> None:
    run_dir = begun(tmp_path / "r", recipe())
    other = recipe(seed=2, learner={"lr": 1, "mini_batches": 2, "beta1": 0.5, "beta2": 0.5, "warmup_steps": 3})
    with pytest.raises(InputError) as caught:
        check_run_dir(other, run_dir)
    assert str(caught.value).count("→") == 5
    assert "and 1 more" in str(caught.value)


def test_changes_name_what_came_and_what_went() -> None:
    more = recipe(data={"sources": {"b": {"task": "arithmetic"}}}, loop={"steps": 5})
    found = changes(recipe(), more, {"rl"}, set())
    assert 'data.sources.a.task: "arithmetic" → none' in found
    assert 'data.sources.b.task: none → "arithmetic"' in found
    assert "loop.steps: 100 → 5" in found


def two_stages(**second: Any) -> Recipe:
    stages = to_toml(recipe())["stages"]
    return parse_recipe({**to_toml(recipe()), "stages": [*stages, {**stages[0], "name": "z", **second}]})


def test_a_stage_that_has_not_begun_may_come_go_and_change(tmp_path: Path) -> None:
    run_dir = begun(tmp_path / "r", two_stages())
    other = two_stages(learner={"lr": 0.5}, kind="sft", data={"sources": {"b": {"task": "arithmetic"}}})
    assert check_run_dir(other, run_dir) is True
    assert check_run_dir(recipe(), run_dir) is True


def test_a_finished_stage_is_what_it_was(tmp_path: Path) -> None:
    run_dir = begun(tmp_path / "r", two_stages())
    RunStore(run_dir, two_stages()).finish("rl")
    assert changes(recipe(), recipe(loop={"steps": 200}), {"rl"}, {"rl"}) == ["loop.steps: 100 → 200"]
    with pytest.raises(InputError, match=r"loop.steps: 100 → 200 \(stage rl\)"):
        check_run_dir(parse_recipe(longer(two_stages(), "rl")), run_dir)
    assert check_run_dir(parse_recipe(longer(two_stages(), "z")), run_dir) is True


def longer(of: Recipe, stage: str) -> dict[str, Any]:
    raw = to_toml(of)
    next(each for each in raw["stages"] if each["name"] == stage)["loop"]["steps"] = 200
    return raw


def test_what_is_kept_of_samples_may_change_until_the_rows_are_left() -> None:
    def sampled(**keys: Any) -> Recipe:
        return recipe(stages=[{"name": "s", "kind": "reject", "reject": keys}])

    looser = sampled(keep="best", keep_at_most=4, filters=["code_blocks"], near_duplicate=1)
    assert changes(sampled(), looser, {"s"}, set()) == []
    assert len(changes(sampled(), looser, {"s"}, {"s"})) == 4
    assert changes(sampled(), sampled(samples=8), {"s"}, set()) == ["reject.samples: 4 → 8"]
    # Flags that no sample was looked at for.
    (change,) = changes(sampled(filters=[]), sampled(), {"s"}, set())
    assert change.startswith("reject.filters: [] → ")


def test_the_keys_of_selection_are_keys() -> None:
    assert flat(recipe().stages[0].model_dump(mode="json")).keys() >= SELECTION


def test_a_stage_that_has_begun_stays_and_keeps_its_parent() -> None:
    assert changes(two_stages(), recipe(), {"rl", "z"}, set()) == ["stage z: has begun, but is gone from the recipe"]
    found = changes(two_stages(), two_stages(model_from="own"), {"rl", "z"}, set())
    assert 'model_from: "" → "own" (stage z)' in found
    assert "stage z: starts from stage rl → its model section" in found


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds files, but no run"):
        check_run_dir(recipe(), tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("x")
    with pytest.raises(InputError, match="is a file, not a folder"):
        check_run_dir(recipe(), tmp_path / "r")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o500)
    with pytest.raises(InputError, match="is not writable"):
        check_run_dir(recipe(), tmp_path / "r" / "x")


@pytest.mark.parametrize("named", ["r1-tiny", "the run"])
def test_a_run_whose_reward_functions_have_moved_since_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """By the recipe that it began with, as it ships today, and by its folder. A recipe of the user's is told the new name."""
    monkeypatch.chdir(tmp_path)
    run_dir = begun(tmp_path / "runs" / "mine", load_recipe("r1-tiny"))
    stored = run_dir / "recipe.toml"
    stored.write_text(stored.read_text().replace("rollout.data.tasks.manners", "rollout.tasks.manners"))
    assert "rollout.tasks.manners:quality" in stored.read_text()
    assert check_run_dir(load_recipe(named if named == "r1-tiny" else "runs/mine"), run_dir) is True
    with pytest.raises(InputError, match=r"has moved; its name is now 'rollout.data.tasks.manners:quality'"):
        preflight(load_recipe("runs/mine/recipe.toml"))


def test_a_recipe_of_the_user_s_own_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(to_toml(recipe())))
    with pytest.raises(InputError, match=r"its recipe.toml is of no run, and a run would write over it"):
        check_run_dir(recipe(), tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[stages.rewards.rubrics.default]\naccuracy = 1.0", ""),
        ("[stages.rewards.rubrics.default]\naccuracy.weight = 1.0", ""),
        ("rewards = 3", "stage"),
        ("[stages.rewards]\nrubrics = 3", "rubrics"),
    ],
)
def test_a_folder_with_a_recipe_of_the_user_s_own_is_read_as_a_file_is(tmp_path: Path, line: str, message: str) -> None:
    shipped = (RECIPES / "arithmetic.toml").read_text().partition("[[stages]]\n# What pays")[0]
    (tmp_path / "recipe.toml").write_text(f"{shipped}\n{line}\n")
    if not message:
        assert load_recipe(f"{tmp_path}/").stages[0].rewards.rubrics["default"]["accuracy"].weight == 1.0
        return
    with pytest.raises(InputError, match=message):
        load_recipe(f"{tmp_path}/")
    (tmp_path / "recipe.toml").write_text('name = "x"\nstages = 3\n')
    with pytest.raises(InputError, match="stages = 3"):
        load_recipe(f"{tmp_path}/")
