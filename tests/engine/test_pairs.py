"""The stages that learn from preference pairs, whole: held-out accuracy rises, and what is served is what was trained."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.cluster.services import Services
from orchestrator.cluster.specs import learner_spec
from orchestrator.config.load import parse_recipe
from orchestrator.data.pairs import load_pair_sets, pair_batch, policy_pairs, scored_pairs
from orchestrator.data.prompts import load_prompts
from orchestrator.data.reward_pairs import encoder
from orchestrator.display import Display
from orchestrator.evaluation.sets import evaluate_sets
from orchestrator.loop.context import StageContext
from orchestrator.loop.pair_training import measure_pairs
from orchestrator.pipeline import KINDS
from orchestrator.run.record import Record, read_metrics
from orchestrator.run.store import RunStore
from rewards.models.pair_encoding import pair_of
from rewards.models.reward_model import RewardModel, RewardModelSpec
from rollout.data.templates import load_template
from rollout.errors import InputError
from tests.engine.conftest import Rig, learner_of
from tests.engine.test_learner import cut, rows
from tests.orchestrator.evaluation.evaluated import Written


def write_pairs(path: Path, count: int, seed: int) -> Path:
    """The better answer is in small letters, the worse one in capitals; the thoughts before them say nothing."""
    rng = np.random.default_rng(seed)

    def response(first: str) -> str:
        thought, answer = (
            "".join(chr(ord(start) + n) for n in rng.integers(0, 26, size=rng.integers(3, 7))) for start in ("a", first)
        )
        return f"<think>{thought}</think><answer>{answer}</answer>"

    pairs = [{"prompt": f"{seed}/{i}", "chosen": response("a"), "rejected": response("A")} for i in range(count)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def context_of(rig: Rig, folder: Path, kind: str, **stage: Any) -> StageContext:
    columns = {"chosen_column": "chosen", "rejected_column": "rejected"}
    recipe = parse_recipe(
        {
            "name": "pairs",
            "model": {"path": rig.folder, "max_tokens": 128},
            "data": {"sources": {"a": {"path": str(write_pairs(folder / "train.jsonl", 60, 1)), **columns}}},
            "rollout": {"max_tokens": 64},
            "eval": {"sets": {"test": {"path": str(write_pairs(folder / "test.jsonl", 40, 2)), **columns}}},
            "learner": {"lr": 3e-3},
            "stages": [{"name": "pref", "kind": kind, "data": {"max_prompt_tokens": 16}, **stage}],
        }
    )
    services = Services("cpu", 60.0, Display())
    for service, background in ((learner_of(rig.learner), services._learner), (rig.pool, services._rollout)):
        rig.run(background.begin(None, lambda service=service: ready(service)))
    store = RunStore(folder / "run", recipe)
    rig.run(rig.learner.open(learner_spec(recipe.stages[0], rig.folder, rig.folder, 1, "cpu")))
    return StageContext(recipe, recipe.stages[0], rig.folder, rig.tokenizer, store, services, Display())


async def ready(service: Any) -> Any:
    return service


def recorded(context: StageContext, kind: str) -> list[Record]:
    return [record for record in read_metrics(context.store.folder) if record["kind"] == kind]


def test_a_reward_model_learns_what_is_served(rig: Rig, tmp_path: Path) -> None:
    context = context_of(rig, tmp_path, "reward_model", loop={"steps": 6}, reward_model={"batch_size": 16})
    rig.run(KINDS["reward_model"](context))
    before, after = recorded(context, "eval")
    assert (before["label"], after["label"], after["set"], after["pairs"]) == ("before", "after", "test", 40)
    assert before["accuracy"] < 0.8
    assert after["accuracy"] > 0.95
    assert after["log_loss"] < 0.4 < before["log_loss"]
    assert 0 <= after["calibration_error"] < 0.5
    steps = recorded(context, "step")
    assert [step["step"] for step in steps] == list(range(1, 7))
    assert steps[-1]["learner/loss"] < steps[0]["learner/loss"]
    assert steps[-1]["preference/accuracy"] == 1

    export = context.store.export_folder("pref")
    assert (context.store.folder / "export").resolve() == export
    served = RewardModel(RewardModelSpec(path=str(export), device="cpu"))
    form = load_template("plain", rig.tokenizer)
    encode = encoder(context.stage, served._tokenizer, form, "m")
    pairs = load_pair_sets(context.stage, scored_pairs(context.stage, encode), 0.0, 1).held_out["test"]
    scores = rig.run(rig.learner.scores(pair_batch(pairs, context.stage, seed=3)))
    raw = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    texts = [pair_of(row["prompt"], row[key], "answer") for row in raw for key in ("chosen", "rejected")]
    np.testing.assert_allclose(served.score(texts), scores, atol=1e-4)
    against = rig.run(win_rates(context, str(export)))
    assert against == {"bad": (1.0, 40), "good": (0.5, 40)}


async def win_rates(context: StageContext, reward_model: str) -> dict[str, tuple[float | None, int]]:
    """By the reward model, of the better answers: against the worse ones, and against themselves behind another thought."""
    path = context.stage.eval.sets["test"].path
    columns = {"bad": "rejected", "good": "chosen"}
    recipe = parse_recipe(
        {
            "name": "compared",
            "model": context.stage.model.model_dump(),
            "rollout": {"max_tokens": 64},
            "data": {"max_prompt_tokens": 16},
            "eval": {
                "sets": {
                    name: {"path": path, "baseline_column": column, "rubric": "general"}
                    for name, column in columns.items()
                },
                "samples": 0,
            },
            "rewards": {
                "rubrics": {"general": {"format": 0.1, "helpful": {"name": "reward_model", "path": reward_model}}}
            },
            "stages": [{"name": "end", "kind": "eval"}],
        }
    )
    (stage,) = recipe.stages
    sets = load_prompts(stage.eval.prompt_sets, stage, context.tokenizer, seed=0)
    better = [json.loads(line)["chosen"] for line in Path(path).read_text().splitlines()]
    written = Written(
        {
            prompt.prompt_id: [text.replace("<think>", "<think>z")]
            for prompts in sets.prompts.values()
            for prompt, text in zip(prompts, better, strict=True)
        }
    )
    services = Services("cpu", 120.0, Display())
    try:
        await services.begin_rewards(stage, sets)
        results = await evaluate_sets(written, await services.rewards(), sets.prompts, stage, seed=1)
    finally:
        await services.close()
    assert all(result.judged_by == "helpful" and result.greedy is None for result in results)
    return {result.set: (result.win_rate, result.compared) for result in results}


def test_dpo_prefers_the_better_answer_and_starts_at_its_reference(rig: Rig, tmp_path: Path) -> None:
    context = context_of(
        rig, tmp_path, "dpo", loop={"steps": 6, "checkpoint_every": 4}, dpo={"batch_size": 16, "held_out": 0.2}
    )
    rig.run(KINDS["dpo"](context))
    records = {(record["set"], record["label"]): record for record in recorded(context, "eval")}
    assert set(records) == {(name, label) for name in ("test", "a/held-out") for label in ("before", "after")}
    # The policy is its reference: every margin is 0.
    assert records["test", "before"]["accuracy"] == 0.5
    assert records["test", "before"]["log_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert records["test", "after"]["accuracy"] > 0.9
    steps = recorded(context, "step")
    assert steps[0]["learner/loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert steps[-1]["learner/loss"] < 0.5
    rewards = [steps[-1][f"preference/{name}_reward"] for name in ("chosen", "rejected")]
    assert steps[-1]["preference/margin"] == pytest.approx(rewards[0] - rewards[1], abs=1e-5)

    # A stage that was stopped behind its checkpoint ends with the same weights.
    whole = rig.run(judge(context))
    again = context_of(rig, tmp_path, "dpo", loop={"steps": 6}, dpo={"batch_size": 16, "held_out": 0.2})
    rig.run(KINDS["dpo"](again))
    assert [step["step"] for step in recorded(again, "step")[6:]] == [5, 6]
    assert rig.run(judge(again)) == pytest.approx(whole, abs=1e-4)


async def judge(context: StageContext) -> float:
    """Mean margin of the held-out pairs, by the weights that the learner holds."""
    template = load_template("plain", context.tokenizer)
    sets = load_pair_sets(context.stage, policy_pairs(context.stage, template, context.tokenizer), 0.0, 1)
    (result,) = await measure_pairs(context, sets.held_out, 6, "again")
    return result.margin_mean


def test_dpo_without_a_reference_is_an_error(rig: Rig) -> None:
    rig.open()
    with pytest.raises(InputError, match="frozen reference"):
        rig.run(asyncio.wait_for(rig.learner.train(cut(rows(8), together=2), "dpo"), 60))
