"""What can be known before anything starts: data, model folder, rewards, ports, places, memory.

Every mistake found here costs a second instead of minutes, and names the key, its value and the way out. Neither this
nor any of the checks imports torch, vllm or ray, and `transformers` only to render a chat template.
"""

from orchestrator.checks.chat_template import check_template
from orchestrator.checks.data import check_data
from orchestrator.checks.engine import check_engine_options
from orchestrator.checks.lora import check_lora
from orchestrator.checks.loss import check_loss
from orchestrator.checks.machine import check_cluster, check_engine, check_memory, check_places
from orchestrator.checks.model import check_model
from orchestrator.checks.own_rewards import check_own_rewards
from orchestrator.checks.rewards import check_reward_models, check_rewards, check_sandbox
from orchestrator.checks.trackers import check_trackers
from orchestrator.config.recipe import Recipe
from orchestrator.config.trained_rewards import check_stage_models
from orchestrator.plan.machine import compute_on


def preflight(recipe: Recipe, *, training: bool = True) -> list[str]:
    """Check everything that can be known in seconds; nothing is started.

    Args:
        recipe: resolved.
        training: off for an evaluation, which needs neither the training data nor a learner.

    Returns:
        Notes for the user: nothing is wrong, but worth knowing.

    Raises:
        InputError: the first thing that would fail later.
    """
    notes: list[str] = []
    compute_on(recipe.cluster.device)
    if training:
        check_stage_models(recipe)
    check_cluster(recipe)
    if not recipe.cluster.address:
        check_engine()
        check_places(recipe, training)
    for stage in recipe.stages:
        check_rewards(recipe, stage)
    for stage in recipe.stages:
        notes += check_model(recipe, stage, training=training)
        check_template(recipe, stage)
        notes += check_engine_options(recipe, stage)
        notes += check_reward_models(recipe, stage)
        notes += check_loss(recipe, stage)
        notes += check_lora(recipe, stage)
    notes += check_data(recipe, training)
    if not recipe.cluster.address:
        notes += check_own_rewards(recipe, training=training)
        notes += check_memory(recipe, training)
        notes += check_sandbox(recipe)
    if training:
        notes += check_trackers(recipe)
    return list(dict.fromkeys(notes))
