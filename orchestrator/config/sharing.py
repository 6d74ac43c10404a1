"""Which stages can let engines and learner ranks take turns on the same GPUs."""

from orchestrator.config.recipe import Stage


def sharing_fault(stage: Stage) -> str:
    """Why engines and ranks of a stage cannot take turns on GPUs; empty when they can."""
    rollout, learner = stage.rollout, stage.learner
    if stage.loop.max_staleness:
        return (
            f"an engine sleeps while its rank trains, and loop.max_staleness = {stage.loop.max_staleness} samples then"
        )
    if rollout.tensor_parallel > 1:
        return (
            f"an engine of rollout.tensor_parallel = {rollout.tensor_parallel} workers shares with no rank; set it to 1"
        )
    if rollout.replicas > learner.ranks:
        return (
            f"each engine has a rank on its GPU, and rollout.replicas = {rollout.replicas} are more than "
            f"learner.ranks = {learner.ranks}"
        )
    return ""
