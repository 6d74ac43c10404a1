"""What reward models and DPO share: pairs → batch → learner, one optimizer step a batch, judged on held-out pairs."""

import time

from learner.spec import ObjectiveName
from orchestrator.data.pairs import PairSets, PairStream, pair_batch
from orchestrator.evaluation.pair_metrics import judge_pairs
from orchestrator.loop.context import StageContext
from orchestrator.loop.metrics import learner_speed


async def train_on_pairs(context: StageContext, sets: PairSets, objective: ObjectiveName, batch_size: int) -> None:
    """All steps of a stage, from its newest checkpoint on. `objective`: of the learner."""
    stage, loop = context.stage, context.stage.loop
    for note in sets.notes:
        context.display.line(note)
    learner = await context.services.learner()
    state = await context.resume()
    start = state["step"] if state else 0
    if not state:
        await judge_pairs(context, sets.held_out, 0, "before")
    weights = {name: stage.data.sources[name].weight for name in sets.training}
    batches = PairStream(sets.training, weights, context.seed).batches(batch_size, start, loop.steps)

    with context.display.bar(stage.name, loop.steps, start) as bar:
        for done, pairs in enumerate(batches, start + 1):
            began = time.perf_counter()
            batch = pair_batch(pairs, stage, seed=context.seed + done)
            with context.clocks.training():
                stats = await learner.train(batch, objective)
            rate = batch.num_tokens / (time.perf_counter() - began)
            means = dict(stats.means)
            accuracy = means.pop("ordered")
            context.record_step(
                done,
                {
                    "learner/loss": stats.loss,
                    "learner/grad_norm": stats.grad_norm,
                    "learner/lr": stats.lr,
                    "preference/accuracy": accuracy,
                    **{f"preference/{name}": value for name, value in means.items()},
                    "throughput/tokens_per_s": rate,
                    **learner_speed(batch, stats),
                    **context.clocks.step(),
                },
            )
            bar.advance(f"loss {stats.loss:.3f}  in order {accuracy:.2f}  {rate:,.0f} tokens/s")
            if done == loop.steps:
                break
            if loop.checkpoint_every and done % loop.checkpoint_every == 0:
                await context.checkpoint(done, {})
            if loop.eval_every and done % loop.eval_every == 0:
                await judge_pairs(context, sets.held_out, done, "during")
    await judge_pairs(context, sets.held_out, loop.steps, "after")
