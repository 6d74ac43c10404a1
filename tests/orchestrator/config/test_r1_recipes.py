"""`r1` and `r1-zero`: they hold the published numbers, and `rayzero check` passes on small files.

Numbers: Nature 645 (2025), Methods and Supplementary, and arXiv:2501.12948v2, sections 2.1, 3.1, 3.2, B.3 and B.4. The paper's
steps of RL are optimizer steps.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import run
from orchestrator.config.load import RECIPES, load_recipe, parse_recipe
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.schedule import Schedule
from orchestrator.config.trained_rewards import check_stage_models
from orchestrator.config.wiring import parent_of
from tests.bench.small_r1 import CHAT_TEMPLATE, GENERAL, HARMLESS, HELPFUL, conversation, pairs
from tests.orchestrator.factories import CONFIG, NEEDED, R1_SETS, model_folder, write_rows

PROBLEM = {"question": "What is 2 + 3?", "answer": "2 + 3 = <<2+3=5>>5.\n#### 5"}
PROGRAM = {
    "task_id": "x/0",
    "prompt": "def one():\n",
    "entry_point": "one",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}


def r1(name: str = "r1") -> Recipe:
    return load_recipe(name, NEEDED[name])


def stage_of(recipe: Recipe, name: str) -> Stage:
    return next(stage for stage in recipe.stages if stage.name == name)


def optimizer_steps(stage: Stage) -> int:
    return stage.loop.steps * stage.learner.mini_batches


# --- Numbers


@pytest.mark.parametrize(("name", "stage"), [("r1-zero", "zero"), ("r1", "reasoning"), ("r1", "all-scenarios")])
def test_what_all_stages_of_rl_have_in_common(name: str, stage: str) -> None:
    rl = stage_of(r1(name), stage)
    outputs = rl.loop.groups_per_step * rl.rollout.group_size
    assert (rl.rollout.group_size, outputs, rl.learner.mini_batches) == (16, 8192, 16)
    assert outputs / rl.learner.mini_batches == 32 * 16
    assert (rl.learner.lr, rl.learner.kl_coef, rl.learner.kl_estimator) == (3e-6, 0.001, "k3")
    assert (rl.learner.clip_low, rl.learner.clip_high, rl.learner.policy_loss) == (10, 10, "clip")
    assert rl.learner.reference_refresh_steps == 400
    assert (rl.learner.advantage_baseline, rl.learner.advantage_scale) == ("group_mean", "group_std")
    assert rl.loop.max_staleness == 0
    assert rl.rollout.max_tokens == 32768


def test_r1_zero_is_longer_from_the_8192nd_step_to_the_10400th() -> None:
    (zero,) = r1("r1-zero").stages
    assert optimizer_steps(zero) == 10400
    assert (zero.rollout.temperature, zero.data.template) == (1.0, "r1-zero")
    (change,) = zero.schedule
    assert change.from_step * zero.learner.mini_batches == 8192
    assert [Schedule(zero).at(step).rollout.max_tokens for step in (0, 511, 512, 649)] == [32768, 32768, 65536, 65536]
    rubric = zero.rewards.rubrics["math"]
    assert {function.name: function.weight for function in rubric.values()} == {"accuracy": 1.0, "format": 1.0}


def test_the_stages_of_r1_and_what_each_starts_from() -> None:
    recipe = r1()
    parents = [parent_of(recipe.stages, stage) for stage in recipe.stages]
    assert [
        (stage.kind, stage.name, parent and parent.name) for stage, parent in zip(recipe.stages, parents, strict=True)
    ] == [
        ("sft", "cold-start", None),
        ("grpo", "reasoning", "cold-start"),
        ("reject", "samples", "reasoning"),
        ("sft", "sft", None),
        ("reward_model", "helpful", "sft"),
        ("reward_model", "harmless", "sft"),
        ("grpo", "all-scenarios", "sft"),
        ("sft", "student", None),
    ]
    assert {stage.model.path for stage in recipe.stages} == {"org/model", "org/student"}
    assert stage_of(recipe, "student").model.path == "org/student"


def test_supervised_stages() -> None:
    recipe = r1()
    rates = {"cold-start": (5e-5, 128), "sft": (5e-5, 128), "student": (1e-4, 64)}
    for name, (rate, batch) in rates.items():
        stage = stage_of(recipe, name)
        assert (stage.learner.lr, stage.learner.schedule, stage.sft.batch_size) == (rate, "cosine", batch)
        assert 2 <= stage.sft.epochs <= 3
    for name in ("sft", "student"):
        assert stage_of(recipe, name).data.sources["samples"].stage == "samples"


def test_rejection_keeps_what_is_right_and_reads_well() -> None:
    reject = stage_of(r1(), "samples").reject
    assert (reject.keep, reject.keep_at_most) == ("right", 4)
    assert set(reject.filters) == {"mixed_languages", "long_paragraph", "code_blocks"}


def test_reward_models_and_where_they_count() -> None:
    recipe = r1()
    for name, scope in (("helpful", "answer"), ("harmless", "response")):
        stage = stage_of(recipe, name)
        assert (stage.reward_model.scope, stage.reward_model.batch_size) == (scope, 256)
        assert (stage.learner.lr, stage.model.max_tokens) == (6e-6, 8192)
    last = stage_of(recipe, "all-scenarios")
    assert last.rollout.temperature == 0.7
    assert abs(optimizer_steps(last) - 1700) < last.learner.mini_batches
    (change,) = last.schedule
    assert (last.loop.steps - change.from_step) * last.learner.mini_batches == 400
    before, after = Schedule(last).weights
    assert (before["helpful"], before["harmless"]) == (0, 0)
    assert all(after.values())
    for name in ("helpful", "harmless"):
        (model, *_) = last.rewards.rubrics[last.data.sources[name].rubric].values()
        assert (model.name, (model.model_extra or {})["path"]) == ("reward_model", f"stage:{name}")


def test_the_stage_in_place_of_the_reward_models_is_one_when_its_comment_signs_are_removed() -> None:
    text = (RECIPES / "r1.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^# \[\[stages\]\]\n(?:# .*\n)+", text, re.MULTILINE)
    raw = tomllib.loads(text + re.sub("^# ", "", block, flags=re.MULTILINE))
    *stages, student, preferences = (stage for stage in raw["stages"] if stage["kind"] != "reward_model")
    raw["stages"] = [*stages, preferences, student]
    last = stages[-1]
    del last["schedule"], last["data"]["sources"]["helpful"], last["data"]["sources"]["harmless"]
    given = [each for each in NEEDED["r1"] if not each.startswith(("data.sources.helpful.", "data.sources.harmless."))]
    recipe = parse_recipe(raw, given)
    check_stage_models(recipe)
    assert [stage.name for stage in recipe.stages][-3:] == ["all-scenarios", "preferences", "student"]


def test_language_consistency_is_in_every_reward_of_r1() -> None:
    recipe = r1()
    for stage in recipe.stages:
        if stage.kind == "grpo":
            for source in stage.data.sources.values():
                assert stage.rewards.rubrics[source.rubric]["language_consistency"].weight == 1.0


# --- check


@pytest.fixture
def files(laptop: None, tmp_path: Path) -> Path:
    """A model with a chat template and a file for each path, each with a few rows; the working directory."""
    config = json.dumps(CONFIG | {"max_position_embeddings": 131072}).encode()
    for name in ("org/model", "org/student"):
        model_folder(tmp_path / name, config_json=config)
        (tmp_path / name / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    rows: dict[str, list[dict[str, Any]]] = {
        "cold-start": [conversation(PROBLEM | {"question": "What is 1 + 4?"})],
        "math": [{"prompt": "What is 2 + 2?", "answer": "4"}],
        "code": [PROGRAM | {"prompt": "def two():\n"}],
        "general": list(GENERAL),
        "helpful-pairs": list(pairs(HELPFUL)),
        "harmless-pairs": list(pairs(HARMLESS)),
        "helpful": [{"prompt": HELPFUL[0][0]}],
        "harmless": [{"prompt": HARMLESS[0][0]}],
        "gsm8k-set": [PROBLEM],
        "aime24-set": [{"problem": "What is 7 + 3?", "answer": "010"}],
        "amc23-set": [{"problem": "What is 7 + 4?", "answer": 11.0}],
        "humaneval-set": [PROGRAM],
        "aime24": [{"problem": "What is 7 + 3?", "answer": "010"}],
    }
    assert {f"{name}-set" for name in R1_SETS} < set(rows)
    for name, content in rows.items():
        write_rows(tmp_path / f"{name}.jsonl", content)
    return tmp_path


FITS = ("rollout.replicas=1", "learner.ranks=1")


@pytest.mark.parametrize("name", ["r1", "r1-zero"])
def test_check_passes_with_small_files(name: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", name, *NEEDED[name], *FITS]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "8,192 completions a batch (512 groups × 16), in 16 mini-batches of 512" in out
    assert "a new reference every 400 of them (25 batches)" in out
    if name == "r1-zero":
        assert "650 batches are 10,400 optimizer steps" in out
        assert "from step 512 (8,192 optimizer steps): rollout.max_tokens = 65536" in out
    else:
        assert "from step 81 (1,296 optimizer steps): data.sources.helpful.weight = 1" in out


def test_check_tells_what_a_recipe_takes_where_this_machine_lacks_it(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", "r1", *NEEDED["r1"]]) == 2
    told = capsys.readouterr()
    assert "4 engine × 1 + 4 rank × 1 = 8 CPU of 2 here, and 8 GPU where there are any" in told.out
    assert "memory  about" in told.out
    assert "need 8 CPUs; this machine has 2" in told.err


def test_a_column_that_is_not_there_is_told_by_the_key_of_its_file(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(files / "helpful-pairs.jsonl", [{"prompt": "?", "better": "a", "rejected": "b"}])
    assert run(["check", "r1", *NEEDED["r1"], *FITS]) == 2
    error = capsys.readouterr().err
    assert "data.sources.helpful-pairs" in error
    assert "no column 'chosen'" in error
