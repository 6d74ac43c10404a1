"""Direct preference optimisation: pairs → policy, against the model that the stage starts from. No reward model."""

from orchestrator.data.pairs import load_pair_sets, need_end, policy_pairs
from orchestrator.data.prompts import stage_template
from orchestrator.loop.context import StageContext
from orchestrator.loop.pair_training import train_on_pairs


async def run_dpo(context: StageContext) -> None:
    stage, settings, tokenizer = context.stage, context.stage.dpo, context.tokenizer
    need_end(tokenizer)
    template = stage_template(stage, tokenizer)
    sets = load_pair_sets(stage, policy_pairs(stage, template, tokenizer), settings.held_out, context.recipe.seed)
    await train_on_pairs(context, sets, "dpo", settings.batch_size)
    await context.publish(stage.loop.steps)
    await context.evaluate(stage.loop.steps, "after")
    await context.export()
