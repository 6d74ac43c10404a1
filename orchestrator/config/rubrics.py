"""The rubrics of a recipe in the form that the reward service takes. Imports neither Ray nor torch."""

from dataclasses import replace

from orchestrator.config.recipe import Stage
from orchestrator.config.sections.rewards import SandboxSection
from orchestrator.config.stage_kinds import kind_of
from rewards.functions import origin_of
from rewards.models.scorers import KINDS
from rewards.resources import ResourceSettings
from rewards.sandbox.types import Limits
from rewards.types import FunctionSpec, RubricSpec
from rollout.errors import InputError

_FLAGS = (FunctionSpec(name="readability", label="readability", weight=0.0),)


def rubrics_of(stage: Stage) -> dict[str, RubricSpec]:
    """The rubrics of a stage as the reward service takes them; in a `reject` stage with the flags that it filters by."""
    flags = _FLAGS if kind_of(stage).leaves == "rows" and stage.reject.filters else ()
    return {
        name: tuple(
            FunctionSpec(
                name=function.name,
                label=label,
                weight=function.weight,
                gate=function.gate,
                group=function.group,
                form=function.form,
                entry=function.entry,
                args=dict(function.model_extra or {}),
            )
            for label, function in functions.items()
        )
        + (() if "readability" in functions else flags)
        for name, functions in stage.rewards.rubrics.items()
    }


def correct_label(rubric: RubricSpec, chosen: str = "", *, answered: bool = True) -> str:
    """Label of the reward function that says whether a completion is right; empty where none does.

    `chosen`, or else the first `accuracy` or `code_tests`, or else the first that is no reward model, whose values have no
    such bound. `answered`: whether there are reference answers; without, no other function than these says what is right.
    """
    verifiers = [spec.label for spec in rubric if spec.name in ("accuracy", "code_tests")]
    others = [spec.label for spec in rubric if spec.name != "reward_model" and spec not in _FLAGS] if answered else []
    return chosen or next(iter(verifiers + others), "")


def preferring_label(rubric: RubricSpec, chosen: str = "") -> str:
    """Label of the reward function that prefers one response to another by a higher value; empty: the whole reward does.

    `chosen`, or else the first reward model or judge.

    Raises:
        InputError: it is, or the whole reward has in it, a function that sees a whole group: it says nothing of one response.
    """
    label = chosen or next((spec.label for spec in rubric if spec.name in KINDS), "")
    for spec in rubric:
        if spec.group and label in ("", spec.label):
            raise InputError(
                f"{spec.label!r} scores a whole group and cannot compare a completion with a baseline; name another "
                "function with `judged_by`"
            )
    return label


def resource_settings(stage: Stage) -> ResourceSettings:
    """Processes, modules and limits that the reward functions of one actor may use."""
    names = {function.name for functions in stage.rewards.rubrics.values() for function in functions.values()}
    return replace(
        sandbox_settings(stage.sandbox),
        processes=stage.rewards.processes,
        function_timeout_s=stage.rewards.function_timeout_s,
        preload=tuple(sorted({origin for name in names if (origin := origin_of(name))})),
    )


def sandbox_settings(section: SandboxSection) -> ResourceSettings:
    """What programs may use; the rest as it is without a recipe."""
    return ResourceSettings(
        limits=Limits(
            test_s=section.time_limit_s,
            total_s=section.total_s,
            memory_mb=section.memory_mb,
            processes=section.processes,
            file_mb=section.file_mb,
        ),
        allow_weak_sandbox=section.allow_weak,
        packages=section.packages,
    )
