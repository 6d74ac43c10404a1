"""The recipe: overrides, merging of stages, messages, and that reading one imports nothing heavy."""

import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from orchestrator.config.load import STORED, load_recipe, parse_recipe, run_folder, shipped_recipes, to_toml
from orchestrator.config.recipe import Recipe
from orchestrator.config.sections.data import SourceSection
from orchestrator.config.sections.eval import EvalSetSection
from rollout.data.rows import Source
from rollout.errors import InputError
from tests.orchestrator.factories import NEEDED

HEAVY = ("torch", "vllm", "ray", "deepspeed", "transformers", "pyarrow", "numpy", "openai", "httpx2")


def two_stages(**more: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "model": {"path": "org/model"},
        "data": {"sources": {"a": {"task": "arithmetic"}}},
        "stages": [{"name": "one", "kind": "sft"}, {"name": "two", "kind": "grpo"}],
        **more,
    }


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_and_described(name: str) -> None:
    recipe = load_recipe(name, NEEDED.get(name, ()))
    assert recipe.name == name
    assert recipe.description


def test_a_stage_holds_what_the_defaults_say_unless_it_says_otherwise() -> None:
    raw = two_stages(learner={"lr": 1e-3, "ranks": 2})
    raw["stages"][1]["learner"] = {"lr": 1e-4}
    one, two = parse_recipe(raw).stages
    assert (one.learner.lr, one.learner.ranks) == (1e-3, 2)
    assert (two.learner.lr, two.learner.ranks) == (1e-4, 2)


def test_tables_are_merged_key_by_key() -> None:
    raw = two_stages(rewards={"rubrics": {"default": {"accuracy": 1.0, "format": 0.2}}})
    raw["stages"][1]["rewards"] = {"rubrics": {"default": {"format": 0.5}}}
    (rubric,) = parse_recipe(raw).stages[1].rewards.rubrics.values()
    assert {label: function.weight for label, function in rubric.items()} == {"accuracy": 1.0, "format": 0.5}


def rubric_of(**rubric: Any) -> Any:
    return parse_recipe(two_stages(rewards={"rubrics": {"default": rubric}})).stages[1].rewards.rubrics["default"]


def test_a_rubric_is_short_or_written_out_or_a_list() -> None:
    written = rubric_of(
        accuracy={"pattern": "####"}, style={"name": "my.style:score", "weight": 0.5, "gate": "accuracy", "words": 9}
    )
    assert written["accuracy"].name == "accuracy"
    assert written["accuracy"].weight == 1.0
    assert written["accuracy"].model_extra == {"pattern": "####"}
    assert (written["style"].gate, written["style"].model_extra) == ("accuracy", {"words": 9})
    listed = rubric_of(
        functions=[
            {"name": "accuracy", "pattern": "####"},
            {"name": "my.style:score", "label": "style", "weight": 0.5, "gate": "accuracy", "words": 9},
        ]
    )
    assert listed == written
    assert {label: each.weight for label, each in rubric_of(accuracy=2, format=0.5).items()} == {
        "accuracy": 2,
        "format": 0.5,
    }


@pytest.mark.parametrize(
    ("rubric", "message"),
    [
        ({"format": {"gate": "acuracy"}}, "gate = 'acuracy': not another function of the rubric; there is: none"),
        ({"functions": [{"name": "format"}, {"name": "format"}]}, "two functions of a rubric are called 'format'"),
        ({"format": "high"}, "rewards.rubrics.default.format"),
    ],
)
def test_a_rubric_that_makes_no_sense(rubric: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        rubric_of(**rubric)


def test_parsing_leaves_its_input_as_it_was() -> None:
    raw = two_stages(learner={"lr": 1e-3})
    before = tomli_w.dumps(raw)
    parse_recipe(raw)
    assert tomli_w.dumps(raw) == before


def test_an_override_of_a_section_holds_in_every_stage_even_over_the_stage_itself() -> None:
    recipe = load_recipe("arithmetic", ["learner.lr=3e-4"])
    assert [stage.learner.lr for stage in recipe.stages] == [3e-4, 3e-4]


def test_an_override_of_one_stage_leaves_the_others() -> None:
    recipe = load_recipe("arithmetic", ["stages.reasoning.learner.lr=3e-4"])
    assert [stage.learner.lr for stage in recipe.stages] == [2e-3, 3e-4]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("model.path=/models/qwen", "/models/qwen"),
        ('model.path="/models/qwen"', "/models/qwen"),
        ("model.path=org/model=1", "org/model=1"),
        ("model.path=", ""),
    ],
)
def test_text_needs_no_quotes(override: str, value: str) -> None:
    assert load_recipe("arithmetic", [override]).stages[0].model.path == value


