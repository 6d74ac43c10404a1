"""Whether the adapters that a stage asks for (LoRA) can be made of its model, and choices that are probably not meant."""

from pathlib import Path

from orchestrator.checks.naming import key_in
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.plan.memory import linear_layers
from rollout.errors import InputError, did_you_mean

SLOW = 1e-5
"""Learning rate that is usual for whole models. Adapters take about ten times as much (Schulman et al., "LoRA Without
Regret", 2025)."""


def check_lora(recipe: Recipe, stage: Stage) -> list[str]:
    """Notes about the adapters of one stage. Raises InputError when a target is no layer of a model that is here."""
    settings = stage.learner
    if not settings.lora_rank:
        return []
    if not stage.model.path or Path(stage.model.path).is_dir():
        known = {name.rpartition(".")[2] for name in linear_layers(stage.model)}
        for target in settings.lora_targets:
            if known and target not in known:
                raise InputError(
                    f"{key_in(recipe, stage, 'learner.lora_targets')}: {target!r} is no linear layer of the model"
                    f"{did_you_mean(target, known)}; there is: {', '.join(sorted(known))}"
                )
    if settings.lr < SLOW:
        named = key_in(recipe, stage, "learner.lr")
        return [
            f"{named} = {settings.lr:g} is small for adapters, which take about ten times the rate of a whole model"
        ]
    return []
