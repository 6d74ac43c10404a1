"""Cores and GPUs that a stage reserves, and whether the models that score find a place beside the rest."""

import json
import math

from orchestrator.config.recipe import Stage
from orchestrator.config.sharing import sharing_fault
from orchestrator.config.stage_kinds import kind_of
from orchestrator.config.trained_rewards import used_rubrics
from rewards.models.scorers import SCORER_GPUS
from rollout.errors import InputError

MANY = 1 << 20
"""GPUs of a host, or of a cluster, that has or gets as many as a stage may want."""


def stage_places(stage: Stage, training: bool = True, gpus: int = 0) -> tuple[float, int]:
    """(CPU cores, GPUs) that a stage holds while it runs on a host with so many GPUs, if it has any."""
    workers = stage.rollout.replicas * stage.rollout.tensor_parallel
    ranks = stage.learner.ranks if training else 0
    if training and not kind_of(stage).generates:
        held = ranks  # engines of a stage before give way
    else:
        held = ranks if training and gpus and shares_gpus(stage, gpus) else workers + ranks
    return workers * stage.rollout.cpus + ranks * stage.learner.cpus, held


def shares_gpus(stage: Stage, gpus: int) -> bool:
    """Whether engines and ranks of a stage take turns on the same GPUs, of which there are so many."""
    rollout, learner = stage.rollout, stage.learner
    if rollout.share_gpus != "auto":
        return rollout.share_gpus
    apart = rollout.replicas * rollout.tensor_parallel + learner.ranks
    return apart > gpus and not sharing_fault(stage)


def gpu_share(stage: Stage, gpus: int) -> float:
    """GPUs that engines, ranks and reward models reserve on hosts with so many GPUs."""
    rollout, learner = stage.rollout, stage.learner
    if shares_gpus(stage, gpus):
        workers = learner.ranks * min(rollout.gpus, learner.gpus)
    else:
        workers = rollout.replicas * rollout.tensor_parallel * rollout.gpus + learner.ranks * learner.gpus
    return round(workers + SCORER_GPUS * _num_scorers(stage), 3)


def check_scorers(stage: Stage, gpus: int) -> None:
    """Raises InputError when engines and ranks leave no part of `gpus` GPUs to the reward models of a stage."""
    models, places = _num_scorers(stage), _scorer_places(stage, gpus)
    if models > places:
        room = f"leave {gpus} GPUs room for {places} of" if places else f"leave nothing of {gpus} GPUs to"
        key = "rollout.gpus=0.8 rollout.gpu_memory=0.5" if stage.rollout.tensor_parallel == 1 else "learner.gpus=0.8"
        raise InputError(
            f"stage {stage.name}: engines and ranks {room} {models} reward models, each of which takes {SCORER_GPUS:g} "
            f'of one: set {key}, or device = "cpu" of the models'
        )


def _scorer_places(stage: Stage, gpus: int) -> int:
    """Reward models that find their part beside engines and ranks: what is left of two GPUs does not make one part."""
    rollout, learner = stage.rollout, stage.learner
    if shares_gpus(stage, gpus):
        taken = [min(rollout.gpus, learner.gpus)] * learner.ranks
    else:
        taken = [rollout.gpus] * rollout.replicas * rollout.tensor_parallel + [learner.gpus] * learner.ranks
    whole = [0.0] * (gpus - len(taken))
    return sum(math.floor(round((1 - part) / SCORER_GPUS, 6)) for part in taken + whole)


def _num_scorers(stage: Stage) -> int:
    """Reward models that a stage scores with on GPUs, each once."""
    used = used_rubrics(stage)
    functions = (
        function for name in used & set(stage.rewards.rubrics) for function in stage.rewards.rubrics[name].values()
    )
    arguments = (dict(function.model_extra or {}) for function in functions if function.name == "reward_model")
    return len({json.dumps(each, sort_keys=True, default=str) for each in arguments if each.get("device") != "cpu"})
