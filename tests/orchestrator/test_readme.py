"""The README tells today's truth where it can be checked."""

import re
import tomllib
from pathlib import Path

import pytest

from orchestrator.checks.loss import check_loss
from orchestrator.checks.rewards import check_rewards
from orchestrator.config.load import load_recipe, parse_recipe, shipped_recipes
from orchestrator.config.trained_rewards import check_stage_models
from tests.orchestrator.factories import NEEDED

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_shipped_recipe_is_valid_or_says_what_it_needs() -> None:
    for name in shipped_recipes():
        assert load_recipe(name, NEEDED.get(name, ())).name == name


def test_every_loss_of_the_table_is_a_recipe_without_a_note() -> None:
    table = README.split("## Which loss")[1].split("\n## ")[0]
    settings = re.findall(r"^\| .* \| `(.*)` \|$", table, re.MULTILINE)
    assert len(settings) == 6
    for line in settings:
        recipe = load_recipe("arithmetic", line.split())
        assert [note for stage in recipe.stages for note in check_loss(recipe, stage)] == []


def test_the_stages_that_learn_from_preferences_are_a_recipe() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README.split("## Preferences")[1].split("\n## ")[0], re.DOTALL)
    recipe = parse_recipe({"name": "r", "model": {"path": "some/model"}} | tomllib.loads(text))
    assert [stage.kind for stage in recipe.stages] == ["reward_model", "grpo"]
    check_stage_models(recipe)


def test_general_questions_are_sampled_and_compared_as_described() -> None:
    rejected = next(text for text in re.findall(r"```toml\n(.*?)```", README, re.DOTALL) if "keep_thought" in text)
    (compared,) = re.findall(r"```toml\n(.*?)```", README.split("## Evaluation")[1].split("\n## ")[0], re.DOTALL)
    stages = tomllib.loads(rejected + compared)["stages"]
    recipe = parse_recipe({"name": "r", "model": {"path": "some/model"}, "stages": stages})
    (stage,) = recipe.stages
    assert stage.data.sources["chat"].keep_thought == "complex"
    assert list(stage.eval.prompt_sets) == ["chat"]
    check_rewards(recipe, stage)


def test_the_commands_and_the_recipe_of_the_r1_section() -> None:
    section = README.split("## The R1 recipe")[1].split("\n## ")[0]
    command = re.findall(r"^rayzero check r1 (.*?)^```", section, re.DOTALL | re.MULTILINE)
    recipe = load_recipe("r1", command[0].replace("\\\n", " ").split())
    for stage in recipe.stages:
        assert f"`{stage.name}`" in section
        for name, source in stage.data.sources.items():
            assert source.stage or f"`{name}`" in section
    (text,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    (talk,) = parse_recipe(tomllib.loads(text)).stages
    assert (talk.data.template, talk.data.sources["talk"].messages_column) == ("chat", "messages")


def test_the_reward_of_ones_own_is_found_by_the_command_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (override,) = re.findall(r"rayzero train gsm8k … '(.*)'", README)
    (tmp_path / "my_rewards.py").write_text(code.replace("\n  ", "\n").strip())
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("gsm8k", ["model.path=some/model", override])
    check_rewards(recipe, recipe.stages[0])
    assert "my_rewards.py:brevity" in str(recipe.stages[0].rewards.rubrics)
