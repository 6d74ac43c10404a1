"""Where a step of the loop goes, beside what engine and learner can do alone on the same tokens.

    python -m tests.bench.loop RECIPE [key=value …] [--steps N]

Runs the recipe's last `grpo` stage from its start model (a cold start is left out: the figures are about speed), once
synchronous and once with max_staleness = 1, in one process and on the same engines. Then the same completions once more:
the engine alone generates them, the learner alone trains on them. Ceiling = both one after the other, nothing else.
"""

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from learner.batch import Sequence
from orchestrator.cluster import ray_session
from orchestrator.config import Recipe, Stage, load_recipe
from orchestrator.context import StageContext
from orchestrator.data import load_tokenizer
from orchestrator.display import Display
from orchestrator.pipeline import run_stage
from orchestrator.services import Services
from orchestrator.store import RunStore
from rollout.types import Prompt, Sampling

PHASES = ("step", "generate", "score", "train", "publish", "overlap", "idle")


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("recipe")
    arguments.add_argument("overrides", nargs="*")
    arguments.add_argument("--steps", type=int, default=12)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(bench(given.recipe, given.overrides, given.steps, Path(folder)))


def variant(name: str, overrides: list[str], steps: int, staleness: int) -> Recipe:
    """Only the recipe's last grpo stage, without evaluation, checkpoints and audits."""
    recipe = load_recipe(name, [*overrides, f"loop.steps={steps}", f"loop.max_staleness={staleness}"])
    stage = next(stage for stage in reversed(recipe.stages) if stage.kind == "grpo")
    loop = stage.loop.model_copy(update={"eval_every": 0, "checkpoint_every": 0, "audit_every": 0})
    quiet = stage.model_copy(update={"loop": loop, "eval": stage.eval.model_copy(update={"sets": {}})})
    return recipe.model_copy(update={"stages": (quiet,), "name": f"staleness-{staleness}"})


async def bench(name: str, overrides: list[str], steps: int, folder: Path) -> None:
    rows = []
    with ray_session(load_recipe(name, overrides).cluster, "bench") as device:
        services = Services(device, 300, Display())
        try:
            base = ""
            for staleness in (0, 1):
                recipe = variant(name, overrides, steps, staleness)
                store = RunStore(folder / recipe.name, recipe)
                stage = recipe.stages[0]
                if base and not stage.model.path:
                    shutil.copytree(base, store.folder / "base")  # the same model again, in the run's own folder
                await run_stage(recipe, stage, store, services, services.display)
                base = stage.model.path or str(store.folder / "base")
                rows.append((f"loop, max_staleness {staleness}", phases(store, steps)))
            context = StageContext(recipe, stage, base, load_tokenizer(base, False), store, services, services.display)
            rows += await ceilings(context, folder / "staleness-0", steps)
        finally:
            await services.close()
    show(name, rows)


def phases(store: RunStore, steps: int) -> dict[str, float]:
    """Medians over the steps but for the first two, which warm everything up."""
    lines = [json.loads(line) for line in (store.folder / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["kind"] == "step"][2:]
    figures = {phase: float(np.median([line[f"time/{phase}_s"] for line in kept])) for phase in PHASES}
    figures["tokens"] = float(np.mean([line["throughput/completion_tokens"] for line in kept]))
    # Totals, not medians: what a user gets, the slow steps included.
    figures["rate"] = sum(line["throughput/completion_tokens"] for line in kept) / sum(
        line["time/step_s"] for line in kept
    )
    return figures


async def ceilings(context: StageContext, folder: Path, steps: int) -> list[tuple[str, dict[str, float]]]:
    """The completions of the synchronous run again, by each service alone."""
    pool, learner = await context.services.rollout(), await context.services.learner()
    files = sorted((folder / "trajectories").glob("*/step-*.parquet"))[2:]
    batches = [pq.read_table(file).to_pylist() for file in files]
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


def sequence(row: dict) -> Sequence:
    return Sequence(
        token_ids=np.array([*row["prompt_token_ids"], *row["token_ids"]], dtype=np.int64),
        first_target=len(row["prompt_token_ids"]),
        advantage=row["advantage"],
        rollout_logprobs=np.array(row["rollout_logprobs"], dtype=np.float32),
    )


def show(name: str, rows: list[tuple[str, dict[str, float]]]) -> None:
    table = Table(title=f"{name}: seconds a step (median), completion tokens", title_justify="left")
    for i, column in enumerate(("", *PHASES, "tokens", "tokens/s")):
        table.add_column(column, justify="left" if i == 0 else "right")
    for label, figures in rows:
        cells = [f"{figures[phase]:.3f}" if phase in figures else "" for phase in PHASES]
        table.add_row(label, *cells, f"{figures['tokens']:,.0f}", f"{figures['rate']:,.0f}")
    console = Console(width=130)
    console.print(table)
    sync, other = rows[0][1], rows[1][1]
    console.print(f"control plane of a synchronous step: {100 * sync['idle'] / sync['step']:.1f} %")
    console.print(f"async / sync, completion tokens/s:   {other['rate'] / sync['rate']:.2f}")
    console.print(f"sync / ceiling, completion tokens/s: {sync['rate'] / rows[-1][1]['rate']:.2f}")


if __name__ == "__main__":
    main()
