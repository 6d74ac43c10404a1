"""Arguments by which a command names a recipe: RECIPE, KEY=VALUE and the seed."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from orchestrator.config.recipe import Recipe

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A shipped recipe by name, a TOML file, or the folder of a run.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings over the recipe's: learner.lr=1e-5 in every stage, stages.NAME.learner.lr=1e-5 in one.",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed of every random choice (key: seed).")]


def load(recipe: str, overrides: Sequence[str] | None, address: str = "", seed: int | None = None) -> "Recipe":
    """The resolved recipe, with what the options of the command say over it. Raises InputError."""
    from orchestrator.config.load import load_recipe

    settings = [*(overrides or ())]
    if address:
        settings.append(f"cluster.address={json.dumps(address)}")
    if seed is not None:
        settings.append(f"seed={seed}")
    return load_recipe(recipe, settings)
