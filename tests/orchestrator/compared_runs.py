"""Folders of made-up runs whose evaluations kept what they counted: for tests of what is compared, and to look at the page.

python -m tests.orchestrator.compared_runs FOLDER     writes two recipes with three seeds each
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w


def outcomes(
    right: Sequence[int],
    *,
    n: int = 4,
    greedy: Sequence[int] | None = None,
    fingerprint: str = "f00d",
    **more: Sequence[Any],
) -> dict[str, Any]:
    """Of every problem `right` of n samples; the wrong ones all say the same."""
    return {
        "fingerprint": fingerprint,
        "greedy": list(greedy if greedy is not None else [int(2 * each > n) for each in right]),
        "n": [n] * len(right),
        "right": list(right),
        "votes": [[each, n - each] if each < n else [each] for each in right],
        "majority": [int(2 * each + place % 2 > n) for place, each in enumerate(right)],
        **{name: list(values) for name, values in more.items()},
    }


def evaluation(
    stage: str, step: int, kept: dict[str, Any], *, name: str = "held-out", label: str = "during"
) -> dict[str, Any]:
    """The record of an evaluation."""
    shares = [right / n for right, n in zip(kept["right"], kept["n"], strict=True)]
    figures = {
        "greedy": float(np.mean(kept["greedy"])),
        "pass@1": float(np.mean(shares)),
        "cons@k": float(np.mean(kept["majority"])),
    }
    head = {"kind": "eval", "stage": stage, "time": 1_790_000_000.0 + step, "step": step, "label": label, "set": name}
    return {**head, "problems": len(shares), "k": max(kept["n"]), "correct": "accuracy", **figures, "outcomes": kept}


def write_run(
    folder: Path, records: Sequence[dict[str, Any]], *, seed: int = 1, name: str = "sums", lr: float = 1e-5
) -> Path:
    """A run of one stage, `rl`."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {"name": name, "seed": seed, "stages": [{"name": "rl", "kind": "grpo", "learner": {"lr": lr}}]}
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def invented(
    folder: Path, *, seed: int, lr: float, gain: float, problems: int = 256, n: int = 16, name: str = "sums"
) -> Path:
    """A run that learns: `gain` in logits over forty steps, on problems of different difficulty."""
    hard = np.random.default_rng(7).normal(0, 1.5, problems)
    rng = np.random.default_rng((seed, int(lr * 1e9)))
    records = []
    for step in range(0, 41, 10):
        chance = 1 / (1 + np.exp(hard + 0.6 - gain * step / 40 + rng.normal(0, 0.1)))
        more = {
            "tokens": np.round(20 + step / 2 + rng.normal(0, 3, problems), 1),
            "reflections": rng.poisson(step / 60, problems),
        }
        for place, set_name in enumerate(("held-out", "harder")):
            right = rng.binomial(n, chance * (1 - 0.3 * place))
            kept = outcomes(right.tolist(), n=n, greedy=(rng.random(problems) < chance).astype(int).tolist(), fingerprint=f"{place}", **{k: v.tolist() for k, v in more.items()})  # fmt: skip
            label = "before" if not step else "after" if step == 40 else "during"
            records.append(evaluation("rl", step, kept, name=set_name, label=label))
    return write_run(folder, records, seed=seed, name=name, lr=lr)


if __name__ == "__main__":
    for seed in (1, 2, 3):
        print(invented(Path(sys.argv[1]) / f"low-{seed}", seed=seed, lr=1e-5, gain=1.2))
        print(invented(Path(sys.argv[1]) / f"high-{seed}", seed=seed, lr=3e-5, gain=1.6))
