"""Only judge: the evaluation sets of the stage on the model that it starts from. Nothing is trained and nothing is left."""

from orchestrator.loop.context import StageContext


async def run_eval(context: StageContext) -> None:
    await context.publish(0)
    await context.evaluate(0, "after")
