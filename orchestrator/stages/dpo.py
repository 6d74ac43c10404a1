"""Direct preference optimisation: pairs → policy, against the model that the stage starts from. No reward model."""

from collections.abc import Sequence

from orchestrator.data.pairs import load_pair_sets, need_end, policy_pairs
from orchestrator.loop.context import StageContext
from orchestrator.loop.pair_training import train_on_pairs
from rollout.data.rows import Row
from rollout.data.templates import load_template


async def run_dpo(context: StageContext) -> None:
    stage, settings, tokenizer = context.stage, context.stage.dpo, context.tokenizer
    need_end(tokenizer)
    template = load_template(stage.data.template, tokenizer)

    def render(rows: Sequence[Row]) -> list[list[int]]:
        texts = [template.render(row.question) for row in rows]
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=template.add_special_tokens)["input_ids"]
        return ids

    sets = load_pair_sets(
        stage, policy_pairs(stage, render, tokenizer, template.closing), settings.held_out, context.recipe.seed
    )
    await train_on_pairs(context, sets, "dpo", settings.batch_size)
    await context.publish(stage.loop.steps)
    await context.evaluate(stage.loop.steps, "after")
    await context.export()
