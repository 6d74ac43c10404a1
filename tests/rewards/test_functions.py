"""Names of reward functions of ours that have moved."""

import importlib
import importlib.util
import inspect

import pytest

from rewards.functions import MOVED, check_name, current_name
from rollout.errors import InputError


def test_a_moved_name_is_translated_and_refused() -> None:
    assert current_name("rollout.tasks.manners:quality") == "rollout.data.tasks.manners:quality"
    with pytest.raises(
        InputError, match=r"'rewards\.language:f' has moved; its name is now 'rewards\.text\.language:f'"
    ):
        check_name("rewards.language:f")


@pytest.mark.parametrize(
    "name",
    ["accuracy", "length", "mine.py:score", "rewards/language.py:f", "rewards.languages:f", "rewards.text.length:f"],
)
def test_every_other_name_stays(name: str) -> None:
    assert current_name(name) == name
    check_name(name)


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_moved_module_is_where_the_table_says(old: str, new: str) -> None:
    functions = inspect.getmembers(importlib.import_module(new), inspect.isfunction)
    forms = [list(inspect.signature(function).parameters)[:3] for _, function in functions]
    assert ["prompt", "completion", "reference"] in forms
    parent = old.rpartition(".")[0]
    assert importlib.util.find_spec(parent) is None or importlib.util.find_spec(old) is None
