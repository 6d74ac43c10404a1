"""What an evaluation measures: the model of a run, and a recipe made for the purpose."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks.preflight import preflight
from orchestrator.config.load import load_recipe
from orchestrator.config.recipe import Recipe
from orchestrator.evaluation.recipe import evaluation_recipe
from orchestrator.run.folder import find_run, latest_export, model_to_evaluate
from orchestrator.run.store import RunStore
from rollout.errors import InputError
from tests.orchestrator.factories import fault, model_folder, recipe, write_rows

pytestmark = pytest.mark.usefixtures("laptop")


def finished_run(run_dir: Path) -> Path:
    RunStore(run_dir, load_recipe("arithmetic"))
    model_folder(run_dir / "cold-start" / "export")
    (run_dir / "reasoning" / "checkpoints" / "step-000020").mkdir(parents=True)
    return run_dir


def test_a_run_is_found_from_anywhere_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = finished_run(tmp_path / "r")
    for folder in (run_dir, run_dir / "cold-start" / "export", run_dir / "reasoning" / "checkpoints" / "step-000020"):
        found = find_run(folder)
        assert found is not None
        assert found.resolve() == run_dir.resolve()
    monkeypatch.chdir(run_dir / "cold-start")
    for folder in (Path(), Path("export")):
        assert find_run(folder) == run_dir.resolve()
    monkeypatch.chdir(tmp_path)
    assert find_run(Path("r/cold-start")) == Path("r")
    assert find_run(model_folder(tmp_path / "m")) is None
    assert find_run(Path("org/model")) is None


def test_the_newest_export_of_a_run_is_its_model(tmp_path: Path) -> None:
    run_dir = finished_run(tmp_path / "r")
    assert latest_export(run_dir, run_dir) == str(run_dir / "cold-start" / "export")
    assert latest_export(run_dir, run_dir / "cold-start" / "export") == str(run_dir / "cold-start" / "export")
    model_folder(run_dir / "reasoning" / "export")
    assert latest_export(run_dir, run_dir) == str(run_dir / "reasoning" / "export")
    assert latest_export(run_dir, run_dir / "cold-start") == str(run_dir / "cold-start" / "export")
    assert model_to_evaluate(f"{run_dir}/cold-start") == (run_dir, str(run_dir / "cold-start" / "export"))
    assert model_to_evaluate("org/model@main") == (None, "org/model@main")
    with pytest.raises(InputError, match=r"cold-start@8: is a checkpoint; .* `rayzero export .*/cold-start@8 DIR`"):
        model_to_evaluate(f"{run_dir}/cold-start@8")


def test_an_unfinished_stage_has_no_model(tmp_path: Path) -> None:
    run_dir = finished_run(tmp_path / "r")
    with pytest.raises(InputError, match="of reasoning no stage is finished; continue with `rayzero train"):
        latest_export(run_dir, run_dir / "reasoning" / "checkpoints" / "step-000020")


def evaluation(model: str, **more: Any) -> Recipe:
    arguments: dict[str, Any] = {
        "recipe": "",
        "overrides": (),
        "sets": (),
        "columns": {},
        "settings": {},
        "template": "",
    }
    return evaluation_recipe(model, **{**arguments, **more})


def test_an_evaluation_takes_sets_and_rubrics_of_the_last_stage(tmp_path: Path) -> None:
    model = str(model_folder(tmp_path / "m"))
    resolved = evaluation(model, recipe="arithmetic", overrides=["eval.max_tokens=32"], settings={"samples": 8})
    (stage,) = resolved.stages
    assert (stage.name, stage.model.path) == ("reasoning", model)
    assert list(stage.eval.sets) == ["held-out"]
    assert (stage.eval.samples, stage.eval.max_tokens, stage.eval.temperature) == (8, 32, 0.6)
    preflight(resolved, training=False)


def test_an_evaluation_without_a_recipe_fits_the_model(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    write_rows(tmp_path / "test.jsonl", [{"question": "1+1", "solution": "so #### 2"}])
    columns = {"prompt_column": "question", "answer_column": "solution", "answer_pattern": "#### (.+)"}
    resolved = evaluation(str(folder), sets=["mine=test.jsonl"], columns=columns, overrides=["rollout.replicas=2"])
    (stage,) = resolved.stages
    assert stage.model.max_tokens == 512
    assert stage.data.template == "r1-zero"
    assert stage.rollout.replicas == 2
    assert stage.eval.sets["mine"].prompt_column == "question"
    preflight(resolved, training=False)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert evaluation(str(folder), sets=["a=test.jsonl"], columns=columns).stages[0].data.template == "chat"


def test_a_run_lends_its_reward_models_to_an_evaluation(tmp_path: Path) -> None:
    pairs = {"path": "p.jsonl", "chosen_column": "good", "rejected_column": "bad"}
    chat = {"path": "p.jsonl", "baseline_column": "good", "rubric": "general"}
    rubrics = {"default": {"accuracy": 1.0}, "general": {"helpful": {"name": "reward_model", "path": "stage:helpful"}}}
    stages = [
        {"name": "helpful", "kind": "reward_model", "data": {"sources": {"a": pairs}}},
        {
            "name": "rl",
            "kind": "grpo",
            "data": {"sources": {"a": {"task": "arithmetic"}}},
            "eval": {"sets": {"chat": chat}},
        },
    ]
    run_dir = RunStore(tmp_path / "r", recipe(data={}, stages=stages, rewards={"rubrics": rubrics})).folder
    write_rows(tmp_path / "p.jsonl", [{"prompt": "hi", "good": "hello", "bad": "what"}])
    arguments: dict[str, Any] = {"recipe": str(run_dir / "recipe.toml")}
    with pytest.raises(InputError, match=r"a reward model that a run trains; evaluate the model of such a run"):
        evaluation("org/model", **arguments)
    export = model_folder(run_dir / "helpful" / "export")
    model = str(model_folder(run_dir / "rl" / "export"))
    resolved = evaluation(model, **arguments, run=run_dir)
    (stage,) = resolved.stages
    assert stage.rewards.rubrics["general"]["helpful"].model_extra == {"path": str(export), "scope": "answer"}
    assert stage.eval.sets["chat"].baseline_column == "good"
    preflight(resolved, training=False)


def test_a_model_is_compared_without_a_recipe(tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", [{"prompt": "hi", "chosen": "hello"}])
    rubric = 'rewards.rubrics.default={helpful={name="reward_model",path="org/helpful"}}'
    model = str(model_folder(tmp_path / "m"))
    columns = {"baseline_column": "chosen"}
    resolved = evaluation(model, sets=["chat=p.jsonl"], columns=columns, overrides=[rubric])
    (stage,) = resolved.stages
    assert (stage.eval.sets["chat"].baseline_column, stage.eval.sets["chat"].answer_column) == ("chosen", "")
    assert list(stage.rewards.rubrics["default"]) == ["helpful"]
    preflight(resolved, training=False)


HUMANEVAL = {"task_id": "t/0", "prompt": "def f():\n", "entry_point": "f", "test": "def check(candidate): pass"}


def test_published_sets_are_known_by_name(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "gsm8k.jsonl", [{"question": "1+1", "answer": "so\n#### 2"}, {"question": "x", "answer": "#### 3"}]
    )
    write_rows(tmp_path / "code.jsonl", [HUMANEVAL])
    write_rows(tmp_path / "mine.jsonl", [{"q": "1+1", "answer": "2"}])
    sets = ["gsm8k=gsm8k.jsonl", "humaneval=code.jsonl", "mine=mine.jsonl"]
    resolved = evaluation(
        str(model_folder(tmp_path / "m")), recipe="arithmetic", sets=sets, columns={"prompt_column": "q"}, limit=1
    )
    (stage,) = resolved.stages
    chosen = stage.eval.sets
    assert {name: (each.rubric, each.prompt_column, each.limit) for name, each in chosen.items()} == {
        "gsm8k": ("math", "question", 1),
        "humaneval": ("code", "prompt", 1),
        "mine": ("default", "q", 1),
    }
    assert set(stage.rewards.rubrics) == {"default", "math", "code"}
    preflight(resolved, training=False)


def test_a_file_that_is_not_the_published_set_is_found_before_anything_starts(tmp_path: Path) -> None:
    write_rows(tmp_path / "code.jsonl", [{"prompt": "def f():\n", "test": "x"}])
    resolved = evaluation(str(model_folder(tmp_path / "m")), sets=["humaneval=code.jsonl"])
    assert "is not humaneval as it is published: its first row has no entry_point" in fault(resolved)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "evaluate on what? give --set NAME=PATH"),
        ({"sets": ["test.jsonl"]}, "write it as NAME=PATH"),
        ({"recipe": "arithmetic", "columns": {"prompt_column": "q"}}, "--prompt-column describes the files of --set"),
        ({"sets": ["aime24=t"], "columns": {"prompt_column": "q"}}, "give a file with other columns another name"),
        ({"recipe": "arithmetic", "settings": {"samples": 0, "greedy": False}}, "decodes nothing"),
        ({"recipe": "arithmetic", "settings": {"top_p": 1.5}}, "eval.top_p"),
    ],
)
def test_an_evaluation_that_makes_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluation("org/model", **arguments)
    assert message in str(caught.value)


def test_a_model_of_a_run_is_asked_by_the_template_that_it_was_exported_with(tmp_path: Path) -> None:
    jinja = "{% for m in messages %}{{ m.content }}{% endfor %}{{ mood }}"
    (tmp_path / "my.jinja").write_text(jinja)
    write_rows(tmp_path / "set.jsonl", [{"prompt": "hi", "answer": "1"}])
    data = {"template": str(tmp_path / "my.jinja"), "system": "S", "template_args": {"mood": "good"}}
    asked = recipe(
        data={"sources": {"a": {"task": "arithmetic"}}, **data},
        eval={"sets": {"own": {"path": str(tmp_path / "set.jsonl")}}},
    )
    run_dir = RunStore(tmp_path / "r", asked).folder
    model = model_folder(run_dir / "rl" / "export")
    (model / "chat_template.jinja").write_text(jinja)
    (tmp_path / "my.jinja").unlink()

    def said(**more: Any) -> tuple[Any, ...]:
        found = evaluation(str(model), recipe=f"{run_dir}/", run=run_dir, **more)
        preflight(found, training=False)
        (stage,) = found.stages
        return stage.data.template, stage.data.system, stage.data.template_args

    assert said() == ("chat", "", {})
    assert said(overrides=["data.system=Other"]) == ("chat", "Other", {})
    assert said(overrides=["data.template_args.mood=bad"]) == ("chat", "", {"mood": "bad"})
    assert said(template="r1-zero", overrides=["data.system=Other"]) == ("r1-zero", "", {})
    # Another recipe says what it says.
    (stage,) = evaluation(str(model), recipe=str(run_dir / "recipe.toml")).stages
    assert (stage.data.template, stage.data.system) == (str(tmp_path / "my.jinja"), "S")
