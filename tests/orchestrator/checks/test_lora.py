"""Adapters that cannot be made are found before anything starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from orchestrator.checks.lora import check_lora
from rollout.errors import InputError
from tests.orchestrator.factories import model_folder, recipe


def notes(path: str = "org/model", **settings: Any) -> list[str]:
    checked = recipe(model={"path": path}, learner=settings)
    return check_lora(checked, checked.stages[0])


def test_a_target_that_the_model_does_not_have_is_named_with_those_it_has(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    names = ("layers.0.self_attn.q_proj", "layers.0.self_attn.v_proj", "embed_tokens")
    save_file({f"model.{name}.weight": np.zeros((2, 2)) for name in names}, folder / "model.safetensors")
    assert notes(str(folder), lora_rank=4, lora_targets=["q_proj"], lr=1e-4) == []
    for target in ("q_prj", "embed_tokens"):
        with pytest.raises(
            InputError, match=f"learner.lora_targets: '{target}' is no linear layer .*: q_proj, v_proj$"
        ):
            notes(str(folder), lora_rank=4, lora_targets=[target], lr=1e-4)


def test_a_rate_for_whole_models_is_noted() -> None:
    (note,) = notes(lora_rank=4)
    assert note.startswith("learner.lr = 1e-06 is small for adapters")
    assert notes(lora_rank=4, lr=1e-4) == []
    assert notes() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 513}, "less than or equal to 512"),
        ({"lora_rank": 4, "lora_alpha": 0}, "greater than 0"),
        ({"lora_rank": 4, "reference_refresh_steps": 4}, "cannot be refreshed; set it to 0"),
    ],
)
def test_what_contradicts_itself_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe(learner=settings)
