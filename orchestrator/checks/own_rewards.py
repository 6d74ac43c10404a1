"""Whether reward functions of the user's own import and give a number for a row of the data, in a process that can be killed."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.checks.naming import key_in
from orchestrator.config.recipe import Recipe, Stage
from orchestrator.config.sections.data import SourceSection
from rewards.types import Sample
from rollout.errors import InputError, ServiceError

if TYPE_CHECKING:
    from rollout.data.rows import Row

IMPORT_TIMEOUT_S = 120.0
"""Longest import of the modules of a rubric."""


def check_own_rewards(recipe: Recipe, *, training: bool) -> None:
    """Import every function of the user's own, and call it with the first row that its rubric will score.

    Raises:
        InputError: one does not import, is too slow, raises, or returns no number.
    """
    seen: set[str] = set()
    for stage in recipe.stages:
        for rubric, functions in stage.rewards.rubrics.items():
            sources = list(_scored(stage, rubric, training))
            key = f"{[functions[label].model_dump_json() for label in functions]}{sources[:1]}"
            if any(":" in function.name for function in functions.values()) and key not in seen:
                seen.add(key)
                _try(recipe, stage, rubric, sources)


def _scored(stage: Stage, rubric: str, training: bool) -> Iterator[tuple[str, SourceSection]]:
    """(name, source) of the rows that a rubric scores; those of an earlier stage are not there yet."""
    sections = [*stage.eval.prompt_sets.items(), *(stage.data.sources.items() if training else ())]
    return ((name, each) for name, each in reversed(sections) if each.rubric == rubric and (each.path or each.task))


def _try(recipe: Recipe, stage: Stage, rubric: str, sources: list[tuple[str, SourceSection]]) -> None:
    # Only here: the built-in rewards bring numpy, and few recipes have functions of their own.
    from orchestrator.config.rubrics import resource_settings, rubrics_of
    from rewards.resources import Resources
    from rewards.rubric import Rubric

    own = [spec for spec in rubrics_of(stage)[rubric] if ":" in spec.name]
    modules = tuple(sorted({spec.name.rpartition(":")[0] for spec in own}))
    settings = replace(resource_settings(stage), preload=modules, processes=1)

    async def run() -> None:
        resources = Resources(settings, start_timeout_s=IMPORT_TIMEOUT_S)
        try:
            await resources.pool.start()
            if sources:
                row = _first_row(recipe, *sources[0])
                sample = Sample.invented(prompt=row.question, answer=row.answer, fields=row.fields)
                try:
                    await Rubric(rubric, own, resources).check(sample)
                except InputError as problem:
                    raise InputError(f"{problem}\nit was given the row {row.place or row.row_id}") from None
        finally:
            await resources.close()

    try:
        asyncio.run(run())
    except (InputError, ServiceError) as problem:
        named = key_in(recipe, stage, f"rewards.rubrics.{rubric}")
        raise InputError(f"{named}: {problem}".rstrip()) from None


def _first_row(recipe: Recipe, name: str, section: SourceSection) -> "Row":
    # Only here: brings pyarrow.
    from rollout.data.sources import load_rows

    (row,) = load_rows(replace(section.source(name), limit=1), recipe.seed)
    return row
