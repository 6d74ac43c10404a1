"""Evaluation alone: of the model that the stage starts from, on its evaluation sets. Nothing is trained or left."""

from orchestrator.loop.context import StageContext


async def run_eval(context: StageContext) -> None:
    await context.publish(0)
    await context.evaluate(0, "after")