def test_the_later_override_wins() -> None:
    assert load_recipe("arithmetic", ["seed=2", "seed=3"]).seed == 3


@pytest.mark.parametrize("overrides", [(), ("cluster.address=auto", "stages.reasoning.rollout.group_size=4")])
def test_a_resolved_recipe_goes_through_its_file_unchanged(overrides: tuple[str, ...]) -> None:
    recipe = load_recipe("arithmetic", overrides)
    assert parse_recipe(tomllib.loads(tomli_w.dumps(to_toml(recipe)))) == recipe


def explained(overrides: list[str]) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe("arithmetic", overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lerner.lr=1", "unknown key lerner; did you mean 'learner'?"),
        ("learner.rank=1", "unknown key learner.rank; did you mean 'ranks'?"),
        ("seeed=1", "unknown key seeed; did you mean 'seed'?"),
        ("stages.reasoning.lerner.lr=1", "unknown key lerner (stage reasoning); did you mean 'learner'?"),
        (
            "stages.reasonin.learner.lr=1",
            "no stage 'reasonin'; did you mean 'reasoning'?; stages: cold-start, reasoning",
        ),
        ("data.sources.additions.promt_column=q", "additions.promt_column; did you mean 'prompt_column'?"),
        ("learner.lr=fast", "learner.lr = 'fast': input should be a valid number"),
        ("stages.reasoning.learner.lr=-1", "learner.lr (stage reasoning) = -1: input should be greater than 0"),
        ("stages.reasoning.kind=rl", "kind (stage reasoning) = 'rl': input should be 'sft', 'grpo'"),
        ("learner.lr", "write it as key=value"),
        ("learner=1", "learner = 1: is a section"),
        ("seed.x=1", "seed"),
        ("rollout.group_size=1", "stage reasoning: rollout.group_size = 1"),
        ("loop.publish_every=3", "raise loop.max_staleness"),
        ("rollout.max_tokens=500", "exceed model.max_tokens (128)"),
        ("stages=[3]", "stage number 1"),
        ("stages=[{}]", "name (stage number 1) is missing"),
        ("stages=[]", "stages"),
        ("model.build.tokenizer=", "model.path is empty"),
    ],
)
def test_a_mistake_is_told_in_the_words_of_the_recipe(override: str, message: str) -> None:
    text = explained([override])
    assert message in text
    assert "pydantic" not in text
    assert "stages.0" not in text
    assert len(text.splitlines()) <= 2


def test_a_mistake_of_all_stages_names_none() -> None:
    assert "stage" not in explained(["learner.lr=-1"]).replace("stages", "")


def test_an_unknown_recipe_names_the_nearest_and_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown recipe 'arithmetik'; did you mean 'arithmetic'\?; shipped: .*arith"):
        load_recipe("arithmetik")
    with pytest.raises(InputError, match="no recipe file at"):
        load_recipe(str(tmp_path / "none.toml"))


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text("name = ")
    with pytest.raises(InputError, match=r"broken\.toml: not valid TOML"):
        load_recipe(str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"broken\.toml: cannot be read"):
        load_recipe(str(file))


def test_two_stages_of_one_name_are_refused() -> None:
    raw = two_stages()
    raw["stages"][1]["name"] = "one"
    with pytest.raises(InputError, match="two stages are called 'one'"):
        parse_recipe(raw)


