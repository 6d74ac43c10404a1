"""Estimates of size, against numbers counted elsewhere or by hand."""

from pathlib import Path

import pytest

from learner.build import build_model
from orchestrator.config import load_recipe
from orchestrator.services import build_spec
from orchestrator.sizes import memory, parameters
from tests.orchestrator.factories import model_folder, recipe, safetensors

pytestmark = pytest.mark.usefixtures("laptop")


def test_parameters_are_read_from_the_headers_of_the_weights(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "more.safetensors").write_bytes(safetensors((3, 2)))
    assert parameters(recipe(model={"path": str(folder)}).stages[0].model) == 46


@pytest.mark.parametrize("settings", [(), ("model.build.tied=true", "model.build.kv_heads=2")])
def test_parameters_of_the_built_model_are_those_of_the_qwen2_it_is(settings: tuple[str, ...], tmp_path: Path) -> None:
    stage = load_recipe("arithmetic", settings).stages[0]
    assert parameters(stage.model) == build_model(build_spec(stage, seed=1), iter(()), tmp_path / "built")


@pytest.mark.parametrize(("zero", "ranks", "factor"), [(0, 2, 32), (1, 2, 24), (2, 2, 20), (3, 2, 16), (3, 1, 16)])
def test_the_learners_memory_is_divided_as_zero_divides_it(zero: int, ranks: int, factor: int, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    stage = recipe(model={"path": str(folder)}, learner={"zero_stage": zero, "ranks": ranks}).stages[0]
    parts = memory(stage)
    assert parts["learner"] == 40 * factor
    assert parts["reference"] == 40 * 4 * ranks


def test_a_model_that_is_not_here_has_no_estimate() -> None:
    assert memory(recipe().stages[0]) == {}
