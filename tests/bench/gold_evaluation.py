"""The published answers and programs as completions: an evaluation must find every one of them right.

    python -m tests.bench.gold_evaluation FOLDER

FOLDER holds gsm8k/test.jsonl, aime24/test.jsonl, amc23/test.jsonl and humaneval/HumanEval.jsonl. Everything but the engine
is that of `rayzero eval`: loaders, reward service, figures. Each problem is answered four times: right in the R1 form
(programs: the body alone), right in a box (the whole function), and wrong in two ways. So greedy, which is the first,
must be 100 %, pass@1 50 %, and the majority, where answers can be counted, right.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path

from learner.model.small import character_tokenizer
from orchestrator.cluster.services import Services
from orchestrator.cluster.session import ray_session
from orchestrator.config.load import parse_recipe
from orchestrator.config.recipe import Stage
from orchestrator.config.sections.cluster import ClusterSection
from orchestrator.data.prompts import PromptSets, load_prompts
from orchestrator.display import Display
from orchestrator.evaluation.figures import EvalResult
from orchestrator.evaluation.sets import evaluate_sets
from rollout.types import Prompt
from tests.orchestrator.evaluation.evaluated import Written

FILES = {
    "gsm8k": "gsm8k/test.jsonl",
    "aime24": "aime24/test.jsonl",
    "amc23": "amc23/test.jsonl",
    "humaneval": "humaneval/HumanEval.jsonl",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    given = arguments.parse_args()
    stage = gold_stage({name: str(given.folder / file) for name, file in FILES.items()})
    with ray_session(ClusterSection(), "gold"):
        began = time.perf_counter()
        results = asyncio.run(gold_evaluation(stage))
        print(f"{time.perf_counter() - began:.1f} s")
    for result in results:
        print(json.dumps({key: value for key, value in result.record().items() if key != "samples"}))


def gold_stage(files: Mapping[str, str]) -> Stage:
    """Every set by its name and file; four samples a problem."""
    sets = {name: {"set": name, "path": path} for name, path in files.items()}
    raw = {
        "name": "gold",
        "model": {"path": "none", "max_tokens": 16384},
        "data": {"sources": sets, "max_prompt_tokens": 8192},
        "rewards": {"processes": 2},
        "eval": {"sets": sets, "samples": 4},
        "stages": [{"name": "gold", "kind": "grpo"}],
    }
    return parse_recipe(raw).stages[0]


async def gold_evaluation(stage: Stage) -> list[EvalResult]:
    """The figures of every set of the stage. Within a Ray session."""
    sets = load_prompts(stage.eval.sets, stage, character_tokenizer(), seed=0)
    services = Services("cpu", 120, Display())
    try:
        await services.begin_rewards(stage, sets)
        return await evaluate_sets(Written(_answered(sets)), await services.rewards(), sets.prompts, stage, seed=0)
    finally:
        await services.close()


def _answered(sets: PromptSets) -> dict[str, list[str]]:
    return {
        prompt.prompt_id: _program(prompt) if prompt.rubric == "code" else _answer(prompt)
        for prompts in sets.prompts.values()
        for prompt in prompts
    }


def _answer(prompt: Prompt) -> list[str]:
    thought = "<think>It is known.</think>"
    return [
        f"{thought}<answer>{prompt.answer}</answer>",
        f"{thought}So it is \\boxed{{{prompt.answer}}}.",
        f"{thought}<answer>{prompt.answer} + 1</answer>",
        f"{thought}So it is \\boxed{{{prompt.answer} - 1}}.",
    ]


def _program(prompt: Prompt) -> list[str]:
    body, begun = prompt.fields["canonical_solution"], prompt.fields["prompt"]
    return [
        f"<think>It is known.</think><answer>\n```python\n{body}```\n</answer>",
        f"Here it is:\n\n```python\n{begun}{body}```\n",
        f"<think>It is known.</think><answer>\n```python\n    raise ValueError\n{body}```\n</answer>",
        f"Here it is:\n\n```python\n{begun}    return 'nothing'\n```\n",
    ]


if __name__ == "__main__":
    main()
