"""Where a step of the loop goes, beside what engine and learner can do alone on the same tokens, and beside TRL.

    python -m tests.bench.loop RECIPE [key=value …] [--steps N] [--also "key=value …"] …
    python -m tests.bench.loop long-tail --trl PYTHON [--trl-options "--rows 16"] … [the same]

Runs the recipe's last `grpo` stage from its start model (a cold start is left out: the figures are about speed), once
synchronous, once with max_staleness = 1 and once more with each `--also`, in one process and on the same engines. Then the
completions of the first run once more: the engine alone generates them, the learner alone trains on them. Ceiling = both one
after the other, nothing else.

`long-tail` is a model, prompts and a recipe that are made on the spot (tests/bench/long_tail.py). PYTHON, an interpreter
with trl 1.16 (see tests/bench/learner.py), trains the same model on the same prompts with TRL's GRPOTrainer, before Ray is
started; every further `--trl-options` once more with these options of tests/bench/trl_loop.py.

Of every run the first two steps are left out. tokens/s: completion tokens over seconds, of all other steps together; median
and best: of the tokens/s of each. Of a machine that is shared, the best says most.
"""

import argparse
import asyncio
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from learner.batch import TrainingSequence
from orchestrator.cluster.services import Services
from orchestrator.cluster.session import ray_session
from orchestrator.config.load import load_recipe
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.data.prompts import load_tokenizer
from orchestrator.display import Display
from orchestrator.loop.context import StageContext
from orchestrator.loop.pulse import Pulse
from orchestrator.pipeline import run_stage
from orchestrator.run.store import RunStore
from rollout.types import Prompt, Sampling
from tests.bench.long_tail import write

