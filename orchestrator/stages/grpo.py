"""Reinforcement learning by GRPO: the loop.

    produce   prompt → rollout → reward → buffer      waits for a place in the buffer; woken by a publish
    consume   buffer → file → learner → publish       waits for a whole batch; woken by the last group of it

Sync and async are this one loop: `loop.max_staleness` decides how many groups the buffer admits (orchestrator/buffer.py).
"""

import asyncio
from functools import partial

from learner.batch import make_batch
from learner.learner import Once
from orchestrator.buffer import Buffer
from orchestrator.config.sections.rollout import RolloutSection
from orchestrator.data.prompts import prompt_stream
from orchestrator.loop.advantages import batch_advantages
from orchestrator.loop.context import StageContext, derive_seed
from orchestrator.loop.metrics import step_metrics
from orchestrator.loop.prompt_source import PromptSource
from orchestrator.loop.restore import restore, write_record
from orchestrator.run.waiting import WaitingLog
from orchestrator.sampling import scored_group
from rollout.faults import reach
from rollout.types import Prompt
from rollout.waits import waiting


async def run_grpo(context: StageContext) -> None:
    stage, loop = context.stage, context.stage.loop
    sets = context.load_prompts()
    schedule = context.schedule
    prompts = PromptSource(prompt_stream(sets, stage, context.seed), schedule.weights)
    log = WaitingLog(context.store.waiting_folder(stage.name), lambda: prompts.segments, context.display.warn)
    buffer = Buffer(
        loop.groups_per_step,
        loop.max_staleness,
        loop.dynamic_sampling,
        schedule.steps,
        steps=loop.steps,
        journal=log,
        max_no_signal=loop.max_no_signal,
        tell=context.display.warn,
    )
    start = await restore(context, buffer, prompts, log)

    await context.begin_rewards(sets)
    await context.publish(start)
    rewards = await context.services.rewards()
    context.queues = lambda: {
        "in_flight": buffer.num_in_flight,
        "waiting": buffer.num_waiting,
        "to_score": rewards.num_waiting,
    }
    if not start and context.needs_first_evaluation():
        await context.evaluate(start, "before")
    elif start and context.cadence.evaluation(start) and not context.has_evaluated(start):
        await context.evaluate(start, "during")
    await buffer.published(start)
    producer = asyncio.create_task(produce(context, buffer, prompts))
    try:
        with context.display.bar(stage.name, loop.steps, start) as bar:
            for step in range(start, loop.steps):
                bar.advance(await consume(context, buffer, prompts, log, step))
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)
        log.close()
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


async def consume(context: StageContext, buffer: Buffer, prompts: PromptSource, log: WaitingLog, step: int) -> str:
    """One batch: take, commit, train, publish, record. Returns a line about it."""
    cadence = context.cadence
    context.services.check()
    pool, rewards = await context.services.rollout(), await context.services.rewards()
    if step in context.schedule.steps:
        context.display.line(f"{context.stage.name}, from step {step}: {context.schedule.changes[step]}")
    await context.resize(step, lambda: {"buffer": buffer.state(), "prompts": prompts.state()})
    with context.clocks.wait.running(), waiting(f"the groups of batch {step}"):
        groups = await buffer.take(learner_version=step)
    reach("taken")
    trained = await batch_advantages(context, groups, step)
    done = step + 1
    learner = context.stage.learner
    cut = context.cut(derive_seed(context.seed, "batch", step), learner.mini_batches, step)
    cut["only_signal"] = not learner.trains_all
    state = {"buffer": buffer.state(), "prompts": prompts.state()}
    with context.clocks.save.running():
        recorded = await write_record(context, done, buffer, log, trained.advantages, cut, state)
    reach("committed", recorded.path)
    batch = make_batch(trained.rows, **cut)
    stats = await context.train(Once(batch, partial(recorded.batch, learner)), "grpo")
    reach("trained")
    published = await context.publish(done) if cadence.publish(done) else None
    reach("published")
    audit = None
    if published and cadence.audit(done):
        audit = await context.audit(done, [group.group.prompt for group in groups])
    if published and cadence.evaluation(done):
        await context.evaluate(done, "during")
    if published and not cadence.is_last(done):
        await buffer.published(done)
    metrics = step_metrics(groups, batch, stats, step, published, audit, buffer, pool.version, context.clocks.step())
    metrics |= rewards.metrics() | trained.metrics
    context.record_step(done, metrics, weights=stats.weights)
    reach("recorded")
    # Written while the engines sample the next batch.
    if cadence.is_last(done) or cadence.checkpoint(done):
        await context.checkpoint(done, state)
    reach("saved")
    return (
        f"reward {metrics['reward/mean']:.3f}  length {metrics['completion/length_mean']:.0f}  "
        f"{metrics['throughput/tokens_per_s']:,.0f} tokens/s"
    )
