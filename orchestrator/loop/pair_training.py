"""What reward models and DPO share: pairs → batch → learner, one optimizer step a batch, measured on held-out pairs."""

import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from learner.learner import Once
from learner.spec import ObjectiveName
from orchestrator.data.pairs import Pair, PairSets, PairStream, pair_batch
from orchestrator.evaluation.pair_metrics import PairResult, measure
from orchestrator.loop.context import StageContext
from orchestrator.loop.metrics import learner_speed
from orchestrator.results.words import percent
from rollout.data.unchanged import check_unchanged

PAIRS_AT_A_TIME = 1024
"""Pairs of one call to the learner."""


async def train_on_pairs(context: StageContext, sets: PairSets, objective: ObjectiveName, batch_size: int) -> None:
    """Train all steps of a stage, from its newest checkpoint on. `objective`: the name that the learner has for it."""
    stage, loop = context.stage, context.stage.loop
    for note in sets.notes:
        context.display.line(note)
    state = await context.resume()
    start = state["step"] if state else 0
    held = sets.fingerprints()
    if state:
        check_unchanged("pairs", state.get("pairs", held), held)  # checkpoints of before do not say
    else:
        await measure_pairs(context, sets.held_out, 0, "before")
    weights = {name: stage.data.sources[name].weight for name in sets.training}
    batches = PairStream(sets.training, weights, context.seed).batches(batch_size, start, loop.steps)

    with context.display.bar(stage.name, loop.steps, start) as bar:
        for done, pairs in enumerate(batches, start + 1):
            await context.resize(done - 1, lambda: {"pairs": held})
            began = time.perf_counter()
            make = partial(pair_batch, pairs, context.stage, seed=context.seed + done)
            batch = make()
            stats = await context.train(Once(batch, make), objective)
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
                weights=stats.weights,
            )
            bar.advance(f"loss {stats.loss:.3f}  in order {accuracy:.2f}  {rate:,.0f} tokens/s")
            if context.cadence.checkpoint(done):
                await context.checkpoint(done, {"pairs": held})
            if context.cadence.evaluation(done):
                await measure_pairs(context, sets.held_out, done, "during")
    await measure_pairs(context, sets.held_out, loop.steps, "after")


async def measure_pairs(
    context: StageContext, sets: Mapping[str, Sequence[Pair]], step: int, label: str
) -> list[PairResult]:
    """Measure every set by the weights that the learner holds; recorded and printed."""
    learner = await context.services.learner()
    results = []
    for name, pairs in sets.items():
        with context.clocks.evaluate.running():
            scores = [
                await learner.scores(pair_batch(pairs[first : first + PAIRS_AT_A_TIME], context.stage, seed=0))
                for first in range(0, len(pairs), PAIRS_AT_A_TIME)
            ]
        chosen, rejected = np.concatenate(scores).reshape(-1, 2).T
        result = measure(name, chosen - rejected)
        context.store.record("eval", context.stage.name, step=step, label=label, **result.record())
        context.display.line(
            f"{name} {label} {context.stage.name} (step {step}): {percent(result.accuracy)} of {result.pairs} pairs in "
            f"order, log-loss {result.log_loss:.3f}, calibration error {percent(result.calibration_error)}"
        )
        results.append(result)
    return results