PHASES = ("step", "generate", "score", "train", "publish", "overlap", "idle")
WARM_UP = 2
"""Steps of a run that are left out."""
Row = tuple[str, dict[str, float]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("recipe")
    arguments.add_argument("overrides", nargs="*")
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--also", action="append", default=[], help="one more run, with these keys")
    arguments.add_argument("--trl", default="", help="an interpreter with TRL; only of `long-tail`")
    arguments.add_argument("--trl-options", action="append", default=[])
    given = arguments.parse_args()
    if given.trl and given.recipe != "long-tail":
        arguments.error("--trl: only `long-tail` is a workload that TRL runs too")
    with tempfile.TemporaryDirectory() as folder:
        recipe = given.recipe
        if recipe == "long-tail":
            recipe = str(write(Path(folder) / "work", given.steps))
        rows = []
        for options in ["", *given.trl_options] if given.trl else []:
            rows.append(told(peer(given.trl, Path(recipe).parent, given.steps, options)))
        runs = {"max_staleness 0": "loop.max_staleness=0", "max_staleness 1": "loop.max_staleness=1"}
        runs |= {keys: keys for keys in given.also}
        rows += asyncio.run(bench(recipe, given.overrides, runs, given.steps, Path(folder)))
    show(given.recipe, rows)


def told(row: Row) -> Row:
    """Printed at once: what comes after it may fail."""
    print(row[0], json.dumps({name: round(value, 3) for name, value in row[1].items()}), flush=True)
    return row


def peer(python: str, work: Path, steps: int, options: str) -> Row:
    """TRL on the workload in the folder `work`."""
    command = [python, "-m", "tests.bench.trl_loop", str(work), "--steps", str(steps), *shlex.split(options)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    seconds, generate = np.array(found["seconds"])[WARM_UP:], np.array(found["generate"])[WARM_UP:]
    times = {"step": seconds, "generate": generate, "train": seconds - generate}
    figures = {name: float(np.median(values)) for name, values in times.items()}
    return f"TRL {options}".strip(), figures | throughput(found["lengths"][WARM_UP:], seconds)


def throughput(lengths: list[list[int]], seconds: np.ndarray) -> dict[str, float]:
    """`lengths`: of the completions of each step."""
    tokens = np.array([sum(step) for step in lengths])
    return {
        "mean": float(np.mean(np.concatenate(lengths))),
        "longest": float(np.mean([max(step) for step in lengths])),
        "tokens": float(tokens.mean()),
        "median": float(np.median(tokens / seconds)),
        "best": float(np.max(tokens / seconds)),
        "rate": float(tokens.sum() / seconds.sum()),  # what a user gets, the slow steps included
    }


def variant(name: str, overrides: list[str], label: str) -> Recipe:
    """Only the recipe's last grpo stage, without evaluation, checkpoints and audits."""
    recipe = load_recipe(name, overrides)
    stage = next(stage for stage in reversed(recipe.stages) if stage.kind == "grpo")
    loop = stage.loop.model_copy(update={"eval_every": 0, "checkpoint_every": 0, "audit_every": 0})
    quiet = stage.model_copy(update={"loop": loop, "eval": stage.eval.model_copy(update={"sets": {}})})
    return recipe.model_copy(update={"stages": (quiet,), "name": label})


async def bench(name: str, overrides: list[str], runs: dict[str, str], steps: int, folder: Path) -> list[Row]:
    """`runs`: label → further overrides, separated by spaces."""
    rows: list[Row] = []
    base = ""
    with ray_session(load_recipe(name, overrides).cluster, "bench") as device:
        services = Services(device, 300, Display())
        try:
            for i, (label, keys) in enumerate(runs.items()):
                recipe = variant(name, [*overrides, f"loop.steps={steps}", *keys.split()], f"run-{i}")
                store = RunStore(folder / recipe.name, recipe)
                stage = recipe.stages[0]
                if base and not stage.model.path:
                    shutil.copytree(base, store.folder / "base")  # the same model again, in the run's own folder
                await run_stage(recipe, stage, store, services, Pulse(store, services.display))
                base = stage.model.path or str(store.folder / "base")
                rows.append(told((label, phases(store))))
                if i == 0:
                    tokenizer = load_tokenizer(base, False)
                    context = StageContext(recipe, stage, base, tokenizer, store, services, services.display)
                    rows += await ceilings(context, store.folder)
        finally:
            await services.close()
    return rows


def phases(store: RunStore) -> dict[str, float]:
    """Medians over the steps."""
    lines = [json.loads(line) for line in (store.folder / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["kind"] == "step"][WARM_UP:]
    figures = {phase: float(np.median([line[f"time/{phase}_s"] for line in kept])) for phase in PHASES}
    batches = [pq.read_table(file, columns=["token_ids"]) for file in trajectories(store.folder)]
    lengths = [[len(ids) for ids in batch["token_ids"]] for batch in batches]
    return figures | throughput(lengths, np.array([line["time/step_s"] for line in kept]))


def trajectories(folder: Path) -> list[Path]:
    return sorted((folder / "trajectories").glob("*/step-*.parquet"))[WARM_UP:]


async def ceilings(context: StageContext, folder: Path) -> list[Row]:
    """The completions of the synchronous run again, by each service alone."""
    pool, learner = await context.services.rollout(), await context.services.learner()
    batches = [pq.read_table(file).to_pylist() for file in trajectories(folder)]
    tokens = sum(len(row["token_ids"]) for rows in batches for row in rows)
    generate, generated, train = 0.0, 0, 0.0
    for rows in batches:
        groups = {row["group_id"]: row for row in reversed(rows)}
        began = time.perf_counter()
        done = await asyncio.gather(
            *(pool.generate(name, *request(row, context.stage)) for name, row in groups.items())
        )
        generate += time.perf_counter() - began
        generated += sum(group.num_tokens for group in done)
        batch = context.batch_of([sequence(row) for row in rows], 0, context.stage.learner.mini_batches)
        began = time.perf_counter()
        await learner.train(batch, "grpo")
        train += time.perf_counter() - began
    count = len(batches)
    serial = generate * tokens / generated + train
    return [
        ("engine alone", {"generate": generate / count, "tokens": generated / count, "rate": generated / generate}),
        ("learner alone", {"train": train / count, "tokens": tokens / count, "rate": tokens / train}),
        ("ceiling: one after the other", {"step": serial / count, "tokens": tokens / count, "rate": tokens / serial}),
    ]


def request(row: dict, stage: Stage) -> tuple[Prompt, Sampling]:
    prompt = Prompt(
        prompt_id=row["prompt_id"],
        source=row["source"],
        rubric="default",
        text=row["prompt"],
        token_ids=tuple(row["prompt_token_ids"]),
        answer=row["answer"],
    )
    settings = stage.rollout
    return prompt, Sampling(
        n=settings.group_size, temperature=settings.temperature, max_tokens=settings.max_tokens, seed=row["seed"]
    )


def sequence(row: dict) -> TrainingSequence:
    return TrainingSequence(
        token_ids=np.array([*row["prompt_token_ids"], *row["token_ids"]], dtype=np.int64),
        first_target=len(row["prompt_token_ids"]),
        advantage=row["advantage"],
        rollout_logprobs=np.array(row["rollout_logprobs"], dtype=np.float32),
    )


def show(name: str, rows: list[Row]) -> None:
    table = Table(title=f"{name}: seconds a step (median), completion tokens", title_justify="left")
    columns = ("", *PHASES, "mean", "longest", "tokens", "median", "best", "tokens/s")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for label, figures in rows:
        cells = [f"{figures[phase]:.3f}" if phase in figures else "" for phase in PHASES]
        rest = ("mean", "longest", "tokens", "median", "best", "rate")
        table.add_row(label, *cells, *(f"{figures[column]:,.0f}" if column in figures else "" for column in rest))
    console = Console(width=160)
    console.print(table)
    found = dict(rows)
    sync, other, ceiling = found["max_staleness 0"], found["max_staleness 1"], found["ceiling: one after the other"]
    console.print(f"control plane of a synchronous step: {100 * sync['idle'] / sync['step']:.1f} %")
    console.print(f"async / sync, completion tokens/s:   {other['rate'] / sync['rate']:.2f}")
    console.print(f"sync / ceiling, completion tokens/s: {sync['rate'] / ceiling['rate']:.2f}")
    for label, trl in rows:
        if label.startswith("TRL"):
            for run, figures in rows:
                if "median" in figures and not run.startswith("TRL"):
                    times = [f"{figures[figure] / trl[figure]:.2f}" for figure in ("rate", "median", "best")]
                    console.print(f"{run} / {label}, tokens/s: {times[0]} (median step {times[1]}, best {times[2]})")


if __name__ == "__main__":
    main()
