"""The folder of a made-up run of twelve stages, as an R1 recipe leaves one: for tests of what is read and shown of it.

python -m tests.orchestrator.pipeline_run FOLDER     writes one, to look at its report
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

SETS = {"gsm8k": 1319, "aime24": 30, "amc23": 40, "humaneval": 164, "style": 200, "cups": 128}
BASE = {"path": "Qwen/Qwen2.5-1.5B"}
STUDENT = {"path": "/models/small-student"}
STAGES: tuple[dict[str, Any], ...] = (
    {"name": "base", "kind": "eval", "model": BASE},
    {"name": "zero", "kind": "grpo", "model": BASE, "loop": {"steps": 200}},
    {"name": "cold-start", "kind": "sft", "model": BASE, "model_from": "own", "loop": {"steps": 300}},
    {"name": "reasoning", "kind": "grpo", "loop": {"steps": 400}},
    {"name": "samples", "kind": "reject"},
    {"name": "tuned", "kind": "sft", "model": BASE, "model_from": "own", "from_rows": ["samples"], "loop": {"steps": 250}},
    {"name": "helpful", "kind": "reward_model", "loop": {"steps": 80}},
    {"name": "all-scenarios", "kind": "grpo", "scored_by": "helpful", "loop": {"steps": 160}},
    {"name": "preferred", "kind": "dpo", "model_from": "tuned", "loop": {"steps": 60}},
    {"name": "student", "kind": "sft", "model": STUDENT, "model_from": "own", "from_rows": ["samples"], "loop": {"steps": 200}},
    {"name": "student-rl", "kind": "grpo", "loop": {"steps": 40}},
    {"name": "student-rl-alone", "kind": "grpo", "model": STUDENT, "model_from": "own", "loop": {"steps": 120}},
)  # fmt: skip
SKILL = {
    "base": 0.12, "zero": 0.41, "cold-start": 0.30, "reasoning": 0.62, "tuned": 0.66, "all-scenarios": 0.71,
    "preferred": 0.67, "student": 0.45, "student-rl": 0.52, "student-rl-alone": 0.27,
}  # fmt: skip
START = 1_790_000_000.0
TEXT = "<think>First I add the units, {words}then the tens. Wait, let me check that again.</think><answer>{answer}</answer>"


def recipe_of(stages: tuple[dict[str, Any], ...], seed: int) -> dict[str, Any]:
    tables = []
    for stage in stages:
        entry = {key: value for key, value in stage.items() if key not in ("from_rows", "scored_by")}
        sources: dict[str, Any] = {"problems": {"path": "/data/problems.jsonl", "rubric": "default"}}
        for name in stage.get("from_rows", ()):
            sources[f"rows-{name}"] = {"stage": name}
        entry["data"] = {"sources": sources}
        functions: dict[str, Any] = {"accuracy": {"weight": 1.0}}
        if scored_by := stage.get("scored_by"):
            functions["helpful"] = {"name": "reward_model", "path": f"stage:{scored_by}"}
        entry["rewards"] = {"rubrics": {"default": functions}}
        tables.append({"model": BASE, **entry})
    return {"name": "r1", "description": "The pipeline of DeepSeek-R1, made up.", "seed": seed, "stages": tables}


class Writer:
    def __init__(self, rng: np.random.Generator, text: str) -> None:
        self.rng, self.text = rng, text
        self.records: list[dict[str, Any]] = []
        self.now = START

    def add(self, kind: str, stage: str, seconds: float = 0.0, **values: Any) -> None:
        self.now += seconds
        self.records.append({"kind": kind, "stage": stage, "time": round(self.now, 3), **values})

    def evaluate(self, stage: str, step: int, label: str, skill: float, thought: float) -> None:
        for place, (name, problems) in enumerate(SETS.items()):
            right = float(np.clip(skill * (1.2 - 0.15 * place) + self.rng.normal(0, 0.01), 0, 1))
            judged = name != "style"
            samples = [
                {
                    "id": f"{name}/{i}",
                    "prompt": f"{name}: what is {17 + i} + {35 * (place + 1)}?",
                    "answer": str(17 + i + 35 * (place + 1)),
                    "completion": self.text.format(words="and carry, " * int(thought / 6), answer=52 + i),
                    "correct": bool(self.rng.random() < right) if judged else None,
                }
                for i in range(8)
            ]
            figures: Mapping[str, Any] = {
                "greedy": right if judged else None,
                "pass@1": right * 0.97 if judged else None,
                "cons@k": min(1.0, right * 1.08) if name in ("gsm8k", "aime24", "amc23") else None,
                "k": 16,
                "win_rate": None if judged else 0.2 + 0.8 * right,
                "format": min(1.0, 0.3 + skill) if judged else None,
                "labels": {"accuracy": right, "language_consistency": 0.8 + 0.19 * skill} if judged else {},
            }
            more = {"problems": problems, "unscored": 0, "correct": "accuracy" if judged else "", "truncated": 0.02}
            self.add(
                "eval", stage, step=step, label=label, set=name, length_mean=thought, samples=samples, **more, **figures
            )


def write_run(folder: Path, *, seed: int = 1, text: str = TEXT, stages: tuple[dict[str, Any], ...] = STAGES) -> Path:
    """`text`: what every model answers, with {words} and {answer} in it."""
    rng = np.random.default_rng(seed)
    out = Writer(rng, text)
    skills: dict[str, float] = {"": SKILL["base"]}
    last = ""
    for stage in stages:
        name, kind, steps = stage["name"], stage["kind"], stage.get("loop", {}).get("steps", 0)
        origin = stage.get("model_from", "")
        begin = skills["" if origin == "own" else origin or last]
        end = SKILL.get(name, begin) + float(rng.normal(0, 0.01))
        out.add("stage", name, event="start")
        size = 494_032_768 if name.startswith("student") else 1_543_714_304
        out.add("stage", name, 12, event="model", parameters=size)
        start_up = 31.0
        for step in range(1, steps + 1):
            share = step / steps
            noise = float(rng.normal(0, 0.02))
            figures: dict[str, float] = {"learner/lr": 1e-5 * (1 - share), "learner/grad_norm": 0.4 + abs(noise)}
            seconds = 2.0
            if kind == "grpo":
                seconds = 6.0
                skill = begin + (end - begin) * (1 - (1 - share) ** 2)
                figures |= {
                    "reward/mean": skill * 1.2 + noise,
                    "reward/accuracy": skill + noise,
                    "reward/format": min(1.0, 0.3 + skill),
                    "completion/length_mean": 180 + 320 * share + 400 * abs(noise),
                    "completion/truncated_share": 0.02,
                    "kl/ref": 0.02 * share,
                    "policy/entropy": 0.9 - 0.5 * share,
                    "learner/loss": noise / 10,
                    "time/generate_s": 4.1,
                    "time/score_s": 0.5,
                    "time/train_s": 1.2,
                    "time/publish_s": 0.2,
                    "time/overlap_s": 0.0,
                    "time/idle_s": 0.1,
                }
            elif kind == "sft":
                figures |= {"learner/loss": 0.3 + 1.6 * float(np.exp(-4 * share)) + noise, "time/train_s": 1.9, "time/idle_s": 0.1}  # fmt: skip
                if step % 50 == 0:
                    figures["held_out_loss/gsm8k"] = 0.4 + 1.5 * float(np.exp(-4 * share))
            else:
                figures |= {
                    "learner/loss": 0.69 - 0.4 * share + noise,
                    "preference/accuracy": 0.5 + 0.4 * share + noise,
                    "preference/margin": 1.5 * share,
                    "time/train_s": 1.8,
                    "time/idle_s": 0.2,
                }
            times = {"time/start_s": start_up, "time/step_s": seconds, "time/save_s": 0.0, "time/evaluate_s": 0.0}
            out.add("step", name, seconds + start_up, step=step, **figures, **times)
            start_up = 0.0
            if kind == "grpo" and step % 40 == 0 and step < steps:
                out.evaluate(name, step, "during", begin + (end - begin) * share, 180 + 320 * share)
        if kind == "reject":
            yields = {"samples": 8192, "wrong": 3011, "mixed_languages": 61, "truncated": 402, "code_blocks": 33, "surplus": 2417, "near_duplicate": 212, "kept": 2056}  # fmt: skip
            out.add("reject", name, 700, prompts=530, prompts_overlapping=18, prompts_kept=471, yields=yields, length_mean=388.2)  # fmt: skip
            out.add("time", name, **{"time/generate_s": 610.0, "time/score_s": 40.0, "time/step_s": 655.0, "time/idle_s": 20.0, "time/start_s": 30.0})  # fmt: skip
        elif kind == "reward_model":
            for label, accuracy in (("before", 0.5), ("after", 0.87)):
                out.add("eval", name, step=steps * (label == "after"), label=label, set="held-out pairs", pairs=400, accuracy=accuracy, log_loss=0.69 - 0.35 * (label == "after"), calibration_error=0.03)  # fmt: skip
        else:
            out.evaluate(name, steps, "after", end, 500 if kind == "grpo" else 320)
            out.add("time", name, 40, **{"time/evaluate_s": 33.0, "time/save_s": 4.0, "time/step_s": 7.0, "time/idle_s": 3.0})  # fmt: skip
        out.add("stage", name, event="end")
        skills[name] = end
        if kind in ("sft", "grpo", "dpo"):
            last = name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe_of(stages, seed)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in out.records))
    return folder


if __name__ == "__main__":
    print(write_run(Path(sys.argv[1])))
