"""A reward model: Bradley–Terry on preference pairs. Its export is served by the reward service as it is.

The way in which pairs are written travels with the export, as the chat template of its tokenizer: the service then reads
what was trained on. Which part of a response is read is `reward_model.scope`, here as there.
"""

from orchestrator.config.stage_kinds import kind_of
from orchestrator.data.pairs import load_pair_sets, scored_pairs
from orchestrator.data.prompts import stage_template
from orchestrator.data.reward_pairs import encoder, reward_tokenizer
from orchestrator.loop.context import StageContext
from orchestrator.loop.pair_training import train_on_pairs


async def run_reward_model(context: StageContext) -> None:
    stage, settings = context.stage, context.stage.reward_model
    template = stage_template(stage, context.tokenizer)
    tokenizer = reward_tokenizer(context.tokenizer, template)
    encode = encoder(stage, tokenizer, template, context.model_path)
    sets = load_pair_sets(stage, scored_pairs(stage, encode), settings.held_out, context.recipe.seed)
    # First, for a checkpoint may be exported before the stage has ended.
    folder = context.store.folder / stage.name / "tokenizer"
    tokenizer.save_pretrained(folder)
    await train_on_pairs(context, sets, "reward_model", settings.batch_size)
    # It is no policy: nothing starts from it, unless there is nothing else.
    linked = all(kind_of(other).leaves == "rewards" for other in context.recipe.stages)
    await context.export(str(folder), linked=linked)
