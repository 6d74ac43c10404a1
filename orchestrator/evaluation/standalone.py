"""The evaluation of a model by itself, as `rayzero eval` does it: engines for it alone, and the sets of a recipe."""

import asyncio
from typing import Any

from orchestrator.cluster.folders import check_folders
from orchestrator.cluster.services import Services
from orchestrator.cluster.session import ray_session
from orchestrator.config.recipe import Recipe
from orchestrator.data.prompts import load_prompts, stage_tokenizer
from orchestrator.display import Display
from orchestrator.evaluation.figures import EvalResult
from orchestrator.evaluation.sets import evaluate_sets
from orchestrator.plan.local_paths import absolute, with_paths
from orchestrator.plan.model_folder import is_local
from rollout.actors import Device


def evaluate_model(recipe: Recipe, model_path: str, stored: str = "") -> list[dict[str, Any]]:
    """Start engines for a model (folder or hub id) and run every evaluation set of the recipe's last stage.

    Args:
        stored: its URI, by which engines on other hosts read it.

    Raises:
        InputError: the sets or the model cannot be read, or a reward function of the user's fails.
        ServiceError: an engine failed, or too many completions could not be scored.
    """
    if recipe.cluster.address:
        # Nodes of a cluster are in other folders than whoever asks.
        recipe = with_paths(recipe, lambda place: absolute(place.path))
        model_path = absolute(model_path) if is_local(model_path) else model_path
    stage = recipe.stages[-1]
    # There is no rank here to share with.
    stage = stage.model_copy(update={"rollout": stage.rollout.model_copy(update={"share_gpus": False})})
    tokenizer = stage_tokenizer(model_path, stage)
    sets = load_prompts(stage.eval.prompt_sets, stage, tokenizer, seed=0)
    display = Display()
    for note in sets.notes():
        display.line(note)

    async def run(device: Device) -> list[EvalResult]:
        services = Services(device, recipe.cluster.start_timeout_s, display, wait_s=recipe.cluster.wait_s)
        try:
            model: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            model.set_result(stored or model_path)
            await services.begin_rollout(stage, model)
            await services.begin_rewards(stage, sets)
            pool = await services.rollout()
            display.line(f"engine ready: {model_path}")
            return await evaluate_sets(pool, await services.rewards(), sets.prompts, stage, recipe.seed)
        finally:
            await services.close()

    with ray_session(recipe.cluster, "eval") as device:
        if recipe.cluster.address:
            check_folders(_read_from(recipe, stored), [stage], None)
        return [result.record() for result in asyncio.run(run(device))]


def _read_from(recipe: Recipe, stored: str) -> Recipe:
    """The recipe with the URI of its model in place of the copy that this host has of it, where there is one."""
    stages = tuple(
        stage.model_copy(update={"model": stage.model.model_copy(update={"path": stored})}) for stage in recipe.stages
    )
    return recipe.model_copy(update={"stages": stages}) if stored else recipe
