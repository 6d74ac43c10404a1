"""What a reward model's export says of padding, so that others read its score where it was trained."""

import json
from pathlib import Path

import pytest
import torch

from learner.model.policy import load_reward_model
from learner.model.small import build_model
from tests.learner.specs import build_spec


@pytest.mark.parametrize("ends", [1, [7, 1]])
def test_an_end_of_sequence_that_is_also_the_padding_is_read(tmp_path: Path, ends: int | list[int]) -> None:
    from transformers import AutoModelForSequenceClassification

    build_model(build_spec(), iter(()), tmp_path / "base")
    file = tmp_path / "base" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": ends, "pad_token_id": 1}))
    model = load_reward_model(str(tmp_path / "base"), torch.float32, trust_remote_code=False).model
    model.save_pretrained(tmp_path / "export")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export")
    row = torch.tensor([[20, 30, 1]])
    with torch.no_grad():
        by_hand = plain.score(plain.base_model(row).last_hidden_state[0, -1])
        torch.testing.assert_close(plain(row).logits[0], by_hand)
