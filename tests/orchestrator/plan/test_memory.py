"""Estimates of size, against numbers counted elsewhere or by hand."""

from pathlib import Path

import pytest

from learner.model.small import build_model
from orchestrator.cluster.specs import build_spec
from orchestrator.config.load import load_recipe
from orchestrator.plan.memory import adapter_parameters, memory, parameters
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


@pytest.mark.parametrize(
    ("dtype", "zero", "ranks", "factor"),
    [
        ("float32", 0, 2, 32),
        ("float32", 1, 2, 28),
        ("float32", 2, 2, 24),
        ("float32", 3, 2, 20),
        ("float32", 3, 1, 20),
        ("bfloat16", 0, 1, 20),
        ("bfloat16", 1, 2, 28),
        ("bfloat16", 2, 2, 20),
        ("bfloat16", 3, 2, 18),
    ],
)
def test_the_learners_memory_is_divided_as_zero_divides_it(
    dtype: str, zero: int, ranks: int, factor: int, tmp_path: Path
) -> None:
    model = {"path": str(model_folder(tmp_path / "m")), "dtype": dtype}
    parts = memory(recipe(model=model, learner={"zero_stage": zero, "ranks": ranks}).stages[0])
    assert parts["learner"] == 40 * factor
    copies = 1 if zero == 3 else ranks
    assert parts["reference"] == 40 * (4 if dtype == "float32" else 2) * copies


def test_a_model_that_is_not_here_has_no_estimate() -> None:
    assert memory(recipe().stages[0]) == {}


@pytest.mark.parametrize("targets", [[], ["q_proj", "down_proj"]])
def test_adapters_are_counted_as_peft_makes_them(targets: list[str], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    built = load_recipe("arithmetic", ["learner.lora_rank=4", f"learner.lora_targets={targets}"]).stages[0]
    build_model(build_spec(built, seed=1), iter(()), tmp_path / "m")
    read = recipe(model={"path": str(tmp_path / "m")}, learner={"lora_rank": 4, "lora_targets": targets}).stages[0]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    trained, _ = get_peft_model(
        model, LoraConfig(r=4, target_modules=targets or "all-linear")
    ).get_nb_trainable_parameters()
    assert adapter_parameters(built) == adapter_parameters(read) == trained


def test_a_frozen_base_needs_no_optimizer_and_is_the_reference(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    settings = {"lora_rank": 2, "ranks": 2, "kl_coef": 0.1}
    parts = memory(recipe(model={"path": str(folder)}, learner=settings).stages[0])
    assert parts["frozen base"] == 40 * 4 * 2
    assert "reference" not in parts
    sharded = memory(recipe(model={"path": str(folder)}, learner=settings | {"zero_stage": 3}).stages[0])
    assert sharded["frozen base"] == 40 * 4
