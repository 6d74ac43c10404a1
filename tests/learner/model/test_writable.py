"""What cannot be written back is mended, or refused, when a model is opened, not at its export."""

from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from learner.model.writable import check_written_back, make_writable
from rollout.errors import InputError


def model(**generation: Any) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    made = Qwen2ForCausalLM(config)
    made.generation_config = GenerationConfig(eos_token_id=1, **generation)
    return made


@pytest.mark.parametrize(
    ("generation", "written"),
    [
        ({}, {}),
        ({"do_sample": True, "temperature": 0.7}, {"do_sample": True, "temperature": 0.7}),
        ({"temperature": 0.6, "top_p": 0.9}, {"do_sample": True, "temperature": 0.6, "top_p": 0.9}),
        ({"do_sample": False, "min_p": 0.1}, {"do_sample": True, "min_p": 0.1}),
        ({"pad_token_id": -1}, {}),
        ({"early_stopping": True, "length_penalty": 2.0}, {}),
        ({"temperature": 0.0}, {}),
    ],
)
def test_a_generation_config_is_written(generation: dict[str, Any], written: dict[str, Any], tmp_path: Path) -> None:
    made = model(**generation)
    make_writable(made)
    made.save_pretrained(tmp_path / "m")
    saved = GenerationConfig.from_pretrained(tmp_path / "m").to_diff_dict()
    assert {key: value for key, value in saved.items() if key != "transformers_version"} == {
        "eos_token_id": 1,
        **written,
    }


def test_a_temperature_in_the_config_moves_to_the_generation_config(tmp_path: Path) -> None:
    made = model()
    made.config.temperature = 0.7
    make_writable(made)
    made.save_pretrained(tmp_path / "m")
    assert GenerationConfig.from_pretrained(tmp_path / "m").temperature == 0.7


def test_what_cannot_be_mended_is_refused_with_the_reason(tmp_path: Path) -> None:
    made = model()
    made.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="cannot be written back, as its export will be: "):
        check_written_back(made, str(tmp_path / "m"), trust_remote_code=False)
