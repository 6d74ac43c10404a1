"""What lies beside DeepSpeed's files in a checkpoint. That the files load into any layout: tests/engine/test_ranks.py."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from learner.checkpoint import load_random_state, read_record, save_random_state


def draw() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.rand()), random.random()


def test_random_states_go_on_where_they_were_saved(tmp_path: Path) -> None:
    save_random_state(tmp_path, rank=1)
    drawn = draw()
    assert draw() != drawn
    load_random_state(tmp_path, rank=1)
    assert draw() == drawn


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no learner checkpoint"):
        read_record(tmp_path)
