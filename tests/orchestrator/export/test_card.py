"""The model card: what a hub reads of it, and that it says nothing of this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.export.base import base_of
from orchestrator.export.card import model_card
from orchestrator.export.chosen import Chosen, choose
from tests.orchestrator.export.finished_run import recipe, write_checkpoint, write_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "small")
    write_checkpoint(run / "prefs" / "checkpoints" / "step-000005", run / "sft" / "export", seed=5, head="score")
    return run


def card_of(chosen: Chosen, hub_id: str = "", **options: Any) -> tuple[dict[str, Any], str]:
    """(front matter as the hub's client reads it, the whole card)."""
    from huggingface_hub import ModelCard

    text = model_card(
        chosen, base_of(chosen.recipe, chosen.stage, hub_id), **{"name": "me/mine", "adapter": False} | options
    )
    return ModelCard(text).data.to_dict(), text


def test_the_front_matter_says_what_a_hub_wants_to_know(run_dir: Path) -> None:
    data, _ = card_of(choose(f"{run_dir}/rl@best"), "org/base")
    index = data.pop("model-index")
    assert data == {
        "base_model": "org/base",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rayzero", "grpo", "sft"],
        "datasets": ["openai/gsm8k"],
        "license": "other",
        "license_name": "ours",
        "license_link": "https://huggingface.co/org/base/blob/main/LICENSE",
    }
    (named,) = index
    assert named["name"] == "mine"
    sets = {each["dataset"]["name"]: (each["dataset"]["type"], each["metrics"]) for each in named["results"]}
    assert set(sets) == {"test", "a|b"}
    assert sets["a|b"][0] == "org/set"
    assert sets["test"][1] == [
        {"type": "accuracy", "value": 75.0, "name": "greedy accuracy"},
        {"type": "pass@1", "value": 37.5, "name": "pass@1 accuracy"},
    ]


def test_the_text_says_base_recipe_data_and_figures(run_dir: Path) -> None:
    _, text = card_of(choose(f"{run_dir}/rl@10"))
    for said in (
        "Made of `Base-1M` by reinforcement learning: stage `rl` of the recipe `small`, seed 1, step 10 of 30.",
        "The recipe: A run of &lt;b>tests&lt;/b>.",
        "| test | 100 problems | greedy accuracy | 50.0 % |",
        "| a\\|b | 100 problems | pass@1 accuracy | 25.0 % |",
        "1. `sft`: supervised fine-tuning, from the base",
        "2. `rl`: reinforcement learning, from the model of `sft`, step 10",
        "`sums`, `problems.jsonl`, the first 50 rows",
        "[openai/gsm8k](https://huggingface.co/datasets/openai/gsm8k), subset `main`, split `train`, weight 2",
        "rewards `default`: `accuracy` × 1, `format` × 0.2",
        "learner.lr = 2e-05",
        "AutoModelForCausalLM.from_pretrained('me/mine')",
    ):
        assert said in text
    assert "learner.lr" not in text.split("2. `rl`")[0], "a setting of one stage is told of another"


def test_nothing_of_this_machine_is_said(tmp_path: Path) -> None:
    own = {"name": "/home/me/work/rewards.py:score", "weight": 2, "path": "/home/me/model", "url": "http://10.0.0.7:80"}
    run = write_run(
        tmp_path / "secret-runs" / "small",
        rewards={"rubrics": {"default": {"own": own, "accuracy": {"pattern": "####", "weight": 0.5}}}},
        cluster={"env": {"SECRET_TOKEN": "abc"}},
    )
    (run.parent / "template.txt").write_text("{prompt}")
    chosen = choose(f"{run}/rl")
    chosen.recipe.stages[1].data.__dict__["template"] = str(run.parent / "template.txt")
    _, text = card_of(chosen)
    assert '`rewards.py:score` × 2, `accuracy(pattern="####")` × 0.5' in text
    assert "the template `template.txt`" in text
    for secret in ("secret", "SECRET", "/home", "10.0.0", str(tmp_path)):
        assert secret not in text


def test_a_reward_model_is_a_classifier_with_its_pairs(run_dir: Path) -> None:
    chosen = choose(f"{run_dir}/prefs")
    chosen.record.pair_evals.append({"step": 0, "label": "before", "set": "p/held-out", "pairs": 7, "accuracy": 0.5})
    data, text = card_of(chosen)
    assert (data["pipeline_tag"], data["tags"]) == ("text-classification", ["rayzero", "reward-model", "sft"])
    assert "A reward model made of" in text
    assert "AutoModelForSequenceClassification.from_pretrained" in text
    assert "model-index" not in data
    during = {"step": chosen.step, "label": "during", "set": "p/held-out", "pairs": 7}
    chosen.record.pair_evals.append({**during, "accuracy": 0.75, "log_loss": 0.5})
    data, text = card_of(chosen)
    assert [each["value"] for each in data["model-index"][0]["results"][0]["metrics"]] == [75.0, 0.5]
    assert "| p/held-out | 7 pairs | share of pairs in order | 75.0 % |" in text


def test_the_held_out_loss_is_a_figure(run_dir: Path) -> None:
    data, text = card_of(choose(f"{run_dir}/sft"))
    metrics = {each["dataset"]["name"]: each["metrics"][0] for each in data["model-index"][0]["results"]}
    assert {each["dataset"]["type"] for each in data["model-index"][0]["results"]} == {"talks", "test", "org/set"}
    assert metrics["talks"] == {"type": "loss", "value": 1.6, "name": "held-out loss of a token, nats"}
    assert "| talks | worked examples | held-out loss of a token, nats | 1.600 |" in text


@pytest.mark.parametrize(
    ("path", "hub_id"),
    [
        ("org/model", "org/model"),
        ("/cache/hub/models--org--my-model/snapshots/0123", "org/my-model"),
        ("/models/plain", ""),
        ("org/no--name", "org/no--name"),
        ("./runs/x", ""),
    ],
)
def test_the_base_has_a_name_on_the_hub_where_the_recipe_tells(path: str, hub_id: str) -> None:
    made = recipe(Path(path) if path[0] != "." else Path("models/x"))
    base = base_of(made, made.stages[1])
    assert base.hub_id == hub_id
    assert base.licence == {}
    assert "/" not in base.words.replace(hub_id or "-", "")


def test_a_licence_link_to_a_file_of_a_base_without_a_name_is_left_out(run_dir: Path) -> None:
    data, text = card_of(choose(f"{run_dir}/rl"))
    assert (data["license"], data["license_name"], "license_link" in data) == ("other", "ours", False)
    assert "licence of the base was not known" not in text


def test_a_base_whose_card_is_in_disorder_has_no_licence(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    made = recipe(tmp_path)
    assert base_of(made, made.stages[0]).licence == {}


def test_a_model_built_by_the_recipe_has_no_base(tmp_path: Path) -> None:
    made = recipe(tmp_path, model={"build": {"tokenizer": "characters", "layers": 3, "hidden": 128}, "max_tokens": 64})
    base = base_of(made, made.stages[1])
    assert (base.hub_id, base.words) == ("", "a model built for it from scratch, 3 layers of 128")


def test_the_licence_of_a_base_is_missed_only_where_there_is_a_base(run_dir: Path, tmp_path: Path) -> None:
    chosen = choose(f"{run_dir}/rl")
    built = recipe(tmp_path, model={"build": {"tokenizer": "characters"}, "max_tokens": 64})
    for made, missed in ((built, False), (recipe(tmp_path), True)):
        _, text = card_of(replace(chosen, recipe=made, stage=made.stages[1]))
        assert ("licence of the base was not known" in text) == missed
