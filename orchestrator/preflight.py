"""What can be known before anything starts: data, model folder, rewards, ports, places, memory.

Every mistake found here costs a second instead of minutes, and names the key, its value and the way out. Neither this
nor any of the checks imports torch, vllm, ray or transformers.
"""

from orchestrator.config import Recipe
from orchestrator.data_check import check_data
from orchestrator.lora_check import check_lora
from orchestrator.loss_check import check_loss
from orchestrator.machine_check import check_cluster, check_engine, check_memory, check_places
from orchestrator.model_check import check_model, check_template
from orchestrator.reward_check import check_rewards, check_sandbox


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
    check_cluster(recipe)
    if not recipe.cluster.address:
        check_engine()
        check_places(recipe, training)
    for stage in recipe.stages:
        check_rewards(recipe, stage)
    for stage in recipe.stages:
        notes += check_model(recipe, stage)
        check_template(recipe, stage)
        notes += check_loss(recipe, stage)
        notes += check_lora(recipe, stage)
    notes += check_data(recipe, training)
    if not recipe.cluster.address:
        notes += check_memory(recipe, training)
        notes += check_sandbox(recipe)
    return list(dict.fromkeys(notes))
