"""Reward models that an earlier stage of the same run trains: `path = "stage:NAME"` of a reward function.

Imports nothing heavy: a wrong name is told before anything starts.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.sections.rewards import FunctionSection
from orchestrator.config.stage_kinds import kind_of
from rollout.errors import InputError, did_you_mean

PREFIX = "stage:"


def check_stage_models(recipe: Recipe) -> None:
    """Raises InputError when a stage scores with a model that no stage before it trains, or reads it in another way."""
    for place, stage in enumerate(recipe.stages):
        before = {other.name: other for other in recipe.stages[:place] if kind_of(other).leaves == "rewards"}
        for key, name, function in _references(stage):
            if name not in before:
                known = ", ".join(before) or "none"
                found = next((other for other in recipe.stages if other.name == name), None)
                reason = f"{name!r} is no reward_model stage before it" if found else f"there is no stage {name!r}"
                raise InputError(
                    f'{key} (stage {stage.name}): path = "{PREFIX}{name}": {reason}{did_you_mean(name, before)}; '
                    f"reward_model stages before {stage.name}: {known}"
                    + (_way_out(stage, key, name) if found and kind_of(found).leaves == "rewards" else "")
                )
            asked, trained = _arguments(function).get("scope"), before[name].reward_model.scope
            if asked not in (None, trained):
                raise InputError(
                    f"{key}.scope (stage {stage.name}) = {asked!r}: stage {name!r} is trained on reward_model.scope = "
                    f"{trained!r}; remove the key, or change it there"
                )


def _way_out(stage: Stage, key: str, name: str) -> str:
    """The way out where only evaluation sets ask for a reward model that is not trained yet."""
    rubric = key.split(".")[2]
    if rubric in _training_rubrics(stage):
        return ""
    sets = [f"eval.sets.{each}" for each, section in stage.eval.prompt_sets.items() if section.rubric == rubric]
    return (
        f"\n{' and '.join(sets)}: give it to the stages behind {name} alone ([stages.eval.sets]); there an `eval` stage "
        f'with model_from = "{stage.name}" evaluates the model of {stage.name} too'
    )


def missing_models(selected: Sequence[Stage], finished: set[str]) -> Iterator[str]:
    """One line a reward model that a selected stage scores with, of a stage that is neither selected nor finished."""
    there = finished | {stage.name for stage in selected}
    for stage in selected:
        for _, name, _ in _references(stage):
            if stage.name not in finished and name not in there:
                yield f"stage {stage.name} scores with the model of stage {name}, which is not finished"


def exports_in(run: Path | None, otherwise: str) -> Callable[[str], Path]:
    """The folder of a reward model, by the stage that trains it, for what scores outside of a run.

    Args:
        run: folder of the run that trained them; None: there is none.
        otherwise: what to do without a run, for the message.
    """

    def folder(name: str) -> Path:
        if run is None:
            raise InputError(f'path = "{PREFIX}{name}" is a reward model that a run trains; {otherwise}')
        export = run.absolute() / name / "export"
        if not (export / "config.json").is_file():
            raise InputError(
                f'path = "{PREFIX}{name}": stage {name} of {run} is not finished; continue with `rayzero train {run}`'
            )
        return export

    return folder


def with_stage_models(
    recipe: Recipe, stage: Stage, export_folder: Callable[[str], Path | str], used: Collection[str] | None = None
) -> Stage:
    """The stage with the exports of those stages in place of their names, each read as it was trained.

    Rubrics that the stage does not use and that name a stage are left out: their model may not be there yet. `used`: names
    of the rubrics in use; None: those that the stage scores with.
    """
    if not any(True for _ in _references(stage, unused=True)):
        return stage
    scopes = {other.name: other.reward_model.scope for other in recipe.stages}
    used = used_rubrics(stage) if used is None else used
    rubrics = {}
    for rubric, functions in stage.rewards.rubrics.items():
        names = {label: _trainer(function) for label, function in functions.items()}
        if rubric not in used and any(name is not None for name in names.values()):
            continue
        rubrics[rubric] = {
            label: function if (name := names[label]) is None else _resolve(function, export_folder(name), scopes[name])
            for label, function in functions.items()
        }
    return stage.model_copy(update={"rewards": stage.rewards.model_copy(update={"rubrics": rubrics})})


def _resolve(function: FunctionSection, folder: Path | str, scope: str) -> FunctionSection:
    return FunctionSection.model_validate(function.model_dump() | {"path": str(folder), "scope": scope})


def _references(stage: Stage, unused: bool = False) -> Iterator[tuple[str, str, FunctionSection]]:
    """(key, name of the stage, function) of reward functions that name a stage, in the rubrics that the stage scores with.

    `unused`: in the other rubrics too.
    """
    used = stage.rewards.rubrics if unused else used_rubrics(stage)
    for rubric, functions in stage.rewards.rubrics.items():
        for label, function in functions.items():
            if rubric in used and (name := _trainer(function)) is not None:
                yield f"rewards.rubrics.{rubric}.{label}", name, function


def used_rubrics(stage: Stage) -> set[str]:
    """Rubrics that a stage scores with, its evaluation sets included."""
    if not kind_of(stage).generates:
        return set()
    return _training_rubrics(stage) | {section.rubric for section in stage.eval.prompt_sets.values()}


def _training_rubrics(stage: Stage) -> set[str]:
    """Rubrics that a stage scores its own samples with."""
    return {section.rubric for section in stage.data.sources.values()} if kind_of(stage).samples else set()


def _trainer(function: FunctionSection) -> str | None:
    """Name of the stage that trains the model of a reward function; None for any other."""
    path = _arguments(function).get("path")
    if function.name != "reward_model" or not isinstance(path, str) or not path.startswith(PREFIX):
        return None
    return path.removeprefix(PREFIX)


def _arguments(function: FunctionSection) -> dict[str, object]:
    return function.model_extra or {}
