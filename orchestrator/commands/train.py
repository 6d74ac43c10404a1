"""`rayzero train` and `rayzero submit`: run a recipe, here or as a job of a Ray cluster."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.arguments import Overrides, RecipeArgument, Seed, load
from rollout.errors import InputError, ServiceError, visible


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
    from orchestrator.config.load import run_folder
    from orchestrator.config.wiring import select_stages
    from orchestrator.run.resume import check_run_dir

    if run_dir == "":
        raise InputError("--run: is empty; name a folder, or leave it out for runs/<recipe name>")
    resolved = load(recipe, overrides, address, seed)
    selected = select_stages(resolved.stages, first=first, last=last, only=only)
    folder = run_folder(recipe)
    target = Path(run_dir) if run_dir else folder or Path("runs") / resolved.name
    continued = check_run_dir(resolved, target)
    for note in preflight(resolved):
        typer.echo(visible(f"note: {note}"))
    # Said before Ray and torch are imported, which takes a while on a fresh machine.
    typer.echo(f"{'continuing' if continued else 'starting'} the run in {target}")
    from orchestrator.pipeline import train as train_run

    try:
        train_run(resolved, target, selected)
    except ServiceError as error:
        raise ServiceError(f"{error}\ncontinue with: rayzero train {target}") from error


def submit(
    recipe: RecipeArgument,
    address: Annotated[
        str,
        typer.Option(
            metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, such as http://HOST:8265."
        ),
    ],
    overrides: Overrides = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stream the log until the job ends; Ctrl-C leaves the job running.")
    ] = False,
    run_dir: Annotated[
        str,
        typer.Option(
            "--run", metavar="DIR", help="Folder of the run, seen by all nodes. [default, here only: runs/<name>]"
        ),
    ] = "",
    working_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Folder to send along; relative paths of the recipe are inside it.")
    ] = "",
    command: Annotated[
        str, typer.Option(metavar="CMD", help="How rayzero is called on the cluster. [default: rayzero]")
    ] = "",
    seed: Seed = None,
) -> None:
    """Run a recipe as a job of a Ray cluster.

    The nodes of the cluster need rayzero installed. On this machine (http://127.0.0.1:8265) relative paths mean what
    they mean here. On another one the job gets the resolved recipe and nothing else: give data and model by absolute
    paths or hub ids, or send a folder along with --working-dir; --run must be absolute.

    The cluster's token is read from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; for a cluster
    without tokens set RAY_AUTH_MODE=disabled.
    """
    from orchestrator.checks.preflight import preflight
    from orchestrator.cluster.submit import checked_address, is_loopback
    from orchestrator.cluster.submit import submit as submit_run
    from orchestrator.config.load import run_folder

    resolved = load(recipe, overrides, seed=seed)
    if is_loopback(checked_address(address)) and not working_dir:
        # The cluster is this machine: what would fail there can be found here.
        preflight(load(recipe, overrides, "auto", seed))
    settings = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
    code = submit_run(
        resolved,
        name=recipe,
        overrides=settings,
        address=address,
        run_dir=run_dir or str(run_folder(recipe) or ""),
        working_dir=working_dir,
        command=command,
        follow=follow,
    )
    raise typer.Exit(code)
