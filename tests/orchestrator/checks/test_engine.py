"""Arguments of vLLM's engine in a recipe: known ones pass through, others are refused by name before anything starts."""

from typing import Any

import pytest

from orchestrator.checks import engine
from orchestrator.checks.engine import FIXED, OURS, check_engine_options, engine_arguments
from orchestrator.cluster.specs import engine_spec
from orchestrator.config.overrides import apply_overrides
from orchestrator.plan import machine
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
        (
            {"quantization": "awq"},
            "rollout.engine.quantization = 'awq' reads weights that were quantised before, and a publish sends whole ones; "
            "give one of fp8, ",
        ),
        ({"quantization": "pf8"}, "did you mean 'fp8'?"),
        ({"quantization": "fp8"}, "rollout.engine.quantization = 'fp8' is for engines on GPUs, and none is seen here"),
        ({"data_parallel_size": 2}, "it is rollout.replicas here, each an engine of its own; leave it out"),
    ],
)
def test_others_are_refused(options: dict[str, Any], words: str) -> None:
    assert words in fault(with_engine(**options))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"quantization": "fp8"}, "quantization = 'fp8'"),
        ({"kv_cache_dtype": "fp8_e5m2"}, "kv_cache_dtype = 'fp8_e5m2'"),
        ({"quantization": "fp8_per_block", "kv_cache_dtype": "fp8"}, "kv_cache_dtype = 'fp8'"),
    ],
)
def test_engines_that_round_are_audited_with_the_tolerance_that_the_recipe_gives(
    options: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: ("NVIDIA H100",))

    def notes(**sections: Any) -> list[str]:
        asked = recipe(rollout={"engine": options}, **sections)
        return check_engine_options(asked, asked.stages[0])

    (note,) = notes()
    assert f"rollout.engine.{named}: engines compute with rounded numbers" in note
    assert "set loop.audit_tolerance, such as 0.1" in note
    assert notes(loop={"audit_tolerance": 0.1}) == notes(loop={"audit_every": 0}) == []
    (note,) = notes(loop={"audit_tolerance": 0.1}, learner={"importance_cap": 0})
    assert "set learner.importance_cap=2" in note


def test_a_cache_as_wide_as_the_model_is_nothing_to_tell() -> None:
    asked = with_engine(kv_cache_dtype="bfloat16")
    assert check_engine_options(asked, asked.stages[0]) == []


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
