"""Arguments of vLLM's engine in a recipe: known ones pass through, others are refused by name before anything starts."""

from typing import Any

import pytest

from orchestrator.checks import engine
from orchestrator.checks.engine import FIXED, OURS, engine_arguments
from orchestrator.cluster.specs import engine_spec
from orchestrator.config.overrides import apply_overrides
from rollout.engine import _with_options
from tests.orchestrator.factories import fault, preflight, recipe


def with_engine(**options: Any) -> Any:
    return recipe(rollout={"engine": options})


def test_the_installed_vllm_is_read_without_being_imported() -> None:
    known = engine_arguments()
    assert {"quantization", "kv_cache_dtype", "hf_overrides", "max_num_batched_tokens"} <= known
    assert set(OURS) | set(FIXED) <= known


def test_what_vllm_knows_passes_through() -> None:
    given = with_engine(max_num_batched_tokens=512, hf_overrides={"a": 1})
    preflight(given)
    assert dict(engine_spec(given.stages[0], "cpu").options) == {
        "max_num_batched_tokens": 512,
        "hf_overrides": {"a": 1},
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"quantisation": "fp8"},
            "rollout.engine.quantisation = 'fp8': vLLM has no such engine argument; did you mean 'quantization'?",
        ),
        ({"max_model_len": 99}, "rollout.engine.max_model_len = 99: set model.max_tokens in its place"),
        ({"data_parallel_size": 2}, "it is rollout.replicas here, each an engine of its own; leave it out"),
    ],
)
def test_others_are_refused(options: dict[str, Any], words: str) -> None:
    assert words in fault(with_engine(**options))


def test_without_vllm_nothing_is_said_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    engine_arguments.cache_clear()
    try:
        assert engine_arguments() == frozenset()
        preflight(with_engine(anything=1))
    finally:
        engine_arguments.cache_clear()


def test_options_stand_above_what_is_chosen_and_tables_are_put_together() -> None:
    chosen = {"max_num_batched_tokens": 8192, "hf_overrides": {"head_dtype": "float32"}}
    merged = _with_options(chosen, {"hf_overrides": {"rope_theta": 5}, "max_num_batched_tokens": 64, "seed": 3})
    assert merged == {
        "max_num_batched_tokens": 64,
        "hf_overrides": {"head_dtype": "float32", "rope_theta": 5},
        "seed": 3,
    }


def test_they_can_be_given_on_the_command_line() -> None:
    raw = {"name": "x", "stages": [{"name": "rl", "kind": "grpo"}]}
    changed = apply_overrides(raw, ["rollout.engine.quantization=fp8"], ["rollout"])
    assert changed["rollout"]["engine"] == {"quantization": "fp8"}
