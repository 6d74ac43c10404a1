"""Supervised fine-tuning: worked examples → batch → learner. One optimizer step a batch."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

from learner.learner import Once
from orchestrator.cluster.specs import optimizer_steps
from orchestrator.data.examples import example_stream, has_examples, load_examples, num_steps, take_step
from orchestrator.loop.context import StageContext
from orchestrator.loop.metrics import learner_speed


async def run_sft(context: StageContext) -> None:
    stage = context.stage
    examples = load_examples(stage.data.sources, stage, context.tokenizer, context.recipe.seed)
    for note in examples.notes():
        context.display.line(note)
    if stage.eval.sets:
        await context.begin_rewards()
    held_out = _held_out(context)
    stream = example_stream(examples, stage, context.seed)
    steps = num_steps(stream, stage)
    cadence = replace(context.cadence, steps=steps)
    learner = await context.services.learner()
    if stage.sft.epochs:
        context.display.line(
            f"{stage.name}: {stage.sft.epochs:g} epochs are {stream.total:,} examples, {steps:,} steps of "
            f"{stage.sft.batch_size} at most"
        )
        context.store.record("stage", stage.name, event="plan", steps=steps)
        await learner.plan(*optimizer_steps(stage, steps))
    state = await context.resume()
    start = state["step"] if state else 0
    if state:
        stream.restore(state["examples"])
    elif held_out:
        context.record_step(0, await _losses(context, held_out, 0))

    with context.display.bar(stage.name, steps, start) as bar:
        for step in range(start, steps):
            context.services.check()
            await context.resize(step, lambda: {"examples": stream.state()})
            began, done = time.perf_counter(), step + 1
            make = partial(context.batch_of, take_step(step, stream, stage), seed=context.seed + step, mini_batches=1)
            batch = make()
            stats = await context.train(Once(batch, make), "sft")
            rate = batch.num_tokens / (time.perf_counter() - began)
            metrics = {
                "learner/loss": stats.means["nll"],
                "learner/grad_norm": stats.grad_norm,
                "learner/lr": stats.lr,
                "policy/entropy": stats.means["entropy"],
                "throughput/tokens_per_s": rate,
                **learner_speed(batch, stats),
            }
            if held_out and (cadence.is_last(done) or cadence.evaluation(done)):
                metrics |= await _losses(context, held_out, done)
            context.record_step(done, metrics | context.clocks.step(), weights=stats.weights)
            bar.advance(f"loss {stats.means['nll']:.3f}  {rate:,.0f} tokens/s")
            if cadence.checkpoint(done):
                await context.checkpoint(done, {"examples": stream.state()})

    await context.publish(steps)
    await context.evaluate(steps, "after")
    await context.export()


def _held_out(context: StageContext) -> dict[str, Any]:
    """Evaluation sets with worked completions, each as one batch."""
    stage = context.stage
    sets = {name: section for name, section in stage.eval.sets.items() if has_examples(section)}
    if not stage.sft.eval_loss or not sets:
        return {}
    # The seed of evaluation sets everywhere, so that two runs can be compared.
    examples = load_examples(sets, stage, context.tokenizer, seed=0)
    for note in examples.notes():
        context.display.line(note)
    return {name: context.batch_of(rows, seed=0, mini_batches=1) for name, rows in examples.sequences.items()}


async def _losses(context: StageContext, held_out: dict[str, Any], step: int) -> dict[str, float]:
    """Mean negative log-likelihood of a target of every set, in nats, as metrics; printed."""
    learner = await context.services.learner()
    with context.clocks.evaluate.running():
        losses = {name: await learner.mean_nll(batch) for name, batch in held_out.items()}
    shown = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    context.display.line(f"{context.stage.name}: held-out loss (step {step}): {shown}")
    return {f"held_out_loss/{name}": loss for name, loss in losses.items()}
