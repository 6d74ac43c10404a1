"""Choices of a loss that are legal and probably not meant."""

from orchestrator.checks.naming import key_in
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.stage_kinds import kind_of

WIDE_FOR_GSPO = 0.05
"""The geometric mean of a completion's ratios hardly ever goes this far from 1; GSPO's paper clips at 3e-4 and 4e-4."""


def check_loss(recipe: Recipe, stage: Stage) -> list[str]:
    """Notes about the loss of one stage of reinforcement learning."""
    if not kind_of(stage).is_rl:
        return []
    settings, notes = stage.learner, []

    def note(key: str, text: str) -> None:
        notes.append(f"{key_in(recipe, stage, f'learner.{key}')} {text}")

    if settings.kl_coef and settings.kl_in == "loss" and settings.kl_estimator == "k1":
        note("kl_estimator", '= "k1" in the loss has an expected gradient of zero: it adds noise; take "k2" or "k3"')
    if settings.kl_coef and settings.kl_in == "reward" and settings.advantage_scale == "group_std":
        note(
            "kl_in",
            '= "reward" with advantage_scale = "group_std": a group of equal rewards differs by its KL alone, which is '
            'then blown up to full size; take "batch_std" or "none"',
        )
    if settings.reference_refresh_steps and not settings.kl_coef:
        note("reference_refresh_steps", "does nothing with kl_coef = 0: no reference is loaded")
    if settings.policy_loss == "gspo" and max(settings.clip_low, settings.clip_high) > WIDE_FOR_GSPO:
        note("policy_loss", '= "gspo" hardly ever clips at this range; its paper has clip_low = 3e-4, clip_high = 4e-4')
    if settings.policy_loss == "gspo" and settings.length_norm != "sequence":
        note("length_norm", f'= "{settings.length_norm}" weighs a completion by its length; GSPO has "sequence"')
    return notes
