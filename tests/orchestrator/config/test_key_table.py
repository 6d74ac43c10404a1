"""The table of keys: complete, readable, and the one that is kept in KEYS.md."""

from pathlib import Path

import pytest

from orchestrator.cli import run
from orchestrator.config import key_table
from orchestrator.config.key_table import recipe_keys
from orchestrator.config.load import load_recipe, to_toml

KEPT = Path(key_table.__file__).with_name("KEYS.md")


def test_every_key_of_a_recipe_is_listed_once_with_its_default() -> None:
    keys = {row.key: row for row in recipe_keys()}
    assert len(keys) == len(list(recipe_keys()))
    assert (keys["learner.lr"].type, keys["learner.lr"].default) == ("`float`", "1e-06")
    assert keys["name"].default == "required"
    assert keys["learner.schedule"].type == '`"constant"` or `"cosine"`'
    assert keys["learner.lora_targets"].type == "list of `str`"
    for section, values in to_toml(load_recipe("arithmetic"))["stages"][0].items():
        if isinstance(values, dict) and section not in ("data", "eval", "model", "rewards"):
            assert {f"{section}.{key}" for key in values} <= set(keys)


def test_an_evaluation_set_has_the_keys_of_a_source_and_its_own() -> None:
    keys = {row.key: row.meaning for row in recipe_keys()}
    assert "data.sources.NAME.path" in keys
    assert "keys as in `data.sources`" in keys["eval.sets.NAME"]
    assert {key for key in keys if key.startswith("eval.sets.NAME.")} == {
        f"eval.sets.NAME.{own}" for own in ("correct", "baseline_column", "judged_by")
    }


def test_every_key_says_what_it_is_by_itself() -> None:
    for row in recipe_keys():
        assert row.meaning, f"{row.key} has no docstring"
        first = row.meaning.split()[0]
        assert first not in ("Of", "That", "As", "It", "Them", "Where", "How"), f"{row.key}: {row.meaning}"


def test_the_kept_table_is_the_one_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "--keys"]) == 0
    assert capsys.readouterr().out == KEPT.read_text(encoding="utf-8"), (
        "run: rayzero recipes --keys > orchestrator/config/KEYS.md"
    )


def test_the_table_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    run(["recipes", "--keys"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(list(recipe_keys()))
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)
