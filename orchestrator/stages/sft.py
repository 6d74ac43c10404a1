"""Supervised fine-tuning: worked examples → batch → learner. One optimizer step a batch."""

import time

import numpy as np

from learner.batch import Sequence
from orchestrator.context import StageContext, derive_seed
from orchestrator.data import supervised_sequences
from orchestrator.metrics import learner_speed


async def run_sft(context: StageContext) -> None:
    stage, loop = context.stage, context.stage.loop
    sources, sets = supervised_sequences(stage, context.tokenizer, context.recipe.seed)
    for note in sets.notes():
        context.display.line(note)
    if stage.eval.sets:
        await context.begin_rewards()
    learner = await context.services.learner()
    state = await context.resume()
    start = state["step"] if state else 0

    with context.display.bar(stage.name, loop.steps, start) as bar:
        for step in range(start, loop.steps):
            context.services.check()
            began = time.perf_counter()
            rows = draw(sources, {name: stage.data.sources[name].weight for name in sources}, context, step)
            batch = context.batch_of(rows, seed=context.seed + step, mini_batches=1)
            with context.clocks.training():
                stats = await learner.train(batch, "sft")
            rate = batch.num_tokens / (time.perf_counter() - began)
            context.record_step(
                step + 1,
                {
                    "learner/loss": stats.means["nll"],
                    "learner/grad_norm": stats.grad_norm,
                    "learner/lr": stats.lr,
                    "policy/entropy": stats.means["entropy"],
                    "throughput/tokens_per_s": rate,
                    **learner_speed(batch, stats),
                    **context.clocks.step(),
                },
            )
            bar.advance(f"loss {stats.means['nll']:.3f}  {rate:,.0f} tokens/s")
            if loop.checkpoint_every and (step + 1) % loop.checkpoint_every == 0 and step + 1 < loop.steps:
                await context.checkpoint(step + 1, {})

    await context.publish(loop.steps)
    await context.evaluate(loop.steps, "after")
    await context.export()


def draw(
    sources: dict[str, list[Sequence]], weights: dict[str, float], context: StageContext, step: int
) -> list[Sequence]:
    """The examples of one step: every source in a fresh order each epoch, mixed by weight. A function of the step."""
    size = context.stage.sft.batch_size
    total = sum(weights.values())
    rng = np.random.default_rng([context.seed, step])
    names = list(sources)
    counts = rng.multinomial(size, [weights[name] / total for name in names])
    rows = []
    for name, count in zip(names, counts, strict=True):
        examples = sources[name]
        # Position in the endless sequence of epochs; exact for one source, close to it for a mixture.
        first = int(step * size * weights[name] / total)
        for position in range(first, first + int(count)):
            epoch, index = divmod(position, len(examples))
            order = np.random.default_rng([derive_seed(context.seed, name), epoch]).permutation(len(examples))
            rows.append(examples[order[index]])
    return rows
