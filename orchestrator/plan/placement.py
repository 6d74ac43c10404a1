"""Cores and GPUs that a stage reserves, and whether the models that score find a place beside the rest."""

import json

from orchestrator.config.recipe import Stage
from orchestrator.config.trained_rewards import used_rubrics
from rewards.models.scorers import SCORER_GPUS
from rollout.errors import InputError


def stage_places(stage: Stage, training: bool = True) -> tuple[float, int]:
    """(CPU cores, workers that take a GPU each on a GPU host) that a stage holds while it runs."""
    workers = stage.rollout.replicas * stage.rollout.tensor_parallel
    ranks = stage.learner.ranks if training else 0
    return workers * stage.rollout.cpus + ranks * stage.learner.cpus, workers + ranks


def gpu_share(stage: Stage) -> float:
    """GPUs that engines, ranks and reward models reserve on GPU hosts."""
    rollout, learner = stage.rollout, stage.learner
    workers = rollout.replicas * rollout.tensor_parallel * rollout.gpus + learner.ranks * learner.gpus
    return round(workers + SCORER_GPUS * _num_scorers(stage), 3)


def check_scorers(stage: Stage, gpus: int) -> None:
    """Raises InputError when engines and ranks leave no part of `gpus` GPUs to the reward models of a stage."""
    models = _num_scorers(stage)
    if models and gpu_share(stage) > gpus:
        raise InputError(
            f"stage {stage.name}: engines and ranks leave nothing of {gpus} GPUs to {models} reward models, each of which "
            f'takes {SCORER_GPUS:g}: set rollout.gpus=0.8 rollout.gpu_memory=0.5, or device = "cpu" of the models'
        )


def _num_scorers(stage: Stage) -> int:
    """Reward models that a stage scores with on GPUs, each once."""
    used = used_rubrics(stage)
    functions = (
        function for name in used & set(stage.rewards.rubrics) for function in stage.rewards.rubrics[name].values()
    )
    arguments = (dict(function.model_extra or {}) for function in functions if function.name == "reward_model")
    return len({json.dumps(each, sort_keys=True, default=str) for each in arguments if each.get("device") != "cpu"})
