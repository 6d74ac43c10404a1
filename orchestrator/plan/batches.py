"""Batches of reinforcement learning in optimizer steps: papers count in those, a recipe in batches."""

from collections.abc import Iterator

from orchestrator.config.recipe import Stage
from orchestrator.config.schedule import Schedule
from orchestrator.config.stage_kinds import kind_of


def batch_plan(stage: Stage) -> str:
    """One line about the batches of a stage of reinforcement learning; empty for any other."""
    if not kind_of(stage).is_rl:
        return ""
    groups, size, parts = stage.loop.groups_per_step, stage.rollout.group_size, stage.learner.mini_batches
    plan = f"{groups * size:,} completions a batch ({groups:,} groups × {size})"
    if parts > 1:
        plan += f", in {parts} mini-batches of {groups * size / parts:,.6g}"
    plan += f"; {stage.loop.steps:,} batches are {stage.loop.steps * parts:,} optimizer steps"
    if every := stage.learner.reference_refresh_steps if stage.learner.kl_coef else 0:
        plan += f"; a new reference every {every:,} of them ({every / parts:,.4g} batches)"
    return plan


def changes_of(stage: Stage) -> Iterator[str]:
    """The changes at steps of the stage, a line each, counted in batches and, where that differs, in optimizer steps."""
    parts = stage.learner.mini_batches
    for step, change in Schedule(stage).changes.items():
        counted = f" ({step * parts:,} optimizer steps)" if parts > 1 else ""
        yield f"from step {step:,}{counted}: {change}"
