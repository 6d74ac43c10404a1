"""The checks together."""

import pytest

from orchestrator.checks.preflight import preflight
from orchestrator.config.load import load_recipe
from tests.orchestrator.factories import DOWNLOAD, recipe

pytestmark = pytest.mark.usefixtures("laptop")


def test_the_shipped_recipe_passes_without_a_note() -> None:
    assert preflight(load_recipe("arithmetic")) == []


def test_a_note_about_several_stages_is_given_once() -> None:
    stages = [{"name": "one", "kind": "grpo"}, {"name": "two", "kind": "grpo"}]
    assert preflight(recipe(stages=stages)) == [DOWNLOAD]
