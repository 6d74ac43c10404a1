"""Reinforcement learning by GRPO: the loop.

    produce   prompt → rollout → reward → buffer      waits for a place in the buffer; woken by a publish
    consume   buffer → batch → learner → publish      waits for a whole batch; woken by the last group of it

Sync and async are this one loop: `loop.max_staleness` decides how many groups the buffer admits (orchestrator/buffer.py).
"""

import asyncio

from orchestrator.buffer import Buffer
from orchestrator.config.sections.rollout import RolloutSection
from orchestrator.data.prompts import prompt_stream
from orchestrator.loop.advantages import batch_advantages
from orchestrator.loop.context import StageContext, derive_seed
from orchestrator.loop.metrics import step_metrics
from orchestrator.loop.prompt_source import PromptSource
from orchestrator.run.trajectories import write_trajectories
from orchestrator.sampling import scored_group
from rollout.types import Prompt


async def run_grpo(context: StageContext) -> None:
    stage, loop = context.stage, context.stage.loop
    sets = context.load_prompts()
    schedule = context.schedule
    prompts = PromptSource(prompt_stream(sets, stage, context.seed), schedule.weights)
    buffer = Buffer(loop.groups_per_step, loop.max_staleness, loop.dynamic_sampling, schedule.steps)
    state = await context.resume()
    start = state["step"] if state else 0
    if state:
        buffer.restore(state["buffer"], start)
        prompts.restore(state["prompts"], state["buffer"])

    await context.begin_rewards(sets)
    await context.publish(start)
    rewards = await context.services.rewards()
    context.queues = lambda: {
        "in_flight": buffer.num_in_flight,
        "waiting": buffer.num_waiting,
        "to_score": rewards.num_waiting,
    }
    if not state and context.needs_first_evaluation():
        await context.evaluate(start, "before")
    await buffer.published(start)
    producer = asyncio.create_task(produce(context, buffer, prompts))
    try:
        with context.display.bar(stage.name, loop.steps, start) as bar:
            for step in range(start, loop.steps):
                bar.advance(await consume(context, buffer, prompts, step))
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)
    await context.evaluate(loop.steps, "after")
    await context.export()


async def produce(context: StageContext, buffer: Buffer, prompts: PromptSource) -> None:
    """Keep as many groups in flight as the buffer admits. The first failure reaches the consumer through the buffer."""
    schedule = context.schedule
    pool, rewards = await context.services.rollout(), await context.services.rewards()

    async def one(number: int, prompt: Prompt, settings: RolloutSection) -> None:
        request = context.request(number, prompt, settings, settings.group_size)
        await buffer.put(number, await scored_group(pool, rewards, request, clocks=context.clocks))

    try:
        async with asyncio.TaskGroup() as tasks:
            while True:
                number, version = await buffer.admit(), buffer.engine_version
                prompt = prompts.prompt(number, schedule.segment(version))
                tasks.create_task(one(number, prompt, schedule.at(version).rollout))
    except ExceptionGroup as failures:
        await buffer.fail(failures.exceptions[0])


async def consume(context: StageContext, buffer: Buffer, prompts: PromptSource, step: int) -> str:
    """One batch: take, train, publish, record. Returns a line about it."""
    stage, cadence = context.stage, context.cadence
    pool, rewards = await context.services.rollout(), await context.services.rewards()
    if step in context.schedule.steps:
        context.display.line(f"{stage.name}, from step {step}: {context.schedule.changes[step]}")
    with context.clocks.wait.running():
        groups = await buffer.take(learner_version=step)
    trained = await batch_advantages(context, groups, step)
    seed = derive_seed(context.seed, "batch", step)
    batch = context.batch_of(trained.rows, seed=seed, mini_batches=stage.learner.mini_batches, step=step)
    stats = await context.train(batch, "grpo")
    done = step + 1
    # Taken before anything new is admitted, so that a synchronous checkpoint owes no prompt.
    state = {"buffer": buffer.state(), "prompts": prompts.state()}
    published = await context.publish(done) if cadence.publish(done) else None
    audit = None
    if published and cadence.audit(done):
        audit = await context.audit(done, [group.group.prompt for group in groups])
    if published and cadence.evaluation(done):
        await context.evaluate(done, "during")
    if published and not cadence.is_last(done):
        await buffer.published(done)
    # Written while the engines sample the next batch.
    if cadence.is_last(done) or cadence.checkpoint(done):
        await context.checkpoint(done, state)
    metrics = step_metrics(groups, batch, stats, step, published, audit, buffer, pool.version, context.clocks.step())
    metrics |= rewards.metrics() | trained.metrics
    file = context.store.trajectory_file(stage.name, done)
    write_trajectories(file, done, groups, trained.advantages, version=step)
    context.record_step(done, metrics)
    return (
        f"reward {metrics['reward/mean']:.3f}  length {metrics['completion/length_mean']:.0f}  "
        f"{metrics['throughput/tokens_per_s']:,.0f} tokens/s"
    )
