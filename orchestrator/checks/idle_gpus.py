"""GPUs that stand idle while a stage trains, because they wait for engines that only evaluate or belong to another stage."""

from typing import Any

from orchestrator.checks.gpu_memory import Gpus
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.sharing import sharing_fault
from orchestrator.config.stage_kinds import kind_of
from orchestrator.plan import machine
from orchestrator.plan.gpu_memory import most_tokens


def idle_gpus(recipe: Recipe) -> list[str]:
    """A note about the stages that could train on more of this machine's GPUs; empty when there are none.

    Reinforcement learning is left out: its engines sample while it trains, or share the GPUs of its ranks.
    """
    gpus = Gpus(len(machine.gpu_names()), machine.gpu_memory_bytes())
    found = [stage for stage in recipe.stages if kind_of(stage).trains and not kind_of(stage).is_rl]
    found = [stage for stage in found if stage.learner.ranks < gpus.count and _could(stage, gpus)]
    if not found:
        return []
    ranks = sorted({stage.learner.ranks for stage in found})
    keys = f"learner.ranks={gpus.count}"
    if any(kind_of(stage).generates for stage in found):
        keys += ", with rollout.share_gpus=true where it evaluates,"
    names = [stage.name for stage in found]
    return [
        f"{'stages' if len(names) > 1 else 'stage'} {', '.join(names)}: {' or '.join(map(str, ranks))} of {gpus.count} GPUs "
        f"train; {keys} uses all of them"
    ]


def _could(stage: Stage, gpus: Gpus) -> bool:
    """Whether it has room on all GPUs."""
    changes: dict[str, Any] = {"ranks": gpus.count}
    wider = stage.model_copy(update={"learner": stage.learner.model_copy(update=changes)})
    if kind_of(stage).generates:
        shared = stage.rollout.model_copy(update={"share_gpus": True})
        wider = wider.model_copy(update={"rollout": shared})
        if sharing_fault(wider):
            return False
    groups = (stage.learner.zero_hpz_partition_size, stage.learner.sequence_parallel)
    return not any(gpus.count % size for size in groups) and gpus.fits(wider, most_tokens(wider))
