"""`rayzero train`: run a recipe, or continue a run."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.arguments import Overrides, RecipeArgument, Seed, load
from rollout.errors import InputError, visible


def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run_dir: Annotated[
        str | None, typer.Option("--run", metavar="DIR", help="Folder of the run. [default: runs/<recipe name>]")
    ] = None,
    address: Annotated[
        str, typer.Option(metavar="ADDR", help="Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT.")
    ] = "",
    seed: Seed = None,
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help="Begin with this stage.")] = "",
    last: Annotated[str, typer.Option("--until", metavar="STAGE", help="End after this stage.")] = "",
    only: Annotated[str, typer.Option(metavar="STAGE", help="Run no other stage.")] = "",
) -> None:
    """Train by a recipe, or continue the run that is in its folder.

    A run is continued when its folder holds one: finished stages are not run again, and stages that have begun must have
    the same settings, but loop.steps of an unfinished one may grow, and cluster.* and what it is computed on, such as
    learner.ranks, learner.zero_stage and rollout.replicas, may differ. RECIPE may be that folder itself: rayzero train
    runs/arithmetic
    """
    from orchestrator.checks.preflight import preflight
    from orchestrator.cluster import job_environment
    from orchestrator.config.load import run_folder
    from orchestrator.config.wiring import select_stages
    from orchestrator.run.remote import folder_of_uri, restored
    from orchestrator.run.resume import check_run_dir
    from rollout.storage.uri import is_uri

    if run_dir == "":
        raise InputError("--run: is empty; name a folder, or leave it out for runs/<recipe name>")
    job_environment.load()
    if is_uri(recipe):
        brought, storage = folder_of_uri(recipe, run_dir or "")
        recipe, overrides = f"{brought}/", [storage, *(overrides or ())]
    resolved = load(recipe, overrides, address, seed)
    selected = select_stages(resolved.stages, first=first, last=last, only=only)
    folder = run_folder(recipe)
    target = Path(run_dir) if run_dir else folder or Path("runs") / resolved.name
    restored(resolved, target)
    continued = check_run_dir(resolved, target)
    for note in preflight(resolved):
        typer.echo(visible(f"note: {note}"))
    # Said before Ray and torch are imported, which takes a while on a fresh machine.
    typer.echo(f"{'continuing' if continued else 'starting'} the run in {target}")
    from orchestrator.pipeline import train as train_run
    from orchestrator.run.lease import LeaseLost

    try:
        train_run(resolved, target, selected)
    except LeaseLost:
        raise
    except Exception as error:
        if not isinstance(error, InputError):
            error.add_note(f"continue with: rayzero train {target}")
        raise
