"""The README tells today's truth where it can be checked."""

from pathlib import Path

from orchestrator.cli import run
from orchestrator.config import load_recipe, recipe_keys, shipped_recipes

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_table_of_keys_is_the_one_the_command_prints(capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(["recipes", "--keys"]) == 0
    assert capsys.readouterr().out.strip() in README, "paste the output of `rayzero recipes --keys` into the README"


def test_every_key_has_a_meaning() -> None:
    assert [key for key, _, _, meaning in recipe_keys() if not meaning] == []


def test_every_shipped_recipe_is_valid_or_says_what_it_needs() -> None:
    for name in shipped_recipes():
        needs = ["model.path=some/model"] if name == "gsm8k" else []
        assert load_recipe(name, needs).name == name
