"""The folder of a small run with real weights: an SFT stage that left a model, GRPO in the middle, a reward model.

Checkpoints are in DeepSpeed's form of ZeRO stage 0, which is plain torch. That real ones are read: tests/learner/test_from_checkpoint.py.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from learner.checkpoint import TAG
from learner.from_checkpoint import load_module
from learner.model.lora import add_adapters
from learner.model.small import build_model
from orchestrator.config.load import parse_recipe
from orchestrator.config.recipe import Recipe
from orchestrator.run.store import RunStore
from tests.learner.specs import build_spec, learner_spec

CARD = "---\nlicense: other\nlicense_name: ours\nlicense_link: LICENSE\n---\n"


def recipe(base: Path, **changes: Any) -> Recipe:
    """`changes`: sections over those of the run."""
    problems = {"path": "/data/secret/problems.jsonl", "limit": 50}
    raw: dict[str, Any] = {
        "name": "small",
        "description": "A run\nof <b>tests</b>.",
        "model": {"path": str(base), "max_tokens": 64},
        "rollout": {"max_tokens": 24},
        "data": {
            "max_prompt_tokens": 24,
            "sources": {"sums": problems, "hub": {"path": "hub:openai/gsm8k", "subset": "main", "weight": 2}},
        },
        "eval": {"sets": {"test": {"path": "/data/secret/test.jsonl"}, "a|b": {"path": "hub:org/set"}}},
        "stages": [
            {"name": "sft", "kind": "sft", "loop": {"steps": 4}},
            {"name": "rl", "kind": "grpo", "loop": {"steps": 30}, "learner": {"lr": 2e-5}},
            {"name": "samples", "kind": "reject"},
            {
                "name": "prefs",
                "kind": "reward_model",
                "model_from": "sft",
                "data": {"sources": {"p": {"path": "p.jsonl", "chosen_column": "a", "rejected_column": "b"}}},
            },
        ],
        **changes,
    }
    return parse_recipe(raw)


def write_run(folder: Path, **changes: Any) -> Path:
    """The run's folder; its base stands beside it, with a model card."""
    base = folder.parent / "Base-1M"
    if not base.is_dir():
        build_model(build_spec(), iter(()), base)
        (base / "README.md").write_text(CARD)
    made = recipe(base, **changes)
    store = RunStore(folder, made)
    build_model(replace(build_spec(), seed=2), iter(()), folder / "sft" / "export")
    (folder / "sft" / "export" / "README.md").write_text("of the stage")
    store.link_export("sft")
    store.record("stage", "sft", event="model", parameters=1000)
    for step in (1, 2, 3, 4):
        store.record("step", "sft", step=step, **{"held_out_loss/talks": 2.0 - 0.1 * step})
    figures(store, "sft", 4, "after", greedy=0.25)
    store.record("stage", "sft", event="end")
    figures(store, "rl", 0, "before", greedy=0.99)
    for step in (10, 20, 30):
        store.record("step", "rl", step=step, **{"reward/mean": 0.1})
        figures(store, "rl", step, "during", greedy={10: 0.5, 20: 0.75, 30: 0.75}[step])
    lora = made.stages[1].learner.lora_rank
    for step in (10, 20):
        write_checkpoint(store.checkpoint_folder("rl", step), folder / "sft" / "export", seed=step, lora_rank=lora)
    return folder


def figures(store: RunStore, stage: str, step: int, label: str, *, greedy: float) -> None:
    for name, value in (("test", greedy), ("a|b", 1 - greedy)):
        more = {"problems": 100, "length_mean": 12.5, "pass@1": value / 2, "k": 4, "cons@k": None}
        store.record("eval", stage, step=step, label=label, set=name, greedy=value, **more)


def write_checkpoint(folder: Path, start: Path, *, seed: int, lora_rank: int = 0, head: Any = "language") -> None:
    """A checkpoint of random weights."""
    spec = learner_spec(str(start), lora_rank=lora_rank, head=head)
    module = load_module(spec)
    if lora_rank:
        add_adapters(module, spec)
    torch.manual_seed(seed)
    trained = {name: torch.randn_like(each) / 10 for name, each in module.named_parameters() if each.requires_grad}
    (folder / TAG).mkdir(parents=True)
    torch.save({"module": trained, "optimizer": {"state": {}}}, folder / TAG / "mp_rank_00_model_states.pt")
    layout = {"ranks": 1, "zero_stage": 0, "dtype": "float32", "offload_optimizer": False}
    record: Mapping[str, Any] = {"layout": layout, "optimizer_steps": seed, "trained": list(trained)}
    (folder / "learner.json").write_text(json.dumps(record))


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The trained weights of a checkpoint, by the names of a model folder."""
    states = torch.load(checkpoint / TAG / "mp_rank_00_model_states.pt", weights_only=True)
    return {name.removeprefix("model."): tensor for name, tensor in states["module"].items()}
