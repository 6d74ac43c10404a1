"""bfloat16 is what the learner computes with; weights and sums of gradients are float32."""

from pathlib import Path

import numpy as np
import pytest

from tests.engine.conftest import Rig
from tests.engine.test_learner import cut, rows


def moved(rig: Rig, folder: Path, dtype: str, stage: int, steps: int) -> np.ndarray:
    """How far every weight of a layer goes in so many steps of 2e-5."""
    import torch
    from safetensors.torch import load_file

    name = "model.layers.0.mlp.up_proj.weight"
    rig.open(dtype=dtype, zero_stage=stage, lr=2e-5, beta1=0.0, beta2=0.99)
    for _ in range(steps):
        rig.run(rig.learner.train(cut(rows()), "grpo"))
    rig.run(rig.learner.export(folder, rig.folder))
    start, end = (load_file(Path(path) / "model.safetensors")[name].to(torch.float32) for path in (rig.folder, folder))
    return (end - start).numpy()


@pytest.mark.parametrize("stage", [0, 2])
def test_many_updates_that_are_each_too_small_for_bfloat16_add_up(rig: Rig, tmp_path: Path, stage: int) -> None:
    # Most weights are about 0.02, where the nearest bfloat16 are 1.2e-4 apart: a step of 2e-5 alone changes none.
    exact = moved(rig, tmp_path / "float32", "float32", 0, 40)
    half = moved(rig, tmp_path / "bfloat16", "bfloat16", stage, 40)
    far = np.abs(exact) > 5e-4
    assert far.mean() > 0.3
    assert np.corrcoef(exact[far], half[far])[0, 1] > 0.9
    assert np.abs(half[far]).mean() == pytest.approx(np.abs(exact[far]).mean(), rel=0.1)


def test_small_gradients_add_up(rig: Rig) -> None:
    # In bfloat16 a sum no longer changes once it is 256 times what is added.
    same = [rows()[0]] * 500
    norms = []
    for dtype, tokens in (("bfloat16", 1), ("float32", 100_000)):
        rig.open(dtype=dtype, lr=1e-6)
        norms.append(rig.run(rig.learner.train(cut(same, micro_batch_tokens=tokens), "grpo")).grad_norm)
    assert norms[0] == pytest.approx(norms[1], rel=0.02)