def test_a_recipe_cannot_be_changed_after_it_was_read() -> None:
    recipe = load_recipe("arithmetic")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 2  # type: ignore[misc]
    assert isinstance(recipe, Recipe)


def test_a_source_of_a_recipe_has_the_keys_and_defaults_of_the_source_that_is_read() -> None:
    section = SourceSection(task="arithmetic", limit=3)
    assert section.source("a") == Source(name="a", task="arithmetic", limit=3)
    compared = EvalSetSection(path="f", baseline_column="old", judged_by="helpful")
    assert compared.source("a") == Source(name="a", path="f", baseline_column="old", answer_column="")
    # Said of the rows, or to find out how to read or to judge them.
    own = {"weight", "prompt_form", "stage", "correct", "judged_by"}
    assert set(EvalSetSection.model_fields) - own == {field.name for field in fields(Source)} - {"name"}


def test_reading_a_recipe_and_the_command_line_import_nothing_heavy() -> None:
    code = (
        "import sys, orchestrator.cli, orchestrator.config.load, orchestrator.checks.doctor, orchestrator.evaluation.recipe, "
        "orchestrator.checks.preflight, orchestrator.run.resume, orchestrator.cluster.submit\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.build.heads=3", "over 3 heads"),
        ("model.build.kv_heads=3", "kv_heads = 3"),
        ("model.build.heads=8", "128"),
    ],
)
def test_a_built_model_has_heads_that_the_engine_takes(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("arithmetic", [override])


def lengths(sft: dict[str, Any], loop: dict[str, Any] | None = None) -> tuple[float, int]:
    raw = two_stages(stages=[{"name": "one", "kind": "sft", "sft": sft, "loop": loop or {}}])
    recipe = parse_recipe(raw)
    assert parse_recipe(to_toml(recipe)) == recipe
    return recipe.stages[0].sft.epochs, recipe.stages[0].loop.steps


def test_sft_is_as_long_as_its_steps_or_its_epochs_say() -> None:
    assert lengths({}) == (0, 100)
    assert lengths({}, {"steps": 7}) == (0, 7)
    assert lengths({"epochs": 1.5}) == (1.5, 0)
    assert lengths({"epochs": 2}, {"steps": 0}) == (2, 0)
    assert [stage.loop.steps for stage in parse_recipe(two_stages(sft={"epochs": 2})).stages] == [0, 100]


@pytest.mark.parametrize(
    ("sft", "loop", "message"),
    [
        (
            {"epochs": 2},
            {"steps": 9},
            "sft.epochs = 2 and loop.steps = 9 both say how long it is; set one of them to 0",
        ),
        ({}, {"steps": 0}, "loop.steps = 0: give at least 1 or sft.epochs"),
    ],
)
def test_steps_and_epochs_that_contradict_each_other(sft: dict[str, Any], loop: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        lengths(sft, loop)
    with pytest.raises(InputError, match=r"loop\.steps = 0: give at least 1$"):
        load_recipe("arithmetic", ["stages.reasoning.loop.steps=0"])


def test_a_warm_up_is_steps_or_a_share() -> None:
    with pytest.raises(InputError, match=r"warmup_steps = 5 and warmup_share = 0\.1 say the same"):
        load_recipe("arithmetic", ["learner.warmup_steps=5", "learner.warmup_share=0.1"])


def test_offload_needs_a_zero_stage() -> None:
    with pytest.raises(InputError, match="offload_optimizer = true needs zero_stage"):
        load_recipe("arithmetic", ["learner.offload_optimizer=true"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["ranks=4"], "zero_hpz_partition_size = 2 is for zero_stage = 3"),
        (["ranks=2", "zero_stage=3"], "ranks = 2 do not make several groups of 2"),
        (["ranks=5", "zero_stage=3"], "ranks = 5 do not make several groups of 2"),
    ],
)
def test_a_second_copy_of_the_parameters_needs_groups_of_ranks(settings: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_recipe("arithmetic", ["learner.zero_hpz_partition_size=2", *(f"learner.{each}" for each in settings)])
    load_recipe("arithmetic", [f"learner.{each}" for each in ("zero_hpz_partition_size=2", "ranks=4", "zero_stage=3")])


def with_set(**keys: object) -> Recipe:
    return parse_recipe(
        {
            "name": "x",
            "model": {"path": "org/model"},
            "data": {"sources": {"a": {"task": "arithmetic"}}},
            "eval": {"sets": {"e": {"path": "f", **keys}}},
            "stages": [{"name": "s", "kind": "sft"}],
        }
    )


def test_a_published_set_is_written_out_with_the_rubric_that_judges_it() -> None:
    resolved = with_set(set="humaneval")
    (stage,) = resolved.stages
    assert (stage.eval.sets["e"].rubric, stage.eval.sets["e"].answer_column) == ("code", "")
    assert {name: list(functions) for name, functions in stage.rewards.rubrics.items()} == {
        "default": ["accuracy", "format"],
        "code": ["code_tests", "format"],
    }
    assert parse_recipe(to_toml(resolved)) == resolved


def test_a_rubric_of_the_recipe_comes_before_the_one_that_ships() -> None:
    raw = to_toml(with_set(set="gsm8k"))
    raw["stages"][0]["rewards"]["rubrics"] = {"math": {"accuracy": 1.0}, "default": {"format": 1.0}}
    assert list(parse_recipe(raw).stages[0].rewards.rubrics["math"]) == ["accuracy"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"set": "gsm8"}, "eval.sets.e.set = 'gsm8'"),
        ({"set": "gsm8k", "path": "", "task": "arithmetic"}, "name the file with `path`"),
        ({"set": "gsm8k", "correct": "acuracy"}, "eval.sets.e.correct = 'acuracy'; did you mean 'accuracy'?"),
        ({"prompt_form": "Solve it."}, "has no {prompt} for the question"),
        ({"path": "", "stage": "sampled"}, "an evaluation set has `path` or `task`"),
    ],
)
def test_a_set_that_makes_no_sense(keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        with_set(**keys)
    assert message in str(caught.value)


def test_files_of_templates_and_examples_are_found_beside_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run is the same however its recipe was named."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    recipe = (
        'name = "r"\nmodel.path = "org/m"\ndata = { template = "my.jinja", few_shot.path = "shots.txt", '
        'sources.a.task = "arithmetic" }\n[[stages]]\nname = "a"\nkind = "grpo"\n[[stages]]\nname = "b"\nkind = "grpo"\n'
        'data = { template = "plain", few_shot = "../shots.jsonl" }\n'
    )
    (folder / "r.toml").write_text(recipe)
    for file in (folder / "my.jinja", folder / "shots.txt", tmp_path / "shots.jsonl", folder / "plain"):
        file.write_text("x")

    def said(name: str) -> list[tuple[str, str]]:
        return [(stage.data.template, stage.data.few_shot.path) for stage in load_recipe(name).stages]

    monkeypatch.chdir(tmp_path)
    found = [("recipes/my.jinja", "recipes/shots.txt"), ("plain", "shots.jsonl")]
    assert said("recipes/r.toml") == said(str(folder / "r.toml")) == said("./recipes/../recipes/r.toml") == found
    monkeypatch.chdir(folder)
    assert said("./r.toml") == [("my.jinja", "shots.txt"), ("plain", str(tmp_path / "shots.jsonl"))]
    (folder / "shots.txt").unlink()
    assert said("./r.toml")[0] == ("my.jinja", "shots.txt")


def test_a_folder_of_a_run_needs_no_slash_but_a_shipped_recipe_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--run r` ends with "continue with: rayzero train r"."""
    monkeypatch.chdir(tmp_path)
    for name in ("r", "arithmetic"):
        (tmp_path / name).mkdir()
        (tmp_path / name / STORED).write_text("")
    assert run_folder("r") == Path("r")
    assert run_folder("arithmetic") is None
    assert run_folder("./arithmetic") == Path("arithmetic")
    assert run_folder("") is None
    assert run_folder("none") is None
