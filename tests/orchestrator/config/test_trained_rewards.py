"""A rubric that names the reward model of an earlier stage: wrong names are told at once, right ones become folders."""

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks.preflight import preflight
from orchestrator.config.recipe import Recipe
from orchestrator.config.rubrics import rubrics_of
from orchestrator.config.trained_rewards import check_stage_models, exports_in, missing_models, with_stage_models
from rollout.errors import InputError
from tests.orchestrator.factories import recipe

PAIRS = {"path": "pairs.jsonl", "chosen_column": "good", "rejected_column": "bad"}
HELPFUL = {"name": "reward_model", "path": "stage:helpful"}


def staged(*names: str, rubric: str = "general", **function: Any) -> Recipe:
    """Stages by name, `rl` last unless it is among them; every rubric is a default of all."""
    kinds = {"rl": "grpo", "start": "sft"}
    stages = [
        {"name": name, "kind": kinds.get(name, "reward_model"), "data": {"sources": {"p": PAIRS}}}
        for name in names or ("start", "helpful", "rl")
    ]
    for stage in stages:
        if stage["kind"] != "reward_model":
            stage["data"] = {"sources": {"a": {"task": "arithmetic", "limit": 50, "rubric": rubric}}}
    rubrics = {"default": {"accuracy": 1.0}, "general": {"helpful": HELPFUL | function, "format": 0.1}}
    return recipe(data={}, stages=stages, rewards={"rubrics": rubrics})


def resolved(checked: Recipe, name: str) -> Any:
    stage = next(stage for stage in checked.stages if stage.name == name)
    return with_stage_models(checked, stage, lambda other: Path("/run") / other / "export")


def test_the_name_becomes_the_export_read_as_it_was_trained() -> None:
    checked = staged()
    check_stage_models(checked)
    rubrics = rubrics_of(resolved(checked, "rl"))
    helpful = next(function for function in rubrics["general"] if function.label == "helpful")
    assert (helpful.name, helpful.args) == ("reward_model", {"path": "/run/helpful/export", "scope": "answer"})
    assert next(function for function in rubrics["general"] if function.label == "format").weight == 0.1
    assert set(rubrics) == {"default", "general"}


def test_a_rubric_that_a_stage_does_not_use_may_name_what_is_not_there_yet() -> None:
    checked = staged("start", "rl", rubric="default")
    check_stage_models(checked)
    assert set(rubrics_of(resolved(checked, "rl"))) == {"default"}
    assert set(rubrics_of(resolved(checked, "start"))) == {"default"}


def test_a_stage_without_such_a_rubric_is_left_as_it_is() -> None:
    checked = recipe()
    assert resolved(checked, "rl") is checked.stages[0]


@pytest.mark.parametrize(
    ("names", "function", "message"),
    [
        (("start", "helpfull", "rl"), {}, "there is no stage 'helpful'; did you mean 'helpfull'?"),
        (("start", "rl", "helpful"), {}, "'helpful' is no reward_model stage before it"),
        (("start", "rl"), {"path": "stage:start"}, "'start' is no reward_model stage before it"),
        (("start", "rl"), {"path": "stage:"}, "there is no stage ''"),
        (("helpful", "rl"), {"scope": "response"}, "stage 'helpful' is trained on reward_model.scope = 'answer'"),
    ],
)
def test_a_wrong_name_is_told_before_anything_else(
    names: tuple[str, ...], function: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.checks.preflight.check_cluster", None)  # would fail
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        preflight(staged(*names, **function))
    assert "rewards.rubrics.general.helpful" in str(caught.value)
    assert "(stage rl)" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def compared(*names: str) -> Recipe:
    """As `staged`, where all stages evaluate a set by the reward model."""
    kinds = {"rl": "grpo", "start": "sft", "end": "eval"}
    sources = {"sources": {"a": {"task": "arithmetic", "limit": 50}}}
    stages: list[dict[str, Any]] = [{"name": name, "kind": kinds.get(name, "reward_model")} for name in names]
    for stage in stages:
        if stage["kind"] == "reward_model":
            stage["data"] = {"sources": {"p": PAIRS}}
        elif stage["kind"] != "eval":
            stage["data"] = sources
    chat = {"path": "t.jsonl", "baseline_column": "good", "rubric": "general"}
    rubrics = {"default": {"accuracy": 1.0}, "general": {"helpful": HELPFUL}}
    return recipe(data={}, stages=stages, rewards={"rubrics": rubrics}, eval={"sets": {"chat": chat}})


def test_a_reward_model_that_is_not_there_yet_is_told_with_the_way_out() -> None:
    check_stage_models(compared("helpful", "rl", "end"))
    with pytest.raises(InputError) as caught:
        check_stage_models(compared("start", "helpful", "rl"))
    first, second = str(caught.value).splitlines()
    assert "(stage start)" in first
    assert "'helpful' is no reward_model stage before it" in first
    assert second == (
        "eval.sets.chat: give it to the stages behind helpful alone ([stages.eval.sets]); there an `eval` stage with "
        'model_from = "start" evaluates the model of start too'
    )


def test_a_part_of_a_run_needs_the_models_that_it_scores_with() -> None:
    checked = compared("helpful", "rl", "end")
    assert list(missing_models(checked.stages, set())) == []
    assert list(missing_models(checked.stages[1:], {"helpful"})) == []
    assert list(missing_models(checked.stages[2:], set())) == [
        "stage end scores with the model of stage helpful, which is not finished"
    ]


def test_outside_of_a_run_there_is_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'path = "stage:a" is a reward model that a run trains; do this'):
        exports_in(None, "do this")("a")
    with pytest.raises(InputError, match=r"stage a of .* is not finished; continue with `rayzero train"):
        exports_in(tmp_path, "")("a")
    (tmp_path / "a" / "export").mkdir(parents=True)
    (tmp_path / "a" / "export" / "config.json").touch()
    assert exports_in(tmp_path, "")("a") == tmp_path / "a" / "export"
